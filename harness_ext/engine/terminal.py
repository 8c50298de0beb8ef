"""A progress bar on standard error, shown on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_outer: list[Any] = []  # the bars of rich within which others are shown as further lines


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each of ``total`` steps."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    if _outer:
        bar = _outer[-1]
        task = bar.add_task(title, total=total)
        try:
            yield lambda: bar.advance(task)
        finally:
            bar.remove_task(task)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def nested(bar: Any) -> Iterator[None]:
    """Shows what :func:`progress` shows within the context as lines of ``bar``, a ``rich.progress.Progress``: two would overwrite each
    other."""
    _outer.append(bar)
    try:
        yield
    finally:
        _outer.pop()
