"""The folder that ``harness-ext prune`` writes, which ``--force`` may replace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness_ext.atomic import check_folder, whole_folder, writing
from harness_ext.errors import BadOptionError, shortened

RECORD = "pruning.json"  # every folder of harness-ext prune has it, and no other folder


def check_out(out: Path, force: bool) -> None:
    """Checks before any weight is loaded that the folder ``out`` can be written.

    Raises:
        BadOptionError: it exists and ``force`` is not set, ``harness-ext prune`` did not write it, or its parent folder is not writable.
        WriteError: the file system refuses to tell.
    """
    called = f"--out {shortened(out)}"
    check_folder(out, replace=True, called=called)
    with writing(out):
        if out.is_dir() and not force:
            raise BadOptionError(f"{called}: the folder exists: want another path, or --force")
        if out.is_dir() and any(out.iterdir()) and not (out / RECORD).is_file():
            raise BadOptionError(f"{called}: --force replaces what harness-ext prune wrote, and there is no {RECORD} in this folder")


@contextmanager
def out_folder(out: Path, *, force: bool = False) -> Iterator[Path]:
    """Yields a new folder that becomes ``out`` as a whole or not at all.

    Args:
        force: replace ``out`` if ``harness-ext prune`` wrote it.

    Raises:
        BadOptionError: as :func:`check_out`.
        WriteError: the file system refuses.
    """
    check_out(out, force)
    with whole_folder(out, replace=force) as part:
        yield part
