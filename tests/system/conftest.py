"""lm-eval's own tasks are read once in a process."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def lm_evals_tasks_are_read_once() -> Iterator[None]:
    """A ``TaskManager`` with lm-eval's tasks reads thousands of files, which takes seconds each time."""
    from lm_eval.tasks import _index

    own, load = Path(str(_index.__file__)).parent, _index.load_yaml
    contents: dict[tuple[Any, ...], Any] = {}

    def load_once(path: Path, **options: Any) -> Any:
        if not Path(path).is_relative_to(own):
            return load(path, **options)
        key = (path, *sorted(options.items()))
        if key not in contents:
            contents[key] = load(path, **options)
        return copy.deepcopy(contents[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_index, "load_yaml", load_once)
        yield
