"""Changes what lm-eval repeats or prints without need: descriptions of the machine, errors of git, and compiling of templates."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

TEMPLATES = 4096  # an lm-eval run with all of MMLU has some hundreds


def quieten_git() -> None:
    """Suppresses ``fatal: not a git repository`` when lm-eval asks for the commit of the current folder.

    Several calls have the same effect as one.
    """
    from lm_eval import evaluator

    original = evaluator.get_git_commit_hash
    if not getattr(original, "_harness_ext", False):
        evaluator.get_git_commit_hash = _without_standard_error(original)


def compile_templates_once() -> None:
    """Keeps compiled templates. lm-eval compiles a template of a task for every document, which takes longer than filling it in.

    Several calls have the same effect as one.
    """
    from lm_eval.utils import env

    original = env.from_string
    if not getattr(original, "_harness_ext", False):
        compiled = functools.lru_cache(TEMPLATES)(original)

        @functools.wraps(original)
        def from_string(source: Any, *more: Any, **named: Any) -> Any:
            only_text = isinstance(source, str) and not more and not named
            return compiled(source) if only_text else original(source, *more, **named)

        from_string._harness_ext = True  # type: ignore[attr-defined]
        env.from_string = from_string


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
