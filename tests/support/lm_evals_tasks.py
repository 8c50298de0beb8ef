"""What lm-eval does again and again, and a test run once: it reads the files of its tasks and of ours, and compiles templates."""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Iterable, Iterator
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

    if hasattr(_index.load_yaml, "once"):  # the fixture of another folder of tests
        yield
        return
    own, load, files = Path(str(_index.__file__)).parent, _index.load_yaml, _index.TaskIndex._iter_yaml_files
    base = tmp_path_factory.getbasetemp()
    kept = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "lm_evals_tasks.pickle"
    ours = functools.cache(lambda path: pickle.dumps(load(path, **UNRESOLVED)))

    @functools.cache
    def contents() -> dict[str, bytes | None]:
        with FileLock(kept.with_suffix(".lock")):
            if not kept.exists():
                kept.write_bytes(pickle.dumps(_read(files(own))))
            return dict(pickle.loads(kept.read_bytes()))

    paths = functools.cache(lambda: [Path(path) for path in contents()])

    def load_once(path: Path, **options: Any) -> Any:
        if options == UNRESOLVED and str(path).startswith(f"{OURS}{os.sep}"):
            return pickle.loads(ours(path))
        if options == UNRESOLVED and str(path).startswith(f"{own}{os.sep}") and (content := contents()[str(path)]):
            return pickle.loads(content)
        return load(path, **options)

    load_once.once = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_index, "load_yaml", load_once)
        patch.setattr(_index.TaskIndex, "_iter_yaml_files", staticmethod(lambda root: paths() if root == own else files(root)))
        yield


@pytest.fixture(scope="session", autouse=True)
def templates_are_compiled_once() -> Iterator[None]:
    """lm-eval compiles each template of a task for each of its items."""
    from lm_eval import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils.env, "from_string", functools.lru_cache(1000)(utils.env.from_string))
        yield


def _read(files: Iterable[Path]) -> dict[str, bytes | None]:
    """The contents of files, None for one that cannot be read. A file that others include is parsed once."""
    from lm_eval.tasks import _yaml_loader

    load = _yaml_loader.load_yaml
    included: dict[str, bytes] = {}

    def load_included(path: Path, **options: Any) -> Any:
        key = os.path.normpath(path)
        if key not in included:
            included[key] = pickle.dumps(load(path, **options))
        return pickle.loads(included[key])

    contents: dict[str, bytes | None] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_yaml_loader, "load_yaml", load_included)
        for path in files:
            try:
                contents[str(path)] = pickle.dumps(load(path, **UNRESOLVED))
            except Exception:  # lm-eval leaves it out, and says so in its log
                contents[str(path)] = None
    return contents
