"""llm-compressor as an independent peer of our own pruners: the same model, the same calibration tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from harness_ext_llmcompressor.oneshot import _first_inputs, run
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

import harness_ext
from harness_ext.testing.contracts.given import lab_model, lab_text, layers_of

SPARSITIES = (0.5, "2:4")
GROUP = 32  # inputs, which divide those of every layer


def dense() -> PreTrainedModel:
    """A random model of a form that llm-compressor goes through block by block, for tokens of the embedded models."""
    sizes = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=lab_model().config.vocab_size, **sizes)).eval()


def pruned(sparsity: float | str, pruner: str, **options: Any) -> PreTrainedModel:
    model = dense()
    harness_ext.prune(model, pruner=pruner, pruner_options=options, sparsity=sparsity, calibration=lab_text(0))
    return model


def inputs(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """What reaches each linear layer of a model, [tokens, in_features]."""
    found = {}
    handles = [
        layer.module.register_forward_pre_hook(lambda _, args, name=layer.name: found.update({name: args[0].flatten(0, 1)}))
        for layer in layers_of(model)
    ]
    with torch.no_grad():
        model(input_ids=lab_text(0))
    for handle in handles:
        handle.remove()
    return found


def error(model: PreTrainedModel) -> float:
    """The mean over the layers of the squared error of their outputs, in parts of the square of the dense output."""
    before = dense()
    reached = inputs(before)
    errors = []
    for old, new in zip(layers_of(before), layers_of(model), strict=True):
        wanted, got = (reached[old.name].double() @ layer.weight.double().T for layer in (old, new))
        errors.append(float((wanted - got).square().sum() / wanted.square().sum()))
    return sum(errors) / len(errors)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_wanda_chooses_the_masks_that_llm_compressor_chooses(sparsity: float | str) -> None:
    ours, theirs = pruned(sparsity, "wanda"), pruned(sparsity, "llmcompressor", modifier="wanda")
    differ = total = 0
    for mine, yours in zip(layers_of(ours), layers_of(theirs), strict=True):
        differ += int(((mine.weight == 0) != (yours.weight == 0)).sum())
        total += mine.weight.numel()
    assert total > 100_000
    assert differ <= 0.0005 * total  # sums of squares in another order: scores that are equal but for rounding


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_sparsegpt_leaves_the_output_error_that_llm_compressor_leaves(sparsity: float | str) -> None:
    ours, theirs = error(pruned(sparsity, "sparsegpt")), error(pruned(sparsity, "llmcompressor", modifier="sparsegpt"))
    assert ours == pytest.approx(theirs, rel=0.01)
    assert ours < error(pruned(sparsity, "magnitude"))


@pytest.mark.parametrize(("bits", "symmetric", "act_order"), [(4, False, True), (4, False, False), (3, True, False), (2, False, True)])
def test_gptq_leaves_the_output_error_that_llm_compressor_leaves(bits: int, symmetric: bool, act_order: bool) -> None:
    from llmcompressor.modifiers.quantization import GPTQModifier

    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": GROUP}
    order = "static" if act_order else None
    theirs = dense()
    modifier = GPTQModifier(actorder=order, ignore=["lm_head"], config_groups={"group_0": {"targets": ["Linear"], "weights": weights}})
    run([modifier], theirs, lab_text(0), layers_of(theirs))
    ours = dense()
    options = {"group_size": GROUP, "symmetric": symmetric, "act_order": act_order, "static_groups": True}
    harness_ext.prune(ours, pruner="gptq", bits=bits, pruner_options=options, calibration=lab_text(0))
    assert error(ours) == pytest.approx(error(theirs), rel=0.01)


@pytest.mark.parametrize("name", ["lab-xs", "Mistral", "Phi3"])
def test_a_model_whose_traced_graph_has_no_causal_mask_is_calibrated_with_it(name: str) -> None:
    """The oracle: Wanda's scores from what reaches each layer of the dense model itself."""
    if name == "lab-xs":
        model = lab_model()
        assert model.config.model_type == "starcoder2"
    else:
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(vocab_size=lab_model().config.vocab_size, pad_token_id=0, **sizes)
        model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    reached = inputs(model)
    wanted = {}
    for layer in layers_of(model):
        scores = layer.weight.double().abs() * reached[layer.name].double().norm(dim=0)
        removed = scores.argsort(dim=1)[:, : scores.shape[1] // 2]
        wanted[layer.name] = torch.zeros_like(scores, dtype=torch.bool).scatter(1, removed, True)
    options = {"modifier": "wanda"}
    record = harness_ext.prune(model, pruner="llmcompressor", pruner_options=options, sparsity=0.5, calibration=lab_text(0))
    assert record["notes"]["pipeline"] == "basic"
    differ = sum(int(((layer.weight == 0) != wanted[layer.name]).sum()) for layer in layers_of(model))
    assert differ <= 0.0005 * sum(mask.numel() for mask in wanted.values())


def test_a_model_that_is_computed_right_keeps_the_pipeline_of_llm_compressor() -> None:
    model = dense()
    options = {"modifier": "wanda"}
    record = harness_ext.prune(model, pruner="llmcompressor", pruner_options=options, sparsity=0.5, calibration=lab_text(0))
    assert record["notes"]["pipeline"] == "independent"


def test_what_an_earlier_modifier_changed_is_not_taken_for_another_model() -> None:
    """What reaches the layers of a model that was changed before is not compared with what the dense model gives them."""
    model = dense()
    first = layers_of(model)[:7]
    weights = {layer.name: layer.weight.clone() for layer in first}
    kept: list[dict[str, torch.Tensor]] = []
    for change in (False, True):
        if change:
            first[0].write(weights[first[0].name] / 2)
        found: dict[str, torch.Tensor] = {}
        with _first_inputs(first, weights, found), torch.no_grad():
            model(input_ids=lab_text(0)[:1])
        kept.append(found)
    assert set(kept[0]) == set(weights)
    assert not kept[1]
