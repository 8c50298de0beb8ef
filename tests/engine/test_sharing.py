"""Layers that are called more than once, on tensors that change, or by keyword: what they are calibrated on, against hooks of this file."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import oracle
import pytest
import tiny
import torch
from experts import EXPERTS, INNER, WIDTH, mixture
from recording import Recording
from refusals import raises_line
from torch import nn
from torch.nn import functional as F

from harness_ext import UnsupportedModelError, prune
from harness_ext.engine import ranks, walk
from harness_ext.engine.layers import find_blocks
from harness_ext.engine.sharing import Sharing

Forward = Callable[[Any, torch.Tensor], torch.Tensor]
FACTORS = torch.linspace(0.1, 5, tiny.WIDTH)


def other(states: torch.Tensor) -> torch.Tensor:
    """Another tensor of the same shape, of other statistics."""
    return states.roll(1, -1) * FACTORS


def up_twice(mlp: Any, states: torch.Tensor) -> torch.Tensor:
    inner = F.silu(mlp.gate_proj(states)) * mlp.up_proj(states)
    return mlp.down_proj(inner + mlp.up_proj(other(states)))


def gate_twice(mlp: Any, states: torch.Tensor) -> torch.Tensor:
    inner = F.silu(mlp.gate_proj(states)) * mlp.up_proj(states)
    return mlp.down_proj(inner + mlp.gate_proj(other(states)))


def both_twice(mlp: Any, states: torch.Tensor) -> torch.Tensor:
    inner = sum(F.silu(mlp.gate_proj(read)) * mlp.up_proj(read) for read in (states, other(states)))
    return mlp.down_proj(inner)


def of_some_tokens(mlp: Any, states: torch.Tensor) -> torch.Tensor:
    """The way up is called again for sequences that begin with certain tokens: not in every batch."""
    inner = F.silu(mlp.gate_proj(states)) * mlp.up_proj(states)
    chosen = states[:, 0, 0] > 0
    if chosen.any():
        inner[chosen] = inner[chosen] + mlp.up_proj(other(states[chosen]))
    return mlp.down_proj(inner)


def written_into(mlp: Any, states: torch.Tensor) -> torch.Tensor:
    states = states.clone()
    gate = F.silu(mlp.gate_proj(states))
    states.mul_(FACTORS)
    return mlp.down_proj(gate * mlp.up_proj(states))


def written_into_a_part(mlp: Any, states: torch.Tensor) -> torch.Tensor:
    states = states.clone()
    gate = F.silu(mlp.gate_proj(states))
    states[..., :4].zero_()
    return mlp.down_proj(gate * mlp.up_proj(states))


def by_keyword(mlp: Any, states: torch.Tensor) -> torch.Tensor:
    return mlp.down_proj(input=F.silu(mlp.gate_proj(states)) * mlp.up_proj(input=states))


def plain(mlp: Any, states: torch.Tensor) -> torch.Tensor:
    return mlp.down_proj(F.silu(mlp.gate_proj(states)) * mlp.up_proj(states))


ODD = [up_twice, gate_twice, both_twice, of_some_tokens, written_into, written_into_a_part, by_keyword]
in_every_way = pytest.mark.parametrize("forward", ODD, ids=lambda forward: forward.__name__)


def model(forward: Forward, layers: int = 2) -> Any:
    built = tiny.model(layers=layers)
    for block in built.model.layers:
        block.mlp.forward = forward.__get__(block.mlp)
    return built


def copied(built: Any, forward: Forward) -> Any:
    """A copy whose methods are its own."""
    again = model(forward, len(built.model.layers))
    again.load_state_dict(built.state_dict())
    return again


@contextmanager
def all_inputs(modules: dict[str, nn.Module]) -> Iterator[dict[str, list[torch.Tensor]]]:
    """What each module reads in each of its calls, copied at the time of the call."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in modules}

    def hook(name: str) -> Callable[..., None]:
        return lambda _, args, kwargs: found[name].append((*args, *kwargs.values())[0].detach().double().flatten(0, -2).clone())

    handles = [module.register_forward_pre_hook(hook(name), with_kwargs=True) for name, module in modules.items()]
    yield found
    for handle in handles:
        handle.remove()


def check(seen: list[Any], weight: torch.Tensor, calls: list[torch.Tensor]) -> None:
    (_, hessian, tokens, _) = next(entry for entry in seen if torch.equal(entry[0], weight))
    inputs = torch.cat(calls)
    assert tokens == len(inputs)
    torch.testing.assert_close(hessian.double(), torch.from_numpy(oracle.hessian(inputs.numpy())), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 100])
