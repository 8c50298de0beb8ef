"""What every start of Python pays for our being installed: next to nothing, and never an error."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import threading
import types
import zipfile
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path

import pytest
from environment import ROOT, start_up_seconds

from harness_ext import autoload
from harness_ext.host import registration

PACKAGE = ROOT / "harness_ext"
SITE = sysconfig.get_path("purelib")
LINE = (PACKAGE / "autoload.pth").read_text(encoding="utf-8")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120, env=variables)


def test_python_starts_without_a_word_and_with_our_finder_in_place() -> None:
    ran = python("-c", "pass")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    ran = python("-c", "import sys; print([type(finder).__module__ for finder in sys.meta_path].count('harness_ext.autoload'))")
    assert ran.stdout == "1\n"


def test_the_start_up_line_is_one_line_and_the_one_of_the_checkout() -> None:
    assert LINE.count("\n") == 1
    assert LINE.startswith("import ")  # other lines of a .pth file are folders
    assert (Path(SITE) / "harness_ext_autoload.pth").read_text(encoding="utf-8") == LINE


def test_start_up_imports_our_two_modules_and_nothing_else() -> None:
    code = f"import sys\nsys.path.append({SITE!r})\nbefore = set(sys.modules)\nexec({LINE!r})\nprint(*sorted(set(sys.modules) - before))\n"
    assert python("-I", "-S", "-c", code).stdout == "harness_ext harness_ext.autoload\n"


def test_start_up_takes_less_than_2_ms() -> None:
    assert start_up_seconds(sys.executable, SITE) < 0.002


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "nothing is wrong but that lm_eval and pluggy are missing": lambda package: None,
    "the package is gone": shutil.rmtree,
    "the package is an empty folder": lambda package: [path.unlink() for path in package.glob("*.py")],
    "the package is not Python": lambda package: (package / "__init__.py").write_text("this is not Python"),
    "the package has null bytes": lambda package: (package / "__init__.py").write_bytes(b"\0\0"),
    "the package raises": lambda package: (package / "__init__.py").write_text("raise RuntimeError('broken')"),
    "the package exits": lambda package: (package / "__init__.py").write_text("raise SystemExit(3)"),
    "autoload is gone": lambda package: (package / "autoload.py").unlink(),
    "autoload is not Python": lambda package: (package / "autoload.py").write_text("def"),
    "autoload raises": lambda package: (package / "autoload.py").write_text("import a_module_that_is_not_there"),
    "autoload never ends its recursion": lambda package: (package / "autoload.py").write_text("def f(): f()\nf()"),
    "autoload is a folder": lambda package: ((package / "autoload.py").unlink(), (package / "autoload.py").mkdir()),
    "registration is broken": lambda package: (package / "host" / "registration.py").write_text("def"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_start_up_neither_raises_nor_prints_when(breakage: str, tmp_path: Path) -> None:
    package = tmp_path / "harness_ext"
    package.mkdir()
    for path in (*PACKAGE.glob("*.py"), *PACKAGE.glob("host/*.py")):
        (package / path.relative_to(PACKAGE)).parent.mkdir(exist_ok=True)
        shutil.copy(path, package / path.relative_to(PACKAGE))
    (tmp_path / "harness_ext_autoload.pth").write_text(LINE, encoding="utf-8")
    BREAKAGES[breakage](package)
    code = (
        "import site, sys\n"
        f"site.addsitedir({str(tmp_path)!r})\n"
        "import json, email.message\n"
        "try:\n    import lm_eval.models\nexcept ModuleNotFoundError as error:\n    print('alive:', error)\n"
    )
    ran = python("-I", "-S", "-c", code)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "alive: No module named 'lm_eval'\n", "")


def test_registration_works_where_lm_eval_was_imported_first() -> None:
    code = (
        "import sys\n"
        f"sys.path += {[path for path in sys.path if path]!r}\n"
        "import lm_eval.models, lm_eval.tasks.manager\n"
        "from lm_eval.api.registry import model_registry\n"
        "print('pruned-hf' in model_registry)\n"
        "import harness_ext.autoload\n"
        "print('pruned-hf' in model_registry, hasattr(lm_eval.tasks.manager.TaskManager.__init__, '__wrapped__'))\n"
    )
    ran = python("-I", "-S", "-c", code)
    assert ran.stdout == "False\nTrue True\n", ran.stderr


# The import hook, on modules of the tests' own in place of lm-eval's.


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Watches ``watched_by_tests.module`` in a folder that is on the path; lists what the module held when it was registered."""
    calls: list[str] = []
    monkeypatch.setattr(autoload, "WATCHED", {"watched_by_tests.module": "module_imported"})
    monkeypatch.setattr(registration, "module_imported", lambda: calls.append(sys.modules["watched_by_tests.module"].VALUE), raising=False)
    monkeypatch.setattr(sys, "meta_path", [autoload.Finder(), *(f for f in sys.meta_path if type(f).__module__ != autoload.__name__)])
    monkeypatch.syspath_prepend(tmp_path)
    yield calls
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.startswith("watched_by_tests")]:
        del sys.modules[name]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "watched_by_tests"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "module.py").write_text("VALUE = 'done'\n", encoding="utf-8")
    (folder / "other.py").write_text("VALUE = 'other'\n", encoding="utf-8")
    return folder


