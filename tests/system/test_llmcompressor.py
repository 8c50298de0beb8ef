"""The pruner ``llmcompressor`` where llm-compressor is not: what it says, and when. What it does is in ``tests/with_llmcompressor``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from harness_ext_llmcompressor import isolation
from harness_ext_llmcompressor.pruner import LLMCompressor
from typer.testing import CliRunner

from harness_ext import BadOptionError, PluginError, find_blocks
from harness_ext.commands.cli import app
from harness_ext.engine.plan import make_plan
from harness_ext.plugins import Plugins


@pytest.fixture
def _absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "version", lambda: "")


@pytest.mark.usefixtures("_absent")
def test_a_missing_library_is_one_line_that_says_how_to_install_it() -> None:
    with pytest.raises(PluginError) as caught:
        make_plan(Plugins(), pruner="llmcompressor", sparsity=0.5, pruner_options={"modifier": "wanda"})
    assert str(caught.value).endswith("it is not installed: pip install 'lm-eval-pruned[llmcompressor]'")


def test_another_version_of_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "version", lambda: "0.9.1")
    with pytest.raises(PluginError, match=r"needs llm-compressor 0\.14, and 0\.9\.1 is installed: pip install"):
        LLMCompressor(modifier="wanda")


def test_a_library_that_does_not_import_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "version", lambda: "0.14.9")
    monkeypatch.setitem(sys.modules, "llmcompressor", None)  # what makes an import fail
    with pytest.raises(PluginError, match=r"llm-compressor 0\.14\.9 cannot be imported \(ModuleNotFoundError: .*own$"):
        LLMCompressor(modifier="wanda")


@pytest.mark.usefixtures("_absent")
def test_the_command_says_it_before_it_loads_a_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the model here, there are no weights."""
    monkeypatch.setitem(sys.modules, "llmcompressor", None)
    folder = Path(tiny.checkpoint(tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    arguments = ["prune", "--pretrained", str(folder), "--pruner", "llmcompressor", "-o", "pruner.modifier=wanda", "--sparsity", "0.5"]
    ran = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert ran.exit_code == 1
    (line,) = ran.stderr.splitlines()
    assert "pip install 'lm-eval-pruned[llmcompressor]'" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("_absent")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "wants pruner.modifier=NAME, such as sparsegpt, or pruner.recipe=FILE"),
        ({"modifier": "wanda", "recipe": "r.yaml"}, "and not both"),
        ({"modifier": "sparsegpt", "block_size": 0}, "pruner.block_size=0: want at least one column"),
        ({"modifier": "sparsegpt", "dampening_frac": 0.0}, "pruner.dampening_frac=0.0: want a fraction"),
        ({"modifier": "sparsegpt", "dampening_frac": "much"}, "pruner.dampening_frac='much'"),
        ({"modifier": "sparsegpt", "damping": 0.1}, "Did you mean 'dampening_frac'"),
        ({"recipe": "no_such_file.yaml"}, "pruner.recipe='no_such_file.yaml': there is no such file"),
        ({"recipe": "r.yaml", "block_size": 64}, "pruner.block_size=64: goes with pruner.modifier"),
    ],
)
def test_options_are_checked_without_the_library(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadOptionError) as caught:
        make_plan(Plugins(), pruner="llmcompressor", sparsity=0.5, pruner_options=options)
    assert message in str(caught.value)


def test_first_inputs_are_those_of_calls_by_keyword_too() -> None:
    from harness_ext_llmcompressor.oneshot import _first_inputs

    found: list[dict[str, torch.Tensor]] = []
    for by_keyword in (False, True):
        model = tiny.model()
        layers = find_blocks(model)[0].layers
        for block in model.model.layers if by_keyword else ():
            mlp = block.mlp
            mlp.forward = lambda x, mlp=mlp: mlp.down_proj(input=mlp.act_fn(mlp.gate_proj(input=x)) * mlp.up_proj(input=x))
        kept: dict[str, torch.Tensor] = {}
        with _first_inputs(layers, {layer.name: layer.weight.clone() for layer in layers}, kept), torch.no_grad():
            model(input_ids=tiny.token_ids(1))
        found.append(kept)
    assert set(found[0]) == {layer.name for layer in layers}
    assert tiny.same(*found)
