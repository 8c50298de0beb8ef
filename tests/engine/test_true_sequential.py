"""Pruning the layers of a block in the order of their use, against plain forward passes of partly pruned models."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import ClassVar

import oracle
import pytest
import tiny
import torch
from refusals import raises_line
from torch import nn

from harness_ext import BadOptionError, Hessian, NumericalError, Pruner, Sparsity, UnsupportedModelError, prune
from harness_ext.engine import walk
from harness_ext.engine.layers import find_blocks
from harness_ext.engine.plan import make_plan
from harness_ext.plugins import Plugins

architecture = pytest.mark.parametrize("name", tiny.ARCHITECTURES)

ORDERS = {  # the layers of a block that read one tensor, in the order of their use
    "opt": [{"q_proj", "k_proj", "v_proj"}, {"out_proj"}, {"fc1"}, {"fc2"}],
    "gpt-neox": [{"query_key_value"}, {"dense"}, {"dense_h_to_4h"}, {"dense_4h_to_h"}],
    "gpt2": [{"attn.c_attn"}, {"attn.c_proj"}, {"mlp.c_fc"}, {"mlp.c_proj"}],
}
LLAMA = [{"q_proj", "k_proj", "v_proj"}, {"o_proj"}, {"gate_proj", "up_proj"}, {"down_proj"}]


class Recording(Pruner):
    """Prunes by magnitude, and notes the statistics that it was given."""

    name = "recording"
    statistic = Hessian
    given: ClassVar[list[tuple[torch.Tensor, Hessian]]] = []

    def prune(self, weight, sparsity, statistic):
        self.given.append((statistic.matrix.double(), statistic))
        return weight.masked_fill(sparsity.mask(weight.abs()), 0)


class Failing(Recording):
    """Raises at the fourth layer, half-way through a block."""

    name = "failing"

    def prune(self, weight, sparsity, statistic):
        if len(self.given) == 3:
            raise ZeroDivisionError
        return super().prune(weight, sparsity, statistic)


@pytest.fixture(autouse=True)
def nothing_recorded():
    Recording.given.clear()


def run(model, ids, **options):
    return prune(model, pruner=Recording(), sparsity=0.5, calibration=ids, true_sequential=True, **options)


def inputs_of(model, layer, ids):
    """What reaches a linear layer in a plain forward pass: float64 [tokens, inputs]."""
    found = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, args: found.append(args[0].detach().double().flatten(0, -2)))
    with torch.no_grad():
        model(input_ids=ids)
    handle.remove()
    return torch.cat(found).numpy()


def in_order(name, block):
    """The names of a block's layers in the groups of ORDERS."""
    return [
        [layer.name for layer in block.layers if any(layer.name.endswith(f".{ending}") for ending in group)]
        for group in ORDERS.get(name, LLAMA)
    ]


@architecture
def test_each_layer_is_measured_behind_all_layers_that_were_pruned_before_it(name, monkeypatch):
    dense, ids = tiny.model(name), tiny.token_ids(samples=5)
    monkeypatch.setattr(walk, "BATCH_TOKENS", 2 * ids.shape[1])
    pruned = copy.deepcopy(dense)
    run(pruned, ids)
    partly, given = copy.deepcopy(dense), iter(Recording.given)
    for block in find_blocks(dense):
        for group in in_order(name, block):
            assert group
            for layer in group:
                matrix, statistic = next(given)
                expected = torch.from_numpy(oracle.hessian(inputs_of(partly, layer, ids)))
                torch.testing.assert_close(matrix, expected, rtol=1e-4, atol=1e-5)
                assert statistic.tokens == ids.numel()
            for layer in group:
                partly.get_submodule(layer).load_state_dict(pruned.get_submodule(layer).state_dict())
    assert next(given, None) is None
    assert tiny.same(tiny.weights(partly), tiny.weights(pruned))


def test_it_makes_a_difference():
    models = [tiny.model(), tiny.model()]
    for model, order in zip(models, (False, True), strict=True):
        prune(model, pruner="sparsegpt", sparsity=0.5, calibration=tiny.token_ids(), true_sequential=order)
    first = [layer.name for layer in find_blocks(models[0])[0].layers]
    assert [
        models[0].get_submodule(layer).weight.equal(models[1].get_submodule(layer).weight) for layer in first
    ] == [True] * 3 + [False] * 4  # fmt: skip


def test_a_block_runs_no_further_than_the_layers_that_are_measured(monkeypatch):
    model, ids, calls = tiny.model(layers=3), tiny.token_ids(6), Counter()
    monkeypatch.setattr(walk, "BATCH_TOKENS", 2 * ids.shape[1])
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "layers" in name:
            module.register_forward_hook(lambda *_, name=name: calls.update([name.split(".", 2)[2]]))
    run(model, ids)
    batches, stage = 3, {name: number for number, names in enumerate(LLAMA) for name in names}
    for name, count in calls.items():
        block, layer = int(name.split(".")[0]), name.split(".")[-1]
        behind = len(LLAMA) - stage[layer]  # stages for which the block runs as far as this layer, or past it
        first_look, whole_pass = 1, batches if block < 2 else 0
        proof = 5  # one sequence through the model itself, four batches through the walk
        assert count <= behind * batches + first_look + whole_pass + proof


class Inside(nn.Module):
    """Runs a block's FFN in a state of torch that it enters itself."""

    def __init__(self, module, state):
        super().__init__()
        self.inner, self.state = module, state

    def forward(self, states):
        with self.state():
            return self.inner(states).to(states.dtype)