def test_a_watched_module_is_registered_once_after_it_was_executed(registered: list[str], package: Path) -> None:
    importlib.import_module("watched_by_tests.other")
    assert registered == []
    importlib.import_module("watched_by_tests.module")
    importlib.import_module("watched_by_tests.module")
    assert registered == ["done"]


def test_a_watched_module_looks_like_any_other(registered: list[str], package: Path) -> None:
    module = importlib.import_module("watched_by_tests.module")
    assert type(module.__loader__) is SourceFileLoader
    assert type(module.__spec__.loader) is SourceFileLoader
    assert module.__file__ == str(package / "module.py")
    assert module.__cached__.endswith(".pyc")
    assert inspect.getsource(module) == "VALUE = 'done'\n"


def test_a_reload_registers_again_and_once(registered: list[str], package: Path) -> None:
    module = importlib.import_module("watched_by_tests.module")
    for _ in range(3):
        importlib.reload(module)
    assert registered == ["done"] * 4


def test_a_missing_watched_module_is_an_ordinary_error(registered: list[str], package: Path) -> None:
    (package / "module.py").unlink()
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'watched_by_tests\.module'"):
        importlib.import_module("watched_by_tests.module")
    assert registered == []


def test_an_error_in_the_watched_module_is_the_modules_own(registered: list[str], package: Path) -> None:
    (package / "module.py").write_text("1 / 0", encoding="utf-8")
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("watched_by_tests.module")
    assert registered == []
    assert "watched_by_tests.module" not in sys.modules


def test_an_error_in_registration_is_shown(registered: list[str], package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("lm-eval has changed")

    monkeypatch.setattr(registration, "module_imported", fail)
    with pytest.raises(RuntimeError, match="lm-eval has changed"):
        importlib.import_module("watched_by_tests.module")


@pytest.mark.filterwarnings("ignore::ImportWarning")
def test_a_finder_that_asks_all_the_others_as_ours_does_ends(registered: list[str], package: Path) -> None:
    class Old:
        def find_module(self, name: str, path: object = None) -> None:
            """All that finders had before Python 3.4."""

    class Inquirer:
        def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
            others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
            specs = (finder.find_spec(name, path, target) for finder in others)
            return next((spec for spec in specs if spec), None)

    sys.meta_path.insert(0, Inquirer())
    sys.meta_path.insert(0, Old())
    importlib.import_module("watched_by_tests.module")
    assert registered == ["done"]


def test_find_spec_finds_the_module_without_executing_it(registered: list[str], package: Path) -> None:
    spec = importlib.util.find_spec("watched_by_tests.module")
    assert spec is not None
    assert spec.origin == str(package / "module.py")
    assert "watched_by_tests.module" not in sys.modules
    assert registered == []


def test_threads_that_import_at_once_register_once(registered: list[str], package: Path) -> None:
    (package / "module.py").write_text("import time\ntime.sleep(0.05)\nVALUE = 'done'\n", encoding="utf-8")
    start = threading.Barrier(8)
    found: list[object] = []

    def work() -> None:
        start.wait()
        found.append(importlib.import_module("watched_by_tests.module").VALUE)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["done"] * 8
    assert registered == ["done"]


def test_one_thread_finding_does_not_hide_us_from_another(registered: list[str], package: Path) -> None:
    finder = sys.meta_path[0]
    importlib.import_module("watched_by_tests")
    other = threading.Thread(target=importlib.import_module, args=["watched_by_tests.module"])

    class Slow:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "watched_by_tests.module" and threading.current_thread() is not other:
                other.start()  # while this thread is finding
                other.join()

    sys.meta_path.insert(1, Slow())
    assert finder.find_spec("watched_by_tests.module", sys.modules["watched_by_tests"].__path__) is not None
    assert registered == ["done"]


def test_a_module_in_a_zip_file_is_registered_and_its_neighbours_are_not(registered: list[str], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        for name, value in (("__init__", ""), ("module", "VALUE = 'zipped'"), ("other", "VALUE = 'other'")):
            archive.writestr(f"watched_by_tests/{name}.py", value)
    sys.path.insert(0, str(tmp_path / "archive.zip"))
    importlib.import_module("watched_by_tests.module")
    importlib.import_module("watched_by_tests.other")
    assert registered == ["zipped"]


def test_a_watched_module_can_be_run_as_a_program(registered: list[str], package: Path) -> None:
    assert runpy.run_module("watched_by_tests.module", run_name="__main__")["VALUE"] == "done"
    assert registered == []


def test_install_is_safe_to_call_again_and_registers_what_was_imported_before(registered: list[str], package: Path) -> None:
    sys.meta_path.pop(0)
    importlib.import_module("watched_by_tests.module")
    assert registered == []
    autoload.install()
    autoload.install()
    assert registered == ["done", "done"]
    assert sum(isinstance(finder, autoload.Finder) for finder in sys.meta_path) == 1


def test_a_loader_that_is_not_ours_keeps_its_own_attributes(registered: list[str], package: Path) -> None:
    importlib.import_module("watched_by_tests")
    spec = importlib.util.find_spec("watched_by_tests.module")
    assert isinstance(spec.loader, autoload.Loader)
    assert spec.loader.get_source("watched_by_tests.module") == "VALUE = 'done'\n"
    assert not hasattr(spec.loader, "no_such_attribute")
    assert not hasattr(object.__new__(autoload.Loader), "get_source")  # as in a copy, before its attributes are set
    module = importlib.util.module_from_spec(spec)
    assert type(module) is types.ModuleType
