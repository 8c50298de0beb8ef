"""``harness_ext.prune`` on every architecture, with every pruner."""

from __future__ import annotations

import copy
import json

import pytest
import tiny
import torch
from harness_ext_pruners.wanda import Wanda
from pairwise import all_pairs
from refusals import raises_line

from harness_ext import BadOptionError, CalibrationError, HarnessExtError, Sparsity, prune
from harness_ext.engine import api
from harness_ext.engine.layers import find_blocks

ROW_WISE, UPDATING = ("wanda", "dsnot"), ("sparsegpt", "admm", "alps")
PRUNERS = ("random", "magnitude", "ria", *ROW_WISE, *UPDATING)


def layers_of(model):
    return {layer.name: layer.weight for block in find_blocks(model) for layer in block.layers}


def share(name, pruner, sparsity, weight):
    """How many zeros a layer is to have."""
    if sparsity == "2:4":
        return weight.numel() // 2
    parsed = Sparsity.parse(sparsity)
    return weight.shape[0] * parsed.removed_of(weight.shape[1]) if pruner in ROW_WISE else parsed.removed_of(weight.numel())


@all_pairs(name=tiny.ARCHITECTURES, pruner=PRUNERS, sparsity=[0.29, "2:4"], dtype=[torch.float32, torch.bfloat16])
def test_exactly_what_was_asked_for_is_removed_from_linear_layers_and_nothing_else_changes(name, pruner, sparsity, dtype):
    model = tiny.model(name, dtype=dtype)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    dense, before = copy.deepcopy(model), tiny.weights(model)
    record = prune(model, pruner=pruner, sparsity=sparsity, calibration=tiny.token_ids())

    pruned = layers_of(model)
    for layer, weight in pruned.items():
        zeros = share(name, pruner, sparsity, weight)
        assert int((weight == 0).sum()) == zeros == record["layers"][layer]["zeros"], layer
        if sparsity == "2:4":
            assert ((weight.reshape(-1, 4) == 0).sum(1) == 2).all()
        if pruner not in UPDATING:
            kept = weight != 0
            assert weight[kept].equal(layers_of(dense)[layer][kept])
        assert weight.dtype == dtype
    total = sum(weight.numel() for weight in pruned.values())
    assert record["achieved_sparsity"] == sum(share(name, pruner, sparsity, weight) for weight in pruned.values()) / total
    json.dumps(record)

    others = {name for name in before if name.removesuffix(".weight") not in pruned}
    assert tiny.same({name: tensor for name, tensor in tiny.weights(model).items() if name in others}, {n: before[n] for n in others})
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_a_pruned_model_generates_with_and_without_a_cache(name):
    model, ids = tiny.model(name), tiny.token_ids(2)
    prune(model, sparsity=0.5, calibration=ids)
    with torch.no_grad():
        assert model(input_ids=ids).logits.isfinite().all()
    one, other = (
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False, use_cache=cache, eos_token_id=None)
        for cache in (True, False)
    )
    assert one.shape == (2, ids.shape[1] + 5)
    assert one.equal(other)


@pytest.mark.parametrize("pruner", PRUNERS)
def test_the_same_twice_bit_for_bit(pruner):
    one, other = tiny.model(dtype=torch.bfloat16), tiny.model(dtype=torch.bfloat16)
    records = [prune(model, pruner=pruner, sparsity=0.5, calibration=tiny.token_ids()) for model in (one, other)]
    assert tiny.same(tiny.weights(one), tiny.weights(other))
    assert records[0]["fingerprint"] == records[1]["fingerprint"]


def test_sparsity_zero_leaves_every_bit():
    model = tiny.model(dtype=torch.bfloat16)
    before = tiny.weights(model)
    for pruner in PRUNERS:
        record = prune(model, pruner=pruner, sparsity=0)
        assert tiny.same(tiny.weights(model), before)
        assert (record["achieved_sparsity"], record["layers"]) == (0, {})


@pytest.mark.parametrize("pruner", PRUNERS)
def test_extreme_sparsity(pruner):
    model = tiny.model()
    record = prune(model, pruner=pruner, sparsity=0.99, calibration=tiny.token_ids())
    for weight in layers_of(model).values():
        assert weight.any()
    assert 0.9 < record["achieved_sparsity"] <= 0.99


@pytest.mark.parametrize("pruner", ["random", "sparsegpt"])
def test_the_global_generators_are_left_alone(pruner):
    model = tiny.model()
    state = torch.get_rng_state()
    prune(model, pruner=pruner, sparsity=0.5, calibration="self", calibration_options={"samples": 3, "length": 8})
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_as_before_but_pruning_is_done_in_evaluation_mode(training):
    """With dropout at work, the calibration activations would differ."""
    one, other = tiny.model("opt", dropout=0.5).train(training), tiny.model("opt", dropout=0.5)
    for model in (one, other):
        prune(model, pruner="sparsegpt", sparsity=0.5, calibration=tiny.token_ids())
    assert one.training == training
    assert tiny.same(tiny.weights(one), tiny.weights(other))


