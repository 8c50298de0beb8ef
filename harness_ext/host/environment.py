"""What lm-eval records about the machine: without a message of git on standard error, and in a sweep asked for once."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def quieten_git() -> None:
    """Lets lm-eval ask for the commit of the current folder without ``fatal: not a git repository`` where there is none.

    It may be called any number of times.
    """
    from lm_eval import evaluator

    original = evaluator.get_git_commit_hash
    if not getattr(original, "_harness_ext", False):
        evaluator.get_git_commit_hash = _without_standard_error(original)


@contextmanager
def environment_asked_once() -> Iterator[None]:
    """Within it, ``simple_evaluate`` describes the machine with what the first call in this process found. lm-eval asks pip and the system
    after every evaluation, which takes seconds."""
    from lm_eval import evaluator

    original = evaluator.add_env_info
    evaluator.add_env_info = lambda results: results.update(_environment(original))
    try:
        yield
    finally:
        evaluator.add_env_info = original


@functools.cache
def _environment(ask: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    environment: dict[str, Any] = {}
    ask(environment)
    return environment


def _without_standard_error(ask: Callable[[], Any]) -> Callable[[], Any]:
    @functools.wraps(ask)
    def quiet() -> Any:
        before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)  # git inherits the file, and not sys.stderr
            return ask()
        finally:
            os.dup2(before, 2)
            os.close(before)
            os.close(nowhere)

    quiet._harness_ext = True  # type: ignore[attr-defined]
    return quiet
