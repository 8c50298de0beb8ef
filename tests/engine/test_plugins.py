"""Finding plugins, telling what is wrong with them, and the rules that hooks and built-in plugins keep."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
import tiny
import torch
from environment import ROOT, THIRD_PARTY
from plugin_sources import InstallPlugin, pruner_source
from refusals import raises_line

import harness_ext
from harness_ext import BadOptionError, Pruner, Sparsity, hookspecs
from harness_ext.engine.plan import make_plan
from harness_ext.errors import UnknownNameError
from harness_ext.hookspecs import NAME
from harness_ext.method.pruner import BASES
from harness_ext.plugins import Plugins

OWN = f"lm-eval-pruned {metadata.version('lm-eval-pruned')}"


def hook(body: str, name: str = "register_pruners", arguments: str = "register") -> str:
    """The source of a plugin with one hook."""
    return (
        f"from harness_ext import Allocation, Calibration, Pruner, Sparsity, hookimpl\n\n@hookimpl\ndef {name}({arguments}):\n    {body}\n"
    )


def reasons(plugins: Plugins) -> list[str]:
    return [str(broken) for broken in plugins.broken]


def test_the_built_in_plugins_load_first_and_the_others_by_the_name_of_their_distribution(install_plugin: InstallPlugin) -> None:
    for name in ("zebra", "aardvark", "Mole"):
        install_plugin(name, pruner_source(f"of-{name}"))
    plugins = Plugins()
    found = [origin.distribution for origin in plugins.origins.values()]
    assert found == ["lm-eval-pruned"] * (len(found) - 3) + ["Mole", "aardvark", "zebra"]
    assert plugins.broken == []


def test_a_distribution_that_is_on_the_path_twice_is_taken_once_as_python_imports_it(
    install_plugin: InstallPlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin("first-plugin", pruner_source("one"), version="2.0")
    older = tmp_path / "older" / "first_plugin-1.0.dist-info"
    older.mkdir(parents=True)
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: First_Plugin\nVersion: 1.0\n", encoding="utf-8")
    (older / "entry_points.txt").write_text("[harness_ext]\ngone-since = no_such_module\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(older.parent)])
    plugins = Plugins()
    assert plugins.pruners.get("one")[1].version == "2.0"
    assert plugins.broken == []


def test_a_failing_import_is_reported_with_distribution_version_and_reason(install_plugin: InstallPlugin) -> None:
    install_plugin("failing", "from harness_ext import Statistik", version="0.2")
    (reason,) = reasons(Plugins())
    assert re.match(r"failing 0\.2 \(failing-entry\): (Attribute|Import)Error: ", reason)
    assert "Statistik" in reason


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(:", "SyntaxError: "),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise ValueError('one\\n\\n  two')", "ValueError: one two"),
        ("", "wrong implements no hook. Is @harness_ext.hookimpl missing?"),
        ("def register_pruners(register): pass", "wrong implements no hook. Is @harness_ext.hookimpl missing?"),
        (
            hook("pass", name="register_pruner"),
            "'register_pruner' is not a hook. Did you mean 'register_pruners'? Hooks: register_allocations, ",
        ),
        (hook("pass", name="wholly_different"), "'wholly_different' is not a hook. Hooks: register_allocations, register_calibrations, "),
        (hook("pass", arguments="registrar"), "PluginValidationError: "),
        (
            hook("register(int)"),
            f"register() wants a subclass of {BASES}, not <class 'int'>",
        ),
        (
            hook("register('wanda')"),
            f"register() wants a subclass of {BASES}, not 'wanda'",
        ),
        (
            hook("register(Calibration)"),
            f"register() wants a subclass of {BASES}, not <class 'harness_ext.method.calibration.Calibration'>",
        ),
        (pruner_source("x").replace("    name", "    title"), "First has no name: set the class attribute name = '...'"),
        (pruner_source(""), "First has no name: set the class attribute name = '...'"),
        (pruner_source("x").replace("def score", "def scores"), "First overrides none of score, prune and prune_together"),
        (
            hook("register(type('Empty', (Calibration,), {'name': 'empty'}))", name="register_calibrations"),
            "Empty overrides neither texts nor input_ids",
        ),
        (
            hook("register(type('Empty', (Allocation,), {'name': 'empty'}))", name="register_allocations"),
            "Empty does not override spread",
        ),
        (hook("register('no-such-folder')", name="register_tasks"), "register_tasks: no-such-folder is not a folder"),
        (hook("1 / 0"), "ZeroDivisionError: division by zero"),
        (hook("register()"), "TypeError: "),
    ],
)
def test_a_plugin_that_breaks_the_contract_is_reported(install_plugin: InstallPlugin, source: str, reason: str) -> None:
    install_plugin("wrong", source, version="0.9")
    (reported,) = reasons(Plugins())
    head, text = reported.split("): ", 1)
    assert head == "wrong 0.9 (wrong-entry"
    assert text.startswith(reason)
    assert "\n" not in reported


def test_a_name_that_is_taken_names_both_owners_and_stays_with_the_first(install_plugin: InstallPlugin) -> None:
    install_plugin("another-wanda", pruner_source("wanda"), version="0.5")
    install_plugin("second", pruner_source("new"), version="1.1")
    install_plugin("third", pruner_source("new"), version="1.2")
    plugins = Plugins()
    assert reasons(plugins) == [
        f"another-wanda 0.5 (another-wanda-entry): the pruner name 'wanda' is already taken by {OWN} (pruners)",
        "third 1.2 (third-entry): the pruner name 'new' is already taken by second 1.1 (second-entry)",
    ]
    assert plugins.pruners.get("wanda")[1].distribution == "lm-eval-pruned"
    assert plugins.pruners.get("new")[1].distribution == "second"


def test_what_a_plugin_registered_before_it_failed_can_be_used(install_plugin: InstallPlugin) -> None:
    install_plugin("half", pruner_source("good") + "    register(int)\n")
    plugins = Plugins()
    assert plugins.pruners.get("good")[1].distribution == "half"
    assert len(plugins.broken) == 1


def test_a_hook_that_fails_does_not_keep_the_plugins_other_hooks_from_being_called(install_plugin: InstallPlugin, tmp_path: Path) -> None:
    tasks = hook(f"register({str(tmp_path)!r})", name="register_tasks")
    install_plugin("half", hook("1 / 0") + tasks)
    plugins = Plugins()
    assert tmp_path in [folder for folder, _ in plugins.task_folders]
    assert reasons(plugins) == ["half 1.0 (half-entry): ZeroDivisionError: division by zero"]


def test_an_unknown_name_lists_the_nearest_all_others_and_what_failed_to_load(install_plugin: InstallPlugin) -> None:
    install_plugin("failing", "import no_such_module", version="0.2")
    install_plugin("good", pruner_source("first-columns"))
    with pytest.raises(UnknownNameError) as raised:
        Plugins().pruners.get("first-colums")
    message = str(raised.value)
    assert message.startswith("no pruner named 'first-colums'. Did you mean 'first-columns'? Available: ")
    available = message.split("Available: ")[1].split(". Not ", maxsplit=1)[0].split(", ")
    absent = Plugins().pruners.not_installed()
    assert available == sorted(set(Plugins().pruners.items) - set(absent))
    assert all(name in message.split("Not installed: ")[1].split("Not loaded", maxsplit=1)[0] for name in absent)
    assert "first-columns" in available
    assert message.endswith(". Not loaded: failing 0.2 (failing-entry): ModuleNotFoundError: No module named 'no_such_module'")
    assert "\n" not in message


def test_an_unknown_name_says_nothing_of_failures_where_there_are_none() -> None:
    with pytest.raises(UnknownNameError) as raised:
        Plugins().pruners.get("xyzzy")
    assert "Did you mean" not in str(raised.value)
    assert "Not loaded" not in str(raised.value)


@pytest.mark.parametrize("source", ["import no_such_module", "raise SystemExit", "", hook("1 / 0"), pruner_source("wanda")])
def test_a_broken_plugin_does_not_stop_a_run_that_does_not_ask_for_it(install_plugin: InstallPlugin, source: str) -> None:
    install_plugin("failing", source)
    record = harness_ext.prune(tiny.model(layers=1), pruner="magnitude", sparsity=0.5)
    assert record["achieved_sparsity"] == pytest.approx(0.5, abs=0.01)


def test_nothing_is_kept_between_two_looks(install_plugin: InstallPlugin) -> None:
    assert "late" not in Plugins().pruners.items
    install_plugin("late-plugin", pruner_source("late"))
    assert "late" in Plugins().pruners.items


def test_hook_register_pruners(install_plugin: InstallPlugin) -> None:
    install_plugin("first-plugin", pruner_source("one"), version="3.1")
    plan = make_plan(Plugins(), pruner="one", sparsity=0.5)
    assert isinstance(plan.pruner, Pruner)
    assert str(plan.pruner_origin) == "first-plugin 3.1"


def test_hook_register_calibrations(install_plugin: InstallPlugin) -> None:
    source = hook("register(Counting)", name="register_calibrations").replace(
        "@hookimpl",
        "import torch\n\nclass Counting(Calibration):\n    name = 'counting'\n    step: int = 1\n"
        "    def input_ids(self, model, tokenizer):\n        return torch.arange(1, 9).view(2, 4) * self.step\n\n@hookimpl",
    )
    install_plugin("counting-plugin", source)
    record = harness_ext.prune(tiny.model(layers=1), pruner="wanda", sparsity=0.5, calibration="counting", calibration_options={"step": 2})
    same = harness_ext.prune(tiny.model(layers=1), pruner="wanda", sparsity=0.5, calibration=torch.arange(2, 18, 2).view(2, 4))
    assert record["calibration"]["digest"] == same["calibration"]["digest"]


def test_hook_register_models(install_plugin: InstallPlugin) -> None:
    install_plugin("zoo", hook("register('tiny', '/models/tiny')", name="register_models", arguments="register"))
    plugins = Plugins()
    path, origin = plugins.models.get("tiny")
    assert (path, origin.distribution) == (Path("/models/tiny"), "zoo")
    with raises_line(UnknownNameError, "'tinny'", "Did you mean 'tiny'"):
        plugins.models.get("tinny")


def test_hook_register_tasks(install_plugin: InstallPlugin, tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    install_plugin("questions", hook(f"register({str(folder)!r})", name="register_tasks"))
    folders = [path for path, _ in Plugins().task_folders]
    assert folders[-1] == folder
    assert len(folders) > 1


def test_hook_register_allocations(install_plugin: InstallPlugin) -> None:
    source = (
        "class Falling(Allocation):\n    name = 'falling'\n    step: float = 0.25\n"
        "    def spread(self, sparsity, layers, measured):\n"
        "        return {layer.name: sparsity.ratio + self.step * (1 - 2 * layer.block) for layer in layers}\n"
    )
    install_plugin("falling", "from harness_ext import Allocation\n" + source + hook("register(Falling)", name="register_allocations"))
    built = tiny.model("gpt2", layers=2)
    options = {"pruner": "magnitude", "sparsity": 0.5, "modules": "*.c_fc", "allocation": "falling"}
    record = harness_ext.prune(built, **options)
    assert [layer["asked"] for layer in record["layers"].values()] == ["0.75", "0.25"]
    zeros = [int((block.mlp.c_fc.weight == 0).sum()) for block in built.transformer.h]
    size = built.transformer.h[0].mlp.c_fc.weight.numel()
    assert zeros == [size * 3 // 4, size // 4]
    with raises_line(BadOptionError, "'falling'", "'stop'", "Did you mean 'step'"):
        harness_ext.prune(built, **options, allocation_options={"stop": 0.1})


# House rules.

HOOKS = [name for name, value in vars(hookspecs).items() if hasattr(value, f"{NAME}_spec")]


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_typed_and_tested(name: str) -> None:
    spec = getattr(hookspecs, name)
    parameters = inspect.signature(spec).parameters
    documented = re.findall(r":param (\w+):", inspect.getdoc(spec) or "")
    assert documented == list(parameters)
    assert set(spec.__annotations__) == {*parameters, "return"}
    assert f"test_hook_{name}" in globals()


def test_the_hooks_are_what_is_tested_here() -> None:
    assert {"register_pruners", "register_calibrations", "register_models", "register_tasks", "register_allocations"} <= set(HOOKS)


def test_the_public_names_are_there_and_are_those_that_type_checkers_see() -> None:
    tree = ast.parse((ROOT / "harness_ext" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {(alias.asname, node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert [name for name, _ in sorted(seen)] == harness_ext.__all__
    for name, module in seen:
        assert getattr(harness_ext, name) is getattr(sys.modules[module], name)
        assert name in dir(harness_ext)
    with pytest.raises(AttributeError, match="no attribute 'Statistik'"):
        getattr(harness_ext, "Statistik")  # noqa: B009


def test_the_third_party_package_is_the_example_of_the_readme() -> None:
    module = THIRD_PARTY / "harness-ext-first-columns" / "harness_ext_first_columns.py"
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert module.read_text(encoding="utf-8") in blocks


def test_an_option_of_a_plugin_is_checked_like_ours(install_plugin: InstallPlugin) -> None:
    install_plugin("with-options", pruner_source("one").replace('    name = "one"', '    name = "one"\n    seed: int = 0'))
    plugins = Plugins()
    assert make_plan(plugins, pruner="one", pruner_options={"seed": 3}).pruner.options() == {"seed": 3}
    with raises_line(BadOptionError, "'one'", "'sead'", "Did you mean 'seed'"):
        make_plan(plugins, pruner="one", pruner_options={"sead": 3})


def test_a_pattern_reaches_a_pruner_of_a_plugin(install_plugin: InstallPlugin) -> None:
    install_plugin("first-plugin", pruner_source("one"))
    built = tiny.model(layers=1)
    harness_ext.prune(built, pruner="one", sparsity=Sparsity.parse("2:4"))
    groups = built.model.layers[0].mlp.up_proj.weight.detach().reshape(-1, 4)
    # The scores are the weights themselves, so that the two smallest of four are gone.
    dense = tiny.model(layers=1).model.layers[0].mlp.up_proj.weight.detach().reshape(-1, 4)
    assert torch.equal(groups == 0, dense < dense.sort(dim=1).values[:, 2:3])
