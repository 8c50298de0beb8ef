"""What is listed of pruners, allocations and calibration sources, and which of them an error offers."""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from typing import Any

import pytest
from plugin_sources import InstallPlugin
from refusals import raises_line
from typer.main import get_command
from typer.testing import CliRunner

import harness_ext
from harness_ext import UnknownNameError
from harness_ext.commands.cli import app
from harness_ext.commands.examples import EXAMPLES
from harness_ext.plugins import Plugins, how_to_install

PLUGIN = '''
"""Methods of a paper: Someone, arXiv:2401.00001."""
from harness_ext import Allocation, Pruner, hookimpl

class Linked(Pruner):
    """Ranks by nothing. It has a second sentence."""
    name = "linked"
    paper = "https://example.org/paper.pdf"
    depth: int = 3
    title: str = ""
    def score(self, weight, statistic):
        return weight

class Cited(Linked):
    """Ranks as in arXiv 2402.00002v1 and openreview.net/forum?id=abc."""
    name = "cited"
    paper = ""

class FromModule(Cited):
    name = "from-module"

class Absent(Linked):
    name = "absent-wanda"
    requires = ("no-such-distribution",)

@hookimpl
def register_pruners(register):
    for pruner in (Linked, Cited, FromModule, Absent):
        register(pruner)
'''


def run(*words: str) -> str:
    result = CliRunner().invoke(app, words, env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    return result.stdout


def listed(kind: str) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in json.loads(run(kind, "--json"))}


@pytest.mark.parametrize("kind", ["pruners", "allocations", "calibrations"])
def test_every_method_has_one_line_with_its_options(kind: str) -> None:
    registry = getattr(Plugins(), kind)
    entries, lines = listed(kind), run(kind).splitlines()
    assert set(entries) == set(registry.items)
    for name, (cls, origin) in registry.items.items():
        entry = entries[name]
        assert list(entry["options"]) == list(cls.defaults())
        assert entry["distribution"] == origin.distribution
        assert entry["summary"]
        (line,) = (line for line in lines if line.startswith(f"│ {name} "))
        assert all(f"{option}=" in line for option in cls.defaults())
        assert entry["summary"] in line


def test_methods_that_read_text_say_so() -> None:
    found = {name: entry["needs_calibration"] for name, entry in listed("pruners").items()}
    assert {name for name in ("wanda", "sparsegpt", "dsnot", "alps", "depth", "width", "ria", "admm") if found[name] != "yes"} == set()
    assert {name for name in ("magnitude", "random", "stored", "torch") if found[name] != "no"} == set()
    spread = {name: entry["needs_calibration"] for name, entry in listed("allocations").items()}
    assert spread == {"uniform": "no", "list": "no", "owl": "yes", "global": "depends on options"}


def test_papers_are_linked() -> None:
    found = {name: entry["papers"] for name, entry in listed("pruners").items()}
    assert found["wanda"] == ["https://arxiv.org/abs/2306.11695"]
    assert found["ria"] == ["https://openreview.net/forum?id=Tr0lPx9woF"]
    assert len(found["depth"]) == 2
    assert found["magnitude"] == []


def test_a_plugin_gives_its_paper_by_an_attribute_or_a_docstring(install_plugin: InstallPlugin) -> None:
    install_plugin("papers", PLUGIN)
    found = listed("pruners")
    assert found["linked"]["papers"] == ["https://example.org/paper.pdf"]
    assert found["linked"]["summary"] == "Ranks by nothing"
    assert found["linked"]["options"] == {"depth": 3, "title": ""}
    assert found["cited"]["papers"] == ["https://arxiv.org/abs/2402.00002", "https://openreview.net/forum?id=abc"]
    assert found["from-module"]["papers"] == ["https://arxiv.org/abs/2401.00001"]


def test_what_is_not_installed_is_not_offered_and_its_command_is_named(install_plugin: InstallPlugin) -> None:
    install_plugin("papers", PLUGIN)
    entry = listed("pruners")["absent-wanda"]
    assert (entry["installed"], entry["install"]) == (False, "pip install no-such-distribution")
    (plugin,) = (plugin for plugin in json.loads(run("plugins", "--json"))["plugins"] if plugin["distribution"] == "papers")
    assert plugin["pruners"] == ["linked", "cited", "from-module"]
    assert plugin["not installed"] == {"absent-wanda": "pip install no-such-distribution"}
    with raises_line(UnknownNameError, "Did you mean 'wanda'?", "absent-wanda (pip install no-such-distribution)") as caught:
        Plugins().pruners.get("wandas")
    offered = str(caught.value).partition("Available:")[2].partition(". Not installed")[0]
    assert "absent-wanda" not in offered
    assert "linked" in offered


@pytest.mark.parametrize("extra", ["sparseml", "llmcompressor"])
def test_an_extra_is_named_by_its_distribution(extra: str) -> None:
    assert how_to_install("lm-eval-pruned", [extra]) == f"pip install 'lm-eval-pruned[{extra}]'"


def test_the_version_is_that_of_the_distribution() -> None:
    assert run("--version").split() == ["lm-eval-pruned", metadata.version("lm-eval-pruned")]
    assert harness_ext.__version__ in run("--version")


def test_every_command_has_examples_that_parse() -> None:
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    assert set(EXAMPLES) == set(commands)
    for name, examples in EXAMPLES.items():
        shown = " ".join(run(name, "--help").split())
        for example in examples:
            assert example in shown
            program, command, *words = shlex.split(example)
            assert (program, command) == ("harness-ext", name)
            commands[name].make_context(name, words, resilient_parsing=False).close()