def test_parameters_that_require_gradients_stay_so():
    model = tiny.model().requires_grad_()
    prune(model, sparsity=0.5, calibration=tiny.token_ids())
    assert all(parameter.requires_grad and parameter.grad is None and parameter.is_leaf for parameter in model.parameters())


def test_a_model_pruned_before_may_be_pruned_further():
    model = tiny.model()
    prune(model, pruner="magnitude", sparsity=0.3)
    once = {name: weight == 0 for name, weight in layers_of(model).items()}
    record = prune(model, pruner="wanda", sparsity=0.6, calibration=tiny.token_ids())
    assert all((weight[once[name]] == 0).all() for name, weight in layers_of(model).items())
    assert record["achieved_sparsity"] >= 0.56


@pytest.mark.parametrize(("modules", "count"), [("attention", 8), ("ffn", 6), ("*.down_proj", 2)])
def test_only_selected_modules_change(modules, count):
    model = tiny.model()
    before = tiny.weights(model)
    record = prune(model, sparsity=0.5, modules=modules, calibration=tiny.token_ids())
    changed = {name.removesuffix(".weight") for name, tensor in tiny.weights(model).items() if not tensor.equal(before[name])}
    assert changed == set(record["layers"])
    assert len(changed) == count


def test_an_instance_does_the_same_as_its_name():
    one, other = tiny.model(), tiny.model()
    prune(one, pruner=Wanda(), sparsity=Sparsity(0.5), calibration=tiny.token_ids())
    prune(other, pruner="wanda", sparsity="0.5", calibration=tiny.token_ids())
    assert tiny.same(tiny.weights(one), tiny.weights(other))


def test_options_reach_the_pruner_and_the_source():
    record = prune(
        tiny.model(),
        sparsity=0.5,
        pruner_options={"block_size": 8, "damping": 0.1},
        calibration_options={"samples": 3, "length": 9, "seed": 2},
    )
    assert record["plan"]["pruner_options"] == {"block_size": 8, "damping": 0.1}
    assert (record["calibration"]["samples"], record["calibration"]["length"]) == (3, 9)
    assert {entry["damping"] for entry in record["layers"].values()} == {0.1}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"sparsity": 2}, ["sparsity=2", "[0, 1)"]),
        ({"sparsity": 0.5, "pruner": "wnada"}, ["'wnada'", "Did you mean 'wanda'"]),
        ({"sparsity": 0.5, "pruner": Wanda}, ["pruner=", "harness-ext plugins"]),
        ({"sparsity": 0.5, "pruner": Wanda(), "pruner_options": {"x": 1}}, ["pruner options"]),
        ({"sparsity": 0.5, "calibration_options": {"samples": 3}}, ["calibration options"]),
        ({"sparsity": 0.5, "calibration": tiny.token_ids().int()}, ["calibration", "int64", "torch.int32"]),
        ({"sparsity": 0.5, "calibration": tiny.token_ids()[0]}, ["calibration", "[samples, length]"]),
        ({"sparsity": 0.5, "calibration": tiny.token_ids()[:0]}, ["calibration", "[samples, length]"]),
        ({"sparsity": 0.5, "calibration": tiny.token_ids() + 1}, ["calibration", "40", "vocabulary", "39"]),
        ({"sparsity": 0.5, "calibration": -tiny.token_ids()}, ["calibration", "vocabulary"]),
        ({"sparsity": 0.5, "calibration": tiny.token_ids(2, tiny.LONGEST + 1)}, ["calibration", "33", "32"]),
        ({"sparsity": "2:5"}, ["sparsity=2:5", "model.layers.0.self_attn.q_proj", "16"]),
        ({"sparsity": "4:16"}, ["sparsity=4:16", "down_proj", "24"]),
        ({"sparsity": 0.5, "modules": "*.nothing"}, ["modules='*.nothing'"]),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(arguments, parts):
    model = tiny.model()
    before = tiny.weights(model)
    with raises_line((BadOptionError, CalibrationError), *parts) as error:
        prune(model, **({"calibration": tiny.token_ids()} | arguments))
    assert isinstance(error.value, HarnessExtError)
    assert tiny.same(tiny.weights(model), before)


@pytest.mark.parametrize(
    ("named", "place", "there"),
    [("cuda", "cuda:0", True), ("cuda", "cuda:1", True), ("cuda:1", "cuda:0", False), ("cuda", "cpu", False), ("cpu", "cpu", True)],
)
def test_a_device_without_a_number_is_where_the_model_is(named, place, there):
    assert api._names(torch.device(named), torch.device(place)) == there