@in_every_way
def test_all_calls_are_measured(forward: Forward, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tiny.token_ids(6)
    monkeypatch.setattr(walk, "BATCH_TOKENS", batch * ids.shape[1])
    dense, pruner = model(forward), Recording()
    pruned = copied(dense, forward)
    prune(pruned, pruner=pruner, sparsity=0.5, calibration=ids)
    partly = copied(dense, forward)
    for block, after in zip(find_blocks(partly), find_blocks(pruned), strict=True):
        with all_inputs({layer.name: layer.module for layer in block.layers}) as inputs, torch.no_grad():
            partly(input_ids=ids)
        for layer in block.layers:
            check(pruner.seen, layer.weight, inputs[layer.name])
        block.module.load_state_dict(after.module.state_dict())


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("batch", [1, 100])
def test_a_block_may_write_into_its_hidden_states(batch: int, ordered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, models = tiny.token_ids(6), []
    monkeypatch.setattr(walk, "BATCH_TOKENS", batch * ids.shape[1])
    for in_place in (False, True):
        built = tiny.model()
        for block in built.model.layers:

            def forward(hidden_states: Any, *args: Any, plain: Any = block.forward, in_place: bool = in_place, **kwargs: Any) -> Any:
                return plain(hidden_states.mul_(1.5) if in_place else hidden_states * 1.5, *args, **kwargs)

            block.forward = forward
        prune(built, pruner="sparsegpt", sparsity=0.5, calibration=ids, true_sequential=ordered)
        models.append(tiny.weights(built))
    assert tiny.same(*models)


@pytest.mark.parametrize("forward", [by_keyword, plain])
def test_layers_that_read_the_same_tensors_still_share(forward: Forward) -> None:
    pruner, built = Recording(), model(forward)
    prune(built, pruner=pruner, sparsity=0.5, calibration=tiny.token_ids(6))
    assert len({id(statistic) for *_, statistic in pruner.seen}) == 4 * 2


METHODS: list[dict[str, Any]] = [
    {"pruner": "sparsegpt", "sparsity": 0.5},
    {"pruner": "gptq", "bits": 3, "pruner_options": {"group_size": 8}, "sparsity": "2:4"},
]
APART = [forward for forward in ODD if forward not in (both_twice, by_keyword)]


@pytest.mark.parametrize("options", METHODS, ids=["sparsegpt", "gptq"])
@pytest.mark.parametrize("forward", APART)
def test_a_layer_pruned_alone_and_with_the_others_is_the_same(forward: Forward, options: dict[str, Any]) -> None:
    """Alone it can share nothing. In the first block both are calibrated on the dense model."""
    ids, built = tiny.token_ids(6), model(forward, layers=1)
    together = copied(built, forward)
    prune(together, calibration=ids, modules="ffn", **options)
    for role in ("gate_proj", "up_proj", "down_proj"):
        alone = copied(built, forward)
        prune(alone, calibration=ids, modules=f"*.{role}", **options)
        name = f"model.layers.0.mlp.{role}"
        assert torch.equal(alone.get_submodule(name).weight, together.get_submodule(name).weight), name


@pytest.mark.parametrize("forward", APART)
def test_an_allocation_measures_all_calls(forward: Forward) -> None:
    ids, built = tiny.token_ids(6), model(forward, layers=4)
    shares = []
    for block in find_blocks(built):
        with all_inputs({layer.name: layer.module for layer in block.layers}) as inputs, torch.no_grad():
            built(input_ids=ids)
        scores = [layer.weight.abs().double() * torch.cat(inputs[layer.name]).norm(dim=0) for layer in block.layers]
        flat = torch.cat([score.flatten() for score in scores])
        shares.append(float((flat > 2 * flat.mean()).double().mean()))
    low, high = min(shares), max(shares)
    margins = [(share - low) / (high - low) * 2 * 0.08 for share in shares]
    record = prune(
        built, pruner="magnitude", sparsity=0.5, calibration=ids, allocation="owl", allocation_options={"threshold": 2.0},
        precision="float64",
    )  # fmt: skip
    for number, margin in enumerate(margins):
        expected = 0.5 - margin + sum(margins) / len(margins)
        own = [float(entry["asked"]) for name, entry in record["layers"].items() if f"layers.{number}." in name]
        assert own == pytest.approx([expected] * 7, abs=1e-6)


class TestInOrder:
    @pytest.mark.parametrize("forward", [written_into, written_into_a_part, by_keyword])
    def test_each_layer_is_measured_behind_those_before_it(self, forward: Forward) -> None:
        ids, dense, pruner = tiny.token_ids(6), model(forward, layers=1), Recording()
        pruned = copied(dense, forward)
        prune(pruned, pruner=pruner, sparsity=0.5, calibration=ids, true_sequential=True)
        partly = copied(dense, forward)
        for names in (["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]):
            modules = {name: module for name, module in partly.model.layers[0].named_modules() if name.split(".")[-1] in names}
            with all_inputs(modules) as inputs, torch.no_grad():
                partly(input_ids=ids)
            for name, module in modules.items():
                check(pruner.seen, module.weight, inputs[name])
                module.load_state_dict(pruned.model.layers[0].get_submodule(name).state_dict())

    @pytest.mark.parametrize("forward", [up_twice, gate_twice, both_twice])
    def test_a_layer_that_is_called_twice_is_refused(self, forward: Forward) -> None:
        with raises_line(UnsupportedModelError, "is used more than once in its block"):
            prune(model(forward), pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(6), true_sequential=True)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("options", METHODS, ids=["sparsegpt", "gptq"])
def test_a_call_by_keyword_is_a_call(options: dict[str, Any], ordered: bool) -> None:
    ids = tiny.token_ids(6)
    models = [copied(model(plain), forward) for forward in (plain, by_keyword)]
    for built in models:
        prune(built, calibration=ids, true_sequential=ordered, **options)
    assert tiny.same(tiny.weights(models[0]), tiny.weights(models[1]))


class TestExperts:
    def twice(self, form: str) -> Any:
        """A mixture whose experts read another tensor as well with their gate, or with gate and way up."""
        built = mixture(form)
        factors = torch.linspace(0.1, 5, WIDTH)
        for block in built.blocks:
            block.mlp.read = {(number, role): [] for number in range(EXPERTS) for role in ("gate", "up", "down")}

            def stacked(number: int, states: torch.Tensor, mlp: Any = block.mlp) -> torch.Tensor:
                experts, again = mlp.experts, states.roll(1, -1) * factors
                gate, up = F.linear(states, experts.gate_up_proj[number]).chunk(2, -1)
                inner = F.silu(gate) * up + F.linear(again, experts.gate_up_proj[number, :INNER])
                return note(mlp, number, states, again, inner) or F.linear(inner, experts.down_proj[number])

            def listed(states: torch.Tensor, number: int, mlp: Any = block.mlp) -> torch.Tensor:
                expert, again = mlp.experts[number], states.roll(1, -1) * factors
                inner = F.silu(expert.w1(states)) * expert.w3(states) + expert.w1(again)
                return note(mlp, number, states, again, inner) or expert.w2(inner)

            def note(mlp: Any, number: int, states: torch.Tensor, again: torch.Tensor, inner: torch.Tensor) -> Any:
                for role, tensors in (("gate", (states, again)), ("up", (states,)), ("down", (inner,))):
                    mlp.read[number, role] += [tensor.detach().double().clone() for tensor in tensors]

            if form == "listed":
                for number, expert in enumerate(block.mlp.experts):
                    expert.forward = lambda states, number=number, listed=listed: listed(states, number)
            else:
                block.mlp.experts._expert = stacked
        return built

    @pytest.mark.parametrize("form", ["plain", "listed"])
    @pytest.mark.parametrize("batch", [1, 100])
    def test_all_products_of_each_matrix_are_measured(self, form: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
        ids, built, pruner = tiny.token_ids(6), self.twice(form), Recording()
        monkeypatch.setattr(walk, "BATCH_TOKENS", batch * ids.shape[1])
        mlp, before = built.blocks[0].mlp, copy.deepcopy(built.blocks[0].mlp.state_dict())
        with torch.no_grad():
            mlp.read.update({key: [] for key in mlp.read})
            built(ids)
        read = {key: list(tensors) for key, tensors in mlp.read.items()}
        prune(built, pruner=pruner, sparsity=0.5, calibration=ids)
        for (number, role), tensors in read.items():
            if form == "listed":
                weight = before[f"experts.{number}.{ {'gate': 'w1', 'up': 'w3', 'down': 'w2'}[role] }.weight"]
            elif role == "down":
                weight = before["experts.down_proj"][number]
            else:
                weight = before["experts.gate_up_proj"][number][slice(INNER) if role == "gate" else slice(INNER, None)]
            check(pruner.seen, weight, tensors)


class TestSharing:
    def test_processes_agree_on_what_no_process_saw_apart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        here, there = Sharing({}), Sharing({})
        one, two = torch.zeros(2, 3), torch.zeros(2, 3)
        for sharing, reads in ((here, "abc"), (there, "ab")):
            sharing.begin()
            for name in reads:
                sharing.note(name, one)
            if sharing is there:
                sharing.note("c", two)
            sharing.end()
        assert here.owners == {"a": "a", "b": "a", "c": "a"}
        both = [here.owners, there.owners]
        monkeypatch.setattr(ranks, "gather", lambda value: both if value in both else [value])
        assert there.settled()
        assert not here.settled()
        assert here.owners == there.owners == {"a": "a", "b": "a", "c": "c"}

    def test_another_tensor_in_the_same_memory_is_another(self) -> None:
        sharing = Sharing({})
        sharing.begin()
        assert sharing.note("a", torch.zeros(5, 3) + 1)
        assert sharing.note("b", torch.zeros(5, 3) + 2)

    def test_a_layer_joins_no_layer_that_was_there_in_earlier_batches(self) -> None:
        sharing, tensor = Sharing({}), torch.zeros(2, 3)
        for names in ("a", "ab"):
            sharing.begin()
            for name in names:
                sharing.note(name, tensor)
            sharing.end()
        assert sharing.owners == {"a": "a", "b": "b"}
        assert not sharing.changed
