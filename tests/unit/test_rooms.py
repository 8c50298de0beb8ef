"""The rooms of the package, in the order in which CONTRIBUTING lists them: imports point down, and no file is long."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import harness_ext

ROOT = Path(__file__).parents[2]
PACKAGE, PLUGINS = ROOT / "harness_ext", ROOT / "plugins"
LONGEST = 400
OUTSIDE = {"__init__.py", "autoload.py"}  # the lazy public names, and what runs at every start of Python
WITH_LM_EVAL = ("host/", "tasks/qa.py", "tasks/qa_recall.py", "testing/models.py")  # the modules that import lm-eval as they are imported
WITHOUT_LM_EVAL = ("engine", "plugins.py", "hookspecs.py", "method", "statistics", "atomic.py", "errors.py")


class Import(NamedTuple):
    name: str
    line: int
    in_function: bool


def rooms() -> list[str]:
    """The first column of the table in CONTRIBUTING, from top to bottom."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index("| room |") :].split("\n\n", 1)[0]
    return [row.split("`")[1].rstrip("/") for row in table.splitlines()[2:]]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def imports_of(path: Path) -> Iterator[Import]:
    """Every module that a file imports, by its full name; a package where a name is taken out of it."""

    def visit(node: ast.AST, in_function: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, in_function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: want an absolute import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield Import(full if full in MODULES else str(node.module), node.lineno, in_function)
        function = in_function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


def module_name(path: Path, top: Path) -> str:
    return ".".join(path.relative_to(top).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path, ROOT): path for path in sorted(PACKAGE.rglob("*.py"))}
BUILT_IN = sorted(PLUGINS.rglob("*.py"))


def test_contributing_has_one_line_for_each_room() -> None:
    there = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert sorted(rooms()) == sorted(there - OUTSIDE)


def test_imports_point_down_in_the_order_of_contributing() -> None:
    order = {room: place for place, room in enumerate(rooms())}
    up = [
        f"{path.relative_to(ROOT)}:{found.line} imports {found.name}"
        for path in MODULES.values()
        if path.name not in OUTSIDE or path.parent != PACKAGE
        for found in imports_of(path)
        if found.name.split(".")[0] == "harness_ext"
        and (found.name not in MODULES or order.get(room_of(MODULES[found.name]), -1) < order[room_of(path)])
    ]
    assert up == []


def test_no_module_imports_itself_in_a_circle() -> None:
    """Neither for types nor within functions."""
    graph = {
        name: {found.name for found in imports_of(path) if found.name in MODULES} - {name}
        for name, path in MODULES.items()
        if name != "harness_ext"  # the public names
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_no_public_name_is_that_of_a_module() -> None:
    """The import of the module would put it in the place of what the name stands for."""
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert modules & set(harness_ext.__all__) == set()


def test_lm_eval_is_imported_where_it_is_needed() -> None:
    wrong = []
    for path in [*MODULES.values(), *BUILT_IN]:
        place = str(path.relative_to(PACKAGE)) if path.is_relative_to(PACKAGE) else "plugins of ours"
        for found in imports_of(path):
            if found.name.split(".")[0] == "lm_eval" and (
                place == "plugins of ours"
                or place.split("/")[0] in WITHOUT_LM_EVAL
                or not (found.in_function or place.startswith(WITH_LM_EVAL))
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{found.line}")
    assert wrong == []


def test_no_file_is_longer_than_400_lines() -> None:
    files = [path for top in (PACKAGE, PLUGINS, ROOT / "tests", ROOT / "scripts") for path in top.rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_a_built_in_plugin_uses_public_names_alone() -> None:
    private = []
    for path in BUILT_IN:
        own = path.relative_to(PLUGINS).parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0].startswith("harness_ext"):
                names = {alias.name for alias in node.names}
                public = node.module == "harness_ext" and names <= set(harness_ext.__all__)
                wrong = not public and str(node.module).split(".")[0] != own
            elif isinstance(node, ast.Import):
                wrong = any(alias.name.startswith("harness_ext.") for alias in node.names)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "harness_ext":
                wrong = node.attr not in {*harness_ext.__all__, "__file__"}
            else:
                continue
            if wrong:
                private.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    assert private == []


def test_a_unit_test_that_imports_lm_eval_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lm_eval", raising=False)
    with pytest.raises(ImportError, match="tests/unit"):
        importlib.import_module("lm_eval")
