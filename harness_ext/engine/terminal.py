"""Progress of long stages: a bar on a terminal or in a notebook, log lines elsewhere."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0
_outer: list[Any] = []  # bars of rich that show the stages within them as further lines


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each of ``total`` steps of a stage.

    Off a terminal, a line at level INFO is logged when the stage begins and every 30 seconds: steps done, of how many, and seconds left.
    The lines come also while one step takes longer than that.

    Args:
        title: what is done, such as ``calibration tokens``.
        total: the number of steps.
    """
    if _outer:
        bar = _outer[-1]
        task = bar.add_task(title, total=total)
        try:
            yield lambda: bar.advance(task)
        finally:
            bar.remove_task(task)
        return
    with _generator_kept():
        from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal or console.is_jupyter:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=total)
            yield lambda: bar.advance(task)
        return
    with _lines(title, total) as advance:
        yield advance


@contextmanager
def _generator_kept() -> Iterator[None]:
    """Around the import of rich, which draws from Python's generator: tasks are to draw what they draw with other models."""
    before = random.getstate()
    try:
        yield
    finally:
        random.setstate(before)


@contextmanager
def _lines(title: str, total: int) -> Iterator[Callable[[], None]]:
    steps, began, ended = [0], time.monotonic(), threading.Event()

    def advance() -> None:
        steps[0] += 1

    def report() -> None:
        while not ended.wait(SECONDS_BETWEEN_LINES):
            seconds = time.monotonic() - began
            left = f"about {seconds / steps[0] * (total - steps[0]):.0f} s left" if steps[0] else "seconds left not known yet"
            log.info("%s: %d of %d done after %.0f s, %s", title, steps[0], total, seconds, left)

    log.info("%s: %d steps", title, total)
    thread = threading.Thread(target=report, name=f"progress of {title}", daemon=True)
    thread.start()
    try:
        yield advance
    finally:
        ended.set()
        thread.join()


@contextmanager
def nested(bar: Any) -> Iterator[None]:
    """Shows what :func:`progress` shows within the context as lines of ``bar``, a ``rich.progress.Progress``: two would overwrite each
    other."""
    _outer.append(bar)
    try:
        yield
    finally:
        _outer.pop()


def show_log() -> None:
    """Shows the log of this package from level INFO on standard error, for command lines. Does nothing where a program has configured
    logging itself.

    lm-eval shows only its own logger.
    """
    package = logging.getLogger("harness_ext")
    if package.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(message)s", datefmt="%Y-%m-%d:%H:%M:%S"))
    package.addHandler(handler)
    package.setLevel(logging.INFO)
