"""The progress of a sweep, with the time left: a bar on standard error if that is a terminal, else a line in the log for each trial."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness_ext.engine import ranks
from harness_ext.engine.terminal import nested

log = logging.getLogger(__name__)


class Display:
    """Counts finished trials, and estimates the time left from their costs."""

    def __init__(self, costs: dict[str, float], bar: Any = None, *, lines: bool = False) -> None:
        self._costs, self._bar, self._lines = costs, bar, lines
        self._total, self._finished, self._began = sum(costs.values()), 0.0, time.monotonic()
        self._count = 0
        self._task = bar.add_task("", total=len(costs), left=self.left) if bar else None

    def begin(self, title: str) -> None:
        """A trial has begun."""
        if self._bar:
            self._bar.update(self._task, description=title)
        elif self._lines:
            log.info("trial %d of %d (%s left): %s", self._count + 1, len(self._costs), clock(self.left()), title)

    def end(self, key: str) -> None:
        """A trial has succeeded or failed."""
        self._count += 1
        self._finished += self._costs[key]
        if self._bar:
            self._bar.update(self._task, completed=self._count)

    def left(self) -> float | None:
        """Seconds left, at the speed so far; None before the first trial has ended."""
        if not self._finished:
            return None
        return (time.monotonic() - self._began) * (self._total - self._finished) / self._finished


def clock(seconds: float | None) -> str:
    """``1:02:03``, or dashes."""
    return "-:--:--" if seconds is None else f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"


@contextmanager
def displayed(costs: dict[str, float]) -> Iterator[Display]:
    """The display of a sweep.

    Args:
        costs: of the trials, by their keys.
    """
    if not sys.stderr.isatty() or not costs or not ranks.is_first():
        yield Display(costs, lines=ranks.is_first())
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Left(ProgressColumn):
        def render(self, task: Task) -> Text:
            left = task.fields.get("left")
            return Text(f"{clock(left())} left" if left else "")

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), Left())
    with Progress(*columns, console=Console(stderr=True)) as bar, nested(bar):
        yield Display(costs, bar)