@pytest.mark.parametrize(
    "state",
    [
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        torch.enable_grad,
        lambda: torch.set_grad_enabled(False),
        lambda: torch.device("cpu"),
    ],
    ids=["autocast", "enable_grad", "no_grad", "default device"],
)
@pytest.mark.parametrize("batches", [1, 6])
def test_a_block_may_change_the_state_of_torch_while_it_runs(monkeypatch, state, batches):
    """Such state belongs to the thread: it must be that of the batch that runs, and be what it was afterwards."""
    ids = tiny.token_ids(6)
    monkeypatch.setattr(walk, "BATCH_TOKENS", ids.numel() // batches)
    pruned, partly = tiny.model(), tiny.model()
    for model in (pruned, partly):
        for block in find_blocks(model):
            block.module.mlp = Inside(block.module.mlp, state)
    before = torch.is_autocast_enabled("cpu"), torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_device()
    record = prune(pruned, pruner="wanda", sparsity=0.5, calibration=ids, true_sequential=True)
    assert before == (
        torch.is_autocast_enabled("cpu"), torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_device(),
    )  # fmt: skip
    assert record["achieved_sparsity"] == 0.5
    for block in find_blocks(partly):
        for names in LLAMA:
            layers = [layer for layer in block.layers if layer.name.rsplit(".", 1)[-1] in names]
            norms = {layer.name: oracle_norms(partly, layer, ids) for layer in layers}
            for layer in layers:
                scores = layer.weight.abs() * norms[layer.name]
                layer.write(layer.weight.masked_fill(Sparsity(0.5).mask(scores, "row"), 0))
    different = sum(
        int(((a.weight == 0) != (b.weight == 0)).sum())
        for one, other in zip(find_blocks(pruned), find_blocks(partly), strict=True)
        for a, b in zip(one.layers, other.layers, strict=True)
    )
    assert different == 0


def oracle_norms(model, layer, ids):
    """The norms of what reaches a layer in a whole forward pass of the model."""
    seen = []
    handle = layer.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].float()))
    with torch.no_grad():
        model(input_ids=ids)
    handle.remove()
    return torch.cat([inputs.flatten(0, 1) for inputs in seen]).norm(dim=0)


@architecture
def test_the_same_bits_come_out_each_time(name):
    one, other = tiny.model(name), tiny.model(name)
    first, second = (prune(model, sparsity=0.5, calibration=tiny.token_ids(), true_sequential=True) for model in (one, other))
    assert tiny.same(tiny.weights(one), tiny.weights(other))
    assert first["fingerprint"] == second["fingerprint"]


def test_the_record_says_so_and_the_fingerprint_is_another():
    records = [
        prune(tiny.model(), sparsity=0.5, calibration=tiny.token_ids(), true_sequential=order) for order in (False, True)
    ]  # fmt: skip
    assert [record["plan"].get("true_sequential") for record in records] == [None, True]
    assert records[0]["fingerprint"] != records[1]["fingerprint"]
    json.dumps(records)


def test_a_run_that_stopped_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    whole, stopped = tiny.model(layers=3), tiny.model(layers=3)
    run(whole, tiny.token_ids())
    Recording.given.clear()
    original = Recording.prune

    def stop(self, weight, sparsity, statistic):
        if len(self.given) == 10:
            raise KeyboardInterrupt
        return original(self, weight, sparsity, statistic)

    with monkeypatch.context() as patch:
        patch.setattr(Recording, "prune", stop)
        with pytest.raises(KeyboardInterrupt):
            run(stopped, tiny.token_ids(), resume=tmp_path)
    fresh = tiny.model(layers=3)
    Recording.given.clear()
    run(fresh, tiny.token_ids(), resume=tmp_path)
    assert len(Recording.given) == 14  # two of the three blocks
    assert tiny.same(tiny.weights(whole), tiny.weights(fresh))


def test_nothing_is_left_behind_after_an_error():
    model = tiny.model()
    with pytest.raises(ZeroDivisionError):
        prune(model, pruner=Failing(), sparsity=0.5, calibration=tiny.token_ids(), true_sequential=True)
    assert not any(module._forward_pre_hooks or "forward" in module.__dict__ for module in model.modules())
    with torch.no_grad():
        assert model(input_ids=tiny.token_ids()).logits.isfinite().all()


def test_only_selected_layers_are_measured():
    model = tiny.model()
    run(model, tiny.token_ids(), modules="*.1.*.k_proj")
    (found,) = Recording.given
    expected = oracle.hessian(inputs_of(tiny.model(), "model.layers.1.self_attn.k_proj", tiny.token_ids()))
    torch.testing.assert_close(found[0], torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def test_an_input_that_is_not_finite_names_its_layer():
    model = tiny.model()
    model.model.layers[1].mlp.up_proj.register_forward_hook(lambda *results: results[-1] * float("inf"))
    with raises_line(NumericalError, "layers.1.mlp.down_proj"):
        prune(model, pruner="sparsegpt", sparsity=0.5, calibration=tiny.token_ids(), true_sequential=True, modules="*down_proj")


def test_a_layer_that_is_used_twice_is_refused():
    model = tiny.model()
    mlp = model.model.layers[0].mlp
    original = mlp.forward
    mlp.forward = lambda states: original(original(states))
    with raises_line(UnsupportedModelError, "model.layers.0.mlp.", "true_sequential"):
        run(model, tiny.token_ids())


@pytest.mark.parametrize("pruner", ["magnitude", "random", "depth", "width"])
def test_it_is_refused_where_no_layer_is_measured(pruner):
    with raises_line(BadOptionError, "true_sequential=True", repr(pruner)):
        make_plan(Plugins(), pruner=pruner, sparsity=0.5, true_sequential=True)


@pytest.mark.parametrize("given", ["yes", 1, None])
def test_it_is_true_or_false(given):
    with raises_line(BadOptionError, f"true_sequential={given!r}"):
        make_plan(Plugins(), sparsity=0.5, true_sequential=given)
