"""What a run with llm-compressor leaves behind, records, and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from harness_ext_llmcompressor.pruner import LLMCompressor
from safetensors.torch import load_file

import harness_ext
from harness_ext import BadOptionError, NumericalError, PluginError, UnsupportedModelError
from harness_ext.engine.plan import make_plan
from harness_ext.engine.run import apply
from harness_ext.plugins import Plugins

MODIFIERS = ("sparsegpt", "wanda")
RECIPE = """
pruning_stage:
  pruning_modifiers:
    {kind}:
      sparsity: {sparsity}
      targets: {targets}
      ignore: {ignore}
{more}
"""


def recipe(
    folder: Path,
    kind: str = "WandaPruningModifier",
    *,
    sparsity: str = "0.5",
    targets: str = "[Linear]",
    ignore: str = "['re:.*lm_head']",
    more: str = "",
) -> str:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(kind=kind, sparsity=sparsity, targets=targets, ignore=ignore, more=f"      {more}"), encoding="utf-8")
    return str(path)


def prune(model: Any, sparsity: float | str = 0.5, ids: torch.Tensor | None = None, **options: Any) -> dict[str, Any]:
    ids = tiny.token_ids() if ids is None else ids
    return harness_ext.prune(model, pruner="llmcompressor", pruner_options=options, sparsity=sparsity, calibration=ids)


@pytest.mark.parametrize("name", [name for name in tiny.ARCHITECTURES if name != "gpt2"])
@pytest.mark.parametrize("modifier", MODIFIERS)
def test_every_architecture_of_linear_layers_is_pruned(name: str, modifier: str) -> None:
    model = tiny.model(name)
    record = prune(model, modifier=modifier)
    assert all(0.5 <= entry["achieved"] < 0.51 for entry in record["layers"].values())
    assert len(record["layers"]) == 2 * len(tiny.LINEAR_LAYERS.get(name, tiny.LINEAR_LAYERS["llama"]))


@pytest.mark.parametrize("modifier", MODIFIERS)
def test_gpt2_whose_layers_llm_compressor_passes_over_is_refused_and_untouched(modifier: str) -> None:
    model = tiny.model("gpt2")
    before = tiny.weights(model)
    with pytest.raises(UnsupportedModelError, match="Conv1D, which llm-compressor passes over"):
        prune(model, modifier=modifier)
    assert tiny.same(before, tiny.weights(model))


@pytest.mark.parametrize("tied", [False, True])
def test_nothing_but_the_weights_of_the_decoder_is_another_than_before(tied: bool, tmp_path: Path) -> None:
    model = tiny.model("llama-gqa-tied" if tied else "llama")
    before = tiny.weights(model)
    identities = {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)}
    name, settings = model.config.name_or_path, model.config.to_dict()
    attributes = [set(vars(module)) for module in model.modules()]
    prune(model, modifier="sparsegpt")
    after = tiny.weights(model)
    assert {key for key in before if not torch.equal(before[key], after[key])} == {key for key in before if "_proj." in key}
    assert {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)} == identities
    assert (model.config.name_or_path, model.config.to_dict()) == (name, settings)
    assert [set(vars(module)) for module in model.modules()] == attributes
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, after[key]) for key, tensor in saved.items())
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert not (tmp_path / "recipe.yaml").exists()


def test_the_record_has_the_library_its_version_and_the_digest_of_the_tokens() -> None:
    ids = tiny.token_ids()
    mine, other = (prune(tiny.model(), ids=ids, modifier=modifier) for modifier in MODIFIERS)
    assert mine["notes"]["llmcompressor"] == metadata.version("llmcompressor")
    assert mine["notes"]["modifiers"] == ["SparseGPTModifier"]
    assert mine["plugin"]["module"] == "harness_ext_llmcompressor"
    again = harness_ext.prune(tiny.model(), pruner="wanda", sparsity=0.5, calibration=ids)
    assert mine["calibration"] == other["calibration"] == again["calibration"]
    assert len({record["fingerprint"] for record in (mine, other, again)}) == 3


@pytest.mark.parametrize("modifier", MODIFIERS)
def test_the_calibration_tokens_are_the_ones_that_are_used(modifier: str) -> None:
    def pruned(seed: int) -> dict[str, torch.Tensor]:
        model = tiny.model()
        prune(model, ids=tiny.token_ids(seed=seed), modifier=modifier)
        return tiny.weights(model)

    assert tiny.same(pruned(0), pruned(0))
    assert not tiny.same(pruned(0), pruned(1))


def test_a_recipe_does_what_its_modifier_does_alone(tmp_path: Path) -> None:
    one, other = tiny.model(), tiny.model()
    prune(one, modifier="wanda")
    record = prune(other, recipe=recipe(tmp_path))
    assert tiny.same(tiny.weights(one), tiny.weights(other))
    assert record["notes"]["recipe_digest"]


def test_a_recipe_for_a_part_of_the_layers_wants_the_sparsity_of_all(tmp_path: Path) -> None:
    part = recipe(tmp_path, ignore="['re:.*lm_head', 're:.*mlp.*']")
    model = tiny.model()
    share = sum(m.weight.numel() for n, m in model.named_modules() if "self_attn." in n) / sum(
        m.weight.numel() for n, m in model.named_modules() if n.endswith("_proj")
    )
    with pytest.raises(BadOptionError, match=f"ask for sparsity={0.5 * share:.6g}"):
        prune(model, recipe=part)
    record = prune(model, sparsity=0.5 * share, recipe=part)
    assert {name for name, entry in record["layers"].items() if entry["zeros"]} == {n for n in record["layers"] if "self_attn." in n}


@pytest.mark.parametrize("ignore", ["[]", "[lm_head]"])  # llm-compressor does not recognise the name alone
def test_a_recipe_that_prunes_the_head_is_refused(tmp_path: Path, ignore: str) -> None:
    model = tiny.model()
    before = tiny.weights(model)
    with pytest.raises(BadOptionError, match=r"prunes lm_head.* need ignore: \['re:.\*lm_head'\]"):
        prune(model, recipe=recipe(tmp_path, ignore=ignore))
    assert tiny.same(before, tiny.weights(model))


def test_a_recipe_without_the_pattern_that_was_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadOptionError, match="no mask_structure 2:4"):
        prune(tiny.model(), "2:4", recipe=recipe(tmp_path))
    record = prune(tiny.model(), "2:4", recipe=recipe(tmp_path, more="mask_structure: '2:4'"))
    assert record["achieved_sparsity"] == 0.5


MAGNITUDE = """
pruning_stage:
  pruning_modifiers:
    MagnitudePruningModifier:
      init_sparsity: 0.0
      final_sparsity: 0.5
      start: 0
      end: 1
      targets: ['re:.*weight']
