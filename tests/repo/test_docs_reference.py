"""The reference pages say what the code does: commands, options with their defaults, and the chance levels of tasks."""

from __future__ import annotations

import importlib.util
import inspect
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from environment import ROOT
from pages import known_tasks

from harness_ext import prune
from harness_ext.engine.plan import ARGUMENTS
from harness_ext.plugins import Plugins

ARGUMENTS_PAGE = (ROOT / "docs" / "model-args.md").read_text(encoding="utf-8")
TASKS_PAGE = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of the table rows."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_the_page_of_commands_is_what_its_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("write_cli_reference", ROOT / "scripts" / "write_cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text(encoding="utf-8") == script.text(), "python scripts/write_cli_reference.py"


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_every_argument_is_on_its_page_with_its_default(argument: str) -> None:
    shown = next(row[2] for row in rows(ARGUMENTS_PAGE) if row[0] == f"`{argument}`")
    default = inspect.signature(prune).parameters[argument].default
    default = 0 if default is inspect.Parameter.empty else default
    assert shown.split(",")[0] == ("none" if default is None else f"`{default}`")


@pytest.mark.parametrize("kind", ["pruners", "quantizers", "allocations", "calibrations"])
def test_every_option_of_a_built_in_is_on_the_page_with_its_default(kind: str) -> None:
    singular, registry = ("pruner", "pruners") if kind == "quantizers" else (kind[:-1], kind)
    found: dict[str, dict[str, str]] = {}
    names: list[str] = []
    heading = "| quantizer |" if kind == "quantizers" else f"| `{singular}=` |"
    section = ARGUMENTS_PAGE[ARGUMENTS_PAGE.index(heading) :].split("\n\n", 1)[0]
    for first, option, default, *_ in rows(section)[2:]:
        names = re.findall(r"`([\w-]+)`", first) or ([first] if first else names)
        for name in names:
            found.setdefault(name, {})
            if option != "none":
                found[name][option.strip("`")] = default.strip("`")
    shared = found.pop("all", {})
    ours = {name: plugin for name, (plugin, origin) in getattr(Plugins(), registry).items.items() if origin.entry_point == kind}
    assert found.keys() == ours.keys()
    for name, plugin in ours.items():
        assert found[name] | shared == {f"{singular}.{option}": shown(value) for option, value in defaults(plugin).items()}, name


def defaults(plugin: type[Any]) -> dict[str, Any]:
    """The options of a class, its own and those that it inherits."""
    hints = [inspect.get_annotations(kind) for kind in plugin.__mro__]
    names = [name for of_kind in hints for name, hint in of_kind.items() if not str(hint).startswith("ClassVar")]
    return {name: getattr(plugin, name) for name in names}


def shown(value: Any) -> str:
    return "none" if value in (None, "") and not isinstance(value, (bool, int)) else str(value)


def test_the_page_of_tasks_has_every_task_and_group_once_with_the_chance_that_it_declares() -> None:
    tasks, groups = (TASKS_PAGE[TASKS_PAGE.index(head) :].split("\n\n", 1)[0] for head in ("| task |", "| group |"))
    files = sorted((ROOT / "task_configs").rglob("[!_]*.yaml"))
    told = {path.stem: declared(path) for path in files if not path.read_text(encoding="utf-8").startswith("group:")}
    chance = {name: row[3] for row in rows(tasks)[2:] for name in re.findall(r"`(\w+)`", row[0])}
    assert chance.keys() == told.keys()
    assert {name: None if " or " in value else float(Fraction(value)) for name, value in chance.items()} == told
    assert {name for row in rows(groups)[2:] for name in re.findall(r"`(\w+)`", row[0])} == {path.stem for path in files} - told.keys()
    assert chance.keys() <= known_tasks()


def declared(path: Path) -> float | None:
    """The chance in a task's metadata; without metadata of its own, in that of the file it includes."""
    content = yaml.safe_load(re.sub(r"!function \S+", "function", path.read_text(encoding="utf-8")))
    if "metadata" not in content:
        return declared(path.parent / content["include"])
    chance = content["metadata"].get("chance")
    return None if chance is None else float(chance)
