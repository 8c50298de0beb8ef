"""A sweep in several processes (``accelerate launch``). They share the work of each trial, and the first one writes the folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from harness_ext.engine import ranks
from harness_ext.errors import BadOptionError, HarnessExtError, one_line
from harness_ext.sweep.folder import Folder


def asked_for() -> int:
    """The number of processes that a launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join() -> None:
    """Joins the processes of a launcher, as lm-eval's ``hf`` would do later, until Python ends.

    Raises:
        BadOptionError: ``WORLD_SIZE`` is above 1, and the other processes cannot be reached.
    """
    if asked_for() > 1:
        from accelerate import Accelerator, InitProcessGroupKwargs

        try:
            with ranks.left_at_exit():
                Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(weeks=52))])
        except (ValueError, RuntimeError, KeyError) as error:
            reason = one_line(error, whole=True)
            raise BadOptionError(f"WORLD_SIZE={asked_for()}: the other processes cannot be joined: {reason}") from error


@contextmanager
def held(out: Path) -> Iterator[Folder | None]:
    """The folder of a sweep in the first process, and None in the others.

    Raises:
        HarnessExtError: as :class:`Folder`, in all processes.
    """
    folder: Folder | None = None
    error: HarnessExtError | None = None
    if ranks.is_first():
        try:
            folder = Folder(out)
        except HarnessExtError as raised:
            error = raised
    error = ranks.broadcast(error)
    if error is not None:
        raise error
    if folder is None:
        yield None
    else:
        with folder:
            yield folder
