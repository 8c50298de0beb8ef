"""Changes how lm-eval describes the machine: without error messages of git, and in a sweep only once."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def quieten_git() -> None:
    """Suppresses ``fatal: not a git repository`` when lm-eval asks for the commit of the current folder.

    Several calls have the same effect as one.
    """
    from lm_eval import evaluator

    original = evaluator.get_git_commit_hash
    if not getattr(original, "_harness_ext", False):
        evaluator.get_git_commit_hash = _without_standard_error(original)


@contextmanager
def environment_asked_once() -> Iterator[None]:
    """A context in which ``simple_evaluate`` describes the machine only once per process. lm-eval asks pip and the system after every
    evaluation, which takes seconds."""
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
        standard_error, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)  # git writes to the file descriptor, not to sys.stderr
            return ask()
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
            os.close(null)

    quiet._harness_ext = True  # type: ignore[attr-defined]
    return quiet
