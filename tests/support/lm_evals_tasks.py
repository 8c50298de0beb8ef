"""What lm-eval does again and again, and a test run once: it reads the files of its tasks and of ours, and compiles templates."""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from environment import ROOT
from filelock import FileLock

OURS = ROOT / "task_configs"
UNRESOLVED = {"resolve_func": False, "recursive": True}  # as ``TaskManager`` reads all files


@pytest.fixture(scope="session", autouse=True)
def lm_evals_tasks_are_read_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A ``TaskManager`` with lm-eval's tasks takes eight seconds otherwise, in each process and each time; one with ours, a tenth."""
    from lm_eval.tasks import _index

    own, load = Path(str(_index.__file__)).parent, _index.load_yaml
    base = tmp_path_factory.getbasetemp()
    file = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "lm_evals_tasks.pickle"
    contents: dict[Path, bytes] = {}
    ours = functools.cache(lambda path: pickle.dumps(load(path, **UNRESOLVED)))

    def load_once(path: Path, **options: Any) -> Any:
        if options == UNRESOLVED and Path(path).is_relative_to(OURS):
            return pickle.loads(ours(path))
        if options != UNRESOLVED or not Path(path).is_relative_to(own):
            return load(path, **options)
        if not contents:
            with FileLock(file.with_suffix(".lock")):
                if not file.exists():
                    file.write_bytes(pickle.dumps(_read(own)))
                contents.update(pickle.loads(file.read_bytes()))
        return pickle.loads(contents[path]) if path in contents else load(path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_index, "load_yaml", load_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def templates_are_compiled_once() -> Iterator[None]:
    """lm-eval compiles each template of a task for each of its items."""
    from lm_eval import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils.env, "from_string", functools.lru_cache(1000)(utils.env.from_string))
        yield


def _read(folder: Path) -> dict[Path, bytes]:
    """Each file below a folder that can be read. A file that others include is parsed once."""
    from lm_eval.tasks import _index, _yaml_loader

    load = _yaml_loader.load_yaml
    included: dict[str, bytes] = {}

    def load_included(path: Path, **options: Any) -> Any:
        key = os.path.normpath(path)
        if key not in included:
            included[key] = pickle.dumps(load(path, **options))
        return pickle.loads(included[key])

    contents = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_yaml_loader, "load_yaml", load_included)
        for path in _index.TaskIndex._iter_yaml_files(folder):
            try:
                contents[path] = pickle.dumps(load(path, **UNRESOLVED))
            except Exception:  # lm-eval leaves it out, and says so in its log
                continue
    return contents
