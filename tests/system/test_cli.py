"""The command ``harness-ext``."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import pytest
from plugin_sources import InstallPlugin, pruner_source
from typer.testing import CliRunner

from harness_ext.commands.cli import app
from harness_ext.plugins import Plugins

OWN = {"distribution": "lm-eval-pruned", "version": metadata.version("lm-eval-pruned")}
ALLOCATION = """
from harness_ext import Allocation

class Halves(Allocation):
    name = "halves"
    def spread(self, sparsity, layers, measured):
        return {layer.name: sparsity for layer in layers}

@hookimpl
def register_allocations(register):
    register(Halves)
"""


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_json_list_has_every_plugin_and_all_that_it_registers() -> None:
    listed = json.loads(run("plugins", "--json"))
    assert listed["not loaded"] == []
    found, plugins = Plugins(), listed["plugins"]
    assert {plugin["distribution"] for plugin in plugins} == {origin.distribution for origin in found.origins.values()}
    for kind in ("pruners", "calibrations", "allocations", "models"):
        registry = getattr(found, kind)
        assert sorted(name for plugin in plugins for name in plugin[kind]) == sorted(set(registry.items) - set(registry.not_installed()))
    absent = {name for plugin in plugins for name in plugin["not installed"]}
    assert absent == set(found.pruners.not_installed())
    assert [folder for plugin in plugins for folder in plugin["tasks"]] == [str(folder) for folder, _ in found.task_folders]
    (pruners,) = (plugin for plugin in plugins if plugin["plugin"] == "pruners")
    assert pruners.items() >= OWN.items()
    assert {"random", "magnitude", "wanda", "ria", "sparsegpt"} <= set(pruners["pruners"])


def test_a_plugin_is_listed_with_its_version_and_names(install_plugin: InstallPlugin) -> None:
    install_plugin("my-plugin", pruner_source("mine") + ALLOCATION, version="4.5")
    listed = json.loads(run("plugins", "--json"))["plugins"][-1]
    assert (listed["distribution"], listed["version"], listed["pruners"]) == ("my-plugin", "4.5", ["mine"])
    assert listed["allocations"] == ["halves"]
    table = run("plugins")
    assert "pruners: mine" in table
    assert "allocations: halves" in table


def test_what_failed_to_load_is_listed_with_its_version_and_the_reason(install_plugin: InstallPlugin) -> None:
    install_plugin("failing", "import no_such_module", version="0.2")
    (row,) = (line for line in run("plugins").splitlines() if "failing 0.2" in line)
    assert "No module named 'no_such_module'" in row
    (listed,) = json.loads(run("plugins", "--json"))["not loaded"]
    assert (listed["plugin"], listed["distribution"], listed["version"]) == ("failing-entry", "failing", "0.2")
    assert "no_such_module" in listed["reason"]


def test_nothing_is_said_of_failures_where_there_are_none() -> None:
    assert "Not loaded" not in run("plugins")


def test_text_in_square_brackets_is_shown_as_it_is(install_plugin: InstallPlugin) -> None:
    install_plugin("failing", "raise ValueError('want [red] or [/red]')")
    assert "want [red] or [/red]" in run("plugins")


def test_models_are_listed_with_their_folders() -> None:
    lines = [line.split("\t") for line in run("models").splitlines()]
    assert lines[0] == ["model", "folder", "plugin", "note"]
    rows = {name: (folder, note) for name, folder, _, note in lines}
    for name in ("lab-xs", "lab-s", "lab-m"):
        assert rows[name] == (str(Plugins().models.get(name)[0]), "")


def test_a_model_that_is_not_here_has_a_note_in_its_row(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    lines = [line.split("\t") for line in run("models").splitlines()]
    assert {len(line) for line in lines} == {4}
    assert {name for name, _, _, note in lines if note.startswith("not here yet")} == {"smollm2-135m"}


@pytest.mark.parametrize("command", ["plugins", "models", "known-facts", "prune"])
def test_each_command_explains_itself(command: str) -> None:
    assert "Usage:" in run(command, "--help")
    assert command in run("--help")


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["compare"], "'A'"), (["compare", "a"], "'B'"), (["pruners", "nope"], "nope"), (["perplexity"], "--text"),
        (["sweep", "--taks", "x"], "--tasks"), (["prune", "--sparsity", "0.5"], "--out"), (["nope"], "nope"), (["--nope"], "--nope"),
        (["cache", "a", "b"], "a b"), (["sweep", "--cpus-per-trial", "many"], "--cpus-per-trial"),
        (["sweep", "--gpus-per-trial", "-1"], "--gpus-per-trial"), (["sweep", "--sparsity"], "harness-ext sweep --help"),
        (["swep"], "'sweep'? See"),
    ],
)  # fmt: skip
def test_a_mistake_of_the_command_line_is_one_line(words, key):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert key in result.stderr
    assert "--help" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_no_command_is_answered_with_help():
    result = CliRunner().invoke(app, [])
    assert "Usage:" in result.output
    assert "perplexity" in result.output


PRINTING = ("plugins", "models", "--help", "pruners")
PRINTED = """
import gc, json, os, sys
from harness_ext.commands.cli import app
from harness_ext.plugins import Plugins

Plugins()
gc.freeze()  # so that the end of each child does not visit, and so copy, all that was imported
outputs = {"full": os.open("/dev/full", os.O_WRONLY), "closed": os.pipe()[1]}  # the only reader of the pipe is closed by the loop below
os.closerange(outputs["closed"] - 1, outputs["closed"])
codes = []
for number, (word, output) in enumerate(json.loads(sys.argv[1])):
    child = os.fork()  # a process that has imported all, and ends as any other does
    if not child:
        os.dup2(outputs[output], 1)
        os.dup2(os.open(f"{number}.txt", os.O_WRONLY | os.O_CREAT), 2)
        sys.argv = ["harness-ext", word]
        sys.exit(app())
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Exit codes and error messages of commands, by the command and by what becomes of their output."""
    folder, asked = tmp_path_factory.mktemp("printed"), [*((word, "full") for word in PRINTING), ("models", "closed")]
    done = subprocess.run([sys.executable, "-c", PRINTED, json.dumps(asked)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {
        key: (code, (folder / f"{number}.txt").read_text())
        for number, (key, code) in enumerate(zip(asked, json.loads(done.stdout), strict=True))
    }


@pytest.mark.parametrize("word", PRINTING)
def test_an_output_that_cannot_be_written_is_one_line(printed, word):
    code, said = printed[word, "full"]
    assert code == 1
    assert "No space left" in said
    assert len(said.splitlines()) == 1


def test_a_reader_that_ends_early_is_no_mistake(printed):
    assert printed["models", "closed"] == (1, "")
