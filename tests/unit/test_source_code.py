"""The digest of a method's code changes with every file that the method may run, and with nothing else."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from pathlib import Path

import pytest
from refusals import raises_line

from harness_ext import PluginError, Pruner
from harness_ext.method import source_code
from harness_ext.method.source_code import code_of, versions

CLASS = "from harness_ext import Pruner\n{imports}\nclass Own(Pruner):\n    name = 'own'\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Writes files into a folder that Python imports from, and returns the class ``Own`` of one of the modules."""
    before = set(sys.modules)

    def write(module: str, files: dict[str, str], folder: Path = tmp_path) -> type[Pruner]:
        monkeypatch.syspath_prepend(folder)
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()
        return importlib.import_module(module).Own

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def digest(cls: type[Pruner]) -> str:
    return code_of(cls)["digest"]


PACKAGE = {
    "own_package/__init__.py": "",
    "own_package/method.py": CLASS.format(imports=""),
    "own_package/helper.py": "VALUE = 1\n",
    "own_package/deep/__init__.py": "",
    "own_package/deep/table.json": "[1]\n",
}


@pytest.mark.parametrize("file", PACKAGE)
def test_any_file_of_a_package_counts(project, tmp_path, file):
    cls = project("own_package.method", PACKAGE)
    before = digest(cls)
    assert digest(cls) == before
    (tmp_path / file).write_text(PACKAGE[file] + "\n")
    assert digest(cls) != before


@pytest.mark.parametrize("file", ["own_package/__pycache__/method.pyc", "own_package/.cache/x", "another_package/__init__.py", "alone.py"])
def test_nothing_else_counts(project, tmp_path, file):
    cls = project("own_package.method", PACKAGE)
    before = digest(cls)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("VALUE = 2\n")
    assert digest(cls) == before


def test_a_new_file_and_a_new_name_count(project, tmp_path):
    cls = project("own_package.method", PACKAGE)
    before = digest(cls)
    (tmp_path / "own_package/more.py").write_text("")
    added = digest(cls)
    (tmp_path / "own_package/more.py").rename(tmp_path / "own_package/most.py")
    assert len({before, added, digest(cls)}) == 3


ALONE = {
    "own_alone.py": CLASS.format(imports="def late():\n    import own_alone_helper\n"),
    "own_alone_helper.py": "from own_alone_deeper import VALUE\n",
    "own_alone_deeper/__init__.py": "VALUE = 1\n",
    "own_alone_stranger.py": "VALUE = 1\n",
}


@pytest.mark.parametrize("folder", ["project", "site-packages"])
def test_modules_beside_a_module_count_if_it_imports_them(project, tmp_path, folder):
    cls, place = project("own_alone", ALONE, tmp_path / folder), tmp_path / folder
    before = digest(cls)
    (place / "own_alone_stranger.py").write_text("VALUE = 2\n")
    assert digest(cls) == before
    for name in ("own_alone.py", "own_alone_helper.py", "own_alone_deeper/__init__.py"):
        (place / name).write_text(ALONE[name] + "\n")
        assert digest(cls) != before
        (place / name).write_text(ALONE[name])
        assert digest(cls) == before


def test_in_site_packages_what_another_distribution_installed_does_not_count(project, tmp_path, monkeypatch):
    owners = {"own_alone": ["own"], "own_alone_helper": ["other"]}
    monkeypatch.setattr(source_code, "_owners", lambda: owners)
    place = tmp_path / "site-packages"
    cls = project("own_alone", ALONE, place)
    before = digest(cls)
    (place / "own_alone_helper.py").write_text("VALUE = 2\n")
    assert digest(cls) == before
    owners["own_alone_helper"] = ["own"]
    assert digest(cls) != before


def test_the_package_of_a_base_class_counts(project, tmp_path):
    project("own_package.method", PACKAGE)
    derived = "from own_package.method import Own as Base\nclass Own(Base):\n    name = 'derived'\n"
    cls = project("derived_package", {"derived_package/__init__.py": derived})
    before = digest(cls)
    (tmp_path / "own_package/helper.py").write_text("VALUE = 2\n")
    assert digest(cls) != before


def test_a_namespace_package_is_not_read_beyond_the_package_of_the_class(project, tmp_path):
    files = {"shared/own_part/__init__.py": CLASS.format(imports=""), "shared/other_part/__init__.py": ""}
    cls = project("shared.own_part", files)
    before = digest(cls)
    (tmp_path / "shared/other_part/__init__.py").write_text("VALUE = 2\n")
    assert digest(cls) == before
    (tmp_path / "shared/own_part/more.py").write_text("")
    assert digest(cls) != before


def test_the_place_of_the_package_does_not_count(project, tmp_path):
    before = digest(project("own_package.method", PACKAGE))
    for name in [name for name in sys.modules if name.startswith("own_package")]:
        del sys.modules[name]
    cls = project("own_package.method", PACKAGE, tmp_path / "elsewhere")
    assert "elsewhere" in sys.modules["own_package"].__file__
    assert digest(cls) == before


class TestRequires:
    def test_the_versions_of_what_is_required_are_given(self):
        class Own(Pruner):
            name = "own"
            requires = ("pluggy", "torch")

        assert versions(Own) == {name: metadata.version(name) for name in Own.requires}
        assert code_of(Own)["requires"] == versions(Own)

    def test_what_is_not_installed_is_named(self):
        class Own(Pruner):
            name = "own"
            requires = ("no-such-distribution",)

        with raises_line(PluginError, "'own'", "'no-such-distribution'"):
            code_of(Own)

    @pytest.mark.parametrize("wrong", ["torch", ["torch"], ("torch", 1), None, ("",)])
    def test_anything_but_names_is_refused(self, wrong):
        class Own(Pruner):
            name = "own"

        Own.requires = wrong
        with raises_line(PluginError, "Own.requires=", repr(wrong)):
            code_of(Own)

    def test_it_is_no_option(self):
        class Own(Pruner):
            name = "own"
            requires = ("torch",)
            power: float = 1.0

        assert list(Own.defaults()) == ["power"]
