"""The pruners of SparseML where SparseML is not: what they say, and when. What they do is in ``tests/with_sparseml``."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness_ext_sparseml import isolation
from harness_ext_sparseml.magnitude import SparseMLMagnitude
from harness_ext_sparseml.recipe import SparseMLRecipe
from packaging.requirements import Requirement
from typer.testing import CliRunner

from harness_ext import BadOptionError, PluginError
from harness_ext.commands.cli import app
from harness_ext.engine.plan import make_plan
from harness_ext.plugins import Plugins

NAMES = ("sparseml", "sparseml-magnitude", "sparseml-obs", "sparseml-sparsegpt", "sparseml-wanda")
RECIPE = """
modifiers:
  - !MagnitudePruningModifier
      final_sparsity: 0.5
"""


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the right one were, on a Python that it runs on: what is checked before it is used."""
    monkeypatch.setattr(isolation, "sys", SimpleNamespace(version_info=(3, 11)))
    monkeypatch.setattr(isolation, "version", lambda: "1.8.0")


def written(folder: Path, text: str) -> str:
    file = folder / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_all_are_registered_by_a_plugin_of_their_own() -> None:
    registered = Plugins().pruners.items
    assert {name for name, (_, origin) in registered.items() if origin.module == "harness_ext_sparseml"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_where_sparseml_is_missing_the_plan_says_how_to_install_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "version", lambda: "")
    options = {"recipe": written(tmp_path, RECIPE)} if name == "sparseml" else {}
    with pytest.raises(PluginError, match=rf"pruner '{name}' needs SparseML .*pip install 'lm-eval-pruned\[sparseml\]'"):
        make_plan(Plugins(), pruner=name, sparsity=0.5, pruner_options=options)


def test_the_command_says_it_before_it_loads_a_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "version", lambda: "")
    (tmp_path / "model").mkdir()  # no model at all
    arguments = ["--pretrained", str(tmp_path / "model"), "--pruner", "sparseml-wanda", "--sparsity", "0.5", "--out", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, ["prune", *arguments])
    assert ran.exit_code == 1
    assert ran.stderr.startswith("PluginError: pruner 'sparseml-wanda' needs SparseML 1.8, which is not installed: pip install")
    assert ran.stderr.count("\n") == 1


def test_another_version_of_sparseml_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "version", lambda: "1.9.0")
    with pytest.raises(PluginError, match=r"needs SparseML 1\.8, and 1\.9\.0 is installed: pip install"):
        SparseMLMagnitude()


def test_python_3_12_and_later_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "sys", SimpleNamespace(version_info=(3, 13)))
    with pytest.raises(PluginError, match=r"SparseML 1\.8 needs Python below 3\.12, and this is Python 3\.1[2-9]"):
        make_plan(Plugins(), pruner="sparseml-wanda", sparsity=0.5)


def test_the_extra_asks_for_nothing_on_python_3_12_and_later() -> None:
    wanted = [Requirement(text) for text in metadata.requires("lm-eval-pruned") or [] if "extra == 'sparseml'" in text.replace('"', "'")]
    assert "sparseml" in {requirement.name for requirement in wanted}
    for requirement in wanted:
        assert requirement.marker.evaluate({"extra": "sparseml", "python_version": "3.11"})
        assert not requirement.marker.evaluate({"extra": "sparseml", "python_version": "3.12"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "pruner=sparseml wants pruner.recipe=FILE"),
        ("", "want a YAML file with stages or modifiers"),
        ("just text", "want a YAML file with stages or modifiers"),
        ("a: [", "recipe.yaml.*expected"),
    ],
)
def test_a_recipe_that_is_none_is_refused_before_a_model_is_there(text: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadOptionError, match=message):
        SparseMLRecipe(recipe="" if text is None else written(tmp_path, text))
    with pytest.raises(BadOptionError, match="No such file"):
        SparseMLRecipe(recipe=str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("pruner", "option", "value"),
    [
        ("sparseml-sparsegpt", "block_size", 0),
        ("sparseml-sparsegpt", "damping", 0.0),
        ("sparseml-obs", "damping", -1.0),
        ("sparseml-obs", "fisher_block_size", 0),
        ("sparseml-magnitude", "scope", "row"),
        ("sparseml-magnitude", "mask", "block5"),
    ],
)
def test_a_wrong_option_is_named(pruner: str, option: str, value: object) -> None:
    with pytest.raises(BadOptionError, match=rf"pruner\.{option}={value!r}"):
        make_plan(Plugins(), pruner=pruner, sparsity=0.5, pruner_options={option: value})