"""


QUANTISATION = """
quantisation_stage:
  quantisation_modifiers:
    QuantizationModifier:
      targets: [Linear]
      scheme: W8A8
"""
OWL = """
pruning_stage:
  pruning_modifiers:
    WandaPruningModifier:
      sparsity: 0.5
      sparsity_profile: owl
      owl_m: 5
      owl_lmbda: 0.08
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MAGNITUDE, "MagnitudePruningModifier of llm-compressor sets no weight to zero in one shot.* or pruner=magnitude"),
        (QUANTISATION, "QuantizationModifier .*Want SparseGPTModifier, WandaPruningModifier"),
        (OWL, "sparsity_profile='owl' fails.*pruner=wanda,allocation=owl"),
        (OWL.replace("Wanda", "Vanda"), "cannot read it: No modifier of type 'VandaPruningModifier'"),
        ("a: [", "cannot read it"),
        ("a: 1", "at least one modifier"),
        ("just text", "cannot read it"),
    ],
    ids=["magnitude", "quantisation", "owl", "unknown", "no YAML", "no stage", "no mapping"],
)
def test_a_recipe_that_cannot_prune_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadOptionError, match=message) as caught:
        LLMCompressor(recipe=str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modifier": "magnitude"}, "sets no weight to zero in one shot. Want sparsegpt, wanda, or pruner=magnitude"),
        ({"modifier": "constant"}, "sets no weight to zero in one shot"),
        ({"modifier": "Sparse-GPT"}, "Did you mean 'sparsegpt'"),
        ({"modifier": "wanda", "block_size": 64}, "WandaPruningModifier of llm-compressor has no such argument"),
    ],
)
def test_a_modifier_or_an_argument_that_it_has_not_is_refused_before_the_model(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadOptionError, match=message):
        make_plan(Plugins(), pruner="llmcompressor", sparsity=0.5, pruner_options=options)


@pytest.mark.parametrize(("argument", "value"), [("modules", "attention"), ("allocation", "owl"), ("true_sequential", True)])
def test_what_a_method_for_whole_models_cannot_heed_is_refused(argument: str, value: Any) -> None:
    with pytest.raises(BadOptionError, match=f"{argument}={value!r}"):
        make_plan(Plugins(), pruner="llmcompressor", sparsity=0.5, pruner_options={"modifier": "wanda"}, **{argument: value})


def test_the_arguments_of_the_modifier_reach_it() -> None:
    def pruned(**options: Any) -> dict[str, torch.Tensor]:
        model = tiny.model()
        prune(model, "2:4", modifier="sparsegpt", **options)
        return tiny.weights(model)

    plain = pruned()
    assert tiny.same(plain, pruned(block_size=128, dampening_frac=0.01))
    assert not tiny.same(plain, pruned(dampening_frac=1.0))
    assert not tiny.same(pruned(block_size=4), pruned(block_size=16))
    with pytest.raises(BadOptionError, match="want a multiple of 4 columns"):
        pruned(block_size=6)


def test_a_hessian_that_llm_compressor_would_do_without_is_an_error() -> None:
    with pytest.raises(NumericalError, match="could not factorise 14 Hessians"):
        prune(tiny.model(), ids=tiny.token_ids(1, 3), modifier="sparsegpt", dampening_frac=1e-12)


def test_layers_that_it_leaves_as_they_were_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmcompressor.modifiers.pruning.wanda import base

    monkeypatch.setattr(base, "sparsify_weight", lambda module, **_: module.weight.data)
    monkeypatch.setattr(base.WandaPruningModifier, "on_finalize", lambda *_, **__: True)
    with pytest.raises(PluginError, match=r"left 0 zeros in model\.layers\.0\.self_attn\.q_proj, where sparsity 0.5 is"):
        prune(tiny.model(), modifier="wanda")


def test_what_fails_inside_is_told_in_one_line_and_the_model_works(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmcompressor.modifiers.pruning.wanda import base

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("one\n  two")

    monkeypatch.setattr(base, "sparsify_weight", fail)
    model = tiny.model()
    with torch.no_grad():
        wanted = model(tiny.token_ids()).logits
    with pytest.raises(PluginError, match=r"llm-compressor 0\.14.* failed: RuntimeError: one two"):
        prune(model, modifier="wanda")
    assert not any(module._forward_hooks for module in model.modules())
    with torch.no_grad():
        assert torch.equal(model(tiny.token_ids()).logits, wanted)


def test_it_prunes_with_a_calibration_source_as_every_pruner_does() -> None:
    from harness_ext.testing.contracts.given import lab_model, lab_tokenizer

    plan = make_plan(
        Plugins(), pruner="llmcompressor", sparsity=0.5, pruner_options={"modifier": "sparsegpt"},
        calibration_options={"samples": 2, "length": 32},
    )  # fmt: skip
    record = apply(plan, lab_model(), lab_tokenizer())
    assert record["calibration"] | {"digest": ""} == {"samples": 2, "length": 32, "digest": "", "bos": True}
    assert record["achieved_sparsity"] == pytest.approx(0.5, rel=1e-3)


def test_nothing_of_it_is_imported_until_it_is_asked_for_and_nothing_is_printed() -> None:
    code = """
import sys
from harness_ext.plugins import Plugins
from harness_ext.engine.plan import make_plan
plugins = Plugins()
make_plan(plugins, pruner="wanda", sparsity=0.5)
heavy = [name for name in ("llmcompressor", "compressed_tensors", "loguru") if name in sys.modules]
make_plan(plugins, pruner="llmcompressor", sparsity=0.5, pruner_options={"modifier": "wanda"})
sys.exit(0 if not heavy and "llmcompressor" in sys.modules else str(heavy))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_run_writes_nothing_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    prune(tiny.model(), modifier="wanda")
    assert capfd.readouterr().out == ""
