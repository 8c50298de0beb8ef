"""Which layers choose experts and stay dense, and which are only called like it; lists of experts in other forms."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import transformers
from experts import EXPERTS, INNER, WIDTH, mixture
from refusals import raises_line
from torch import nn
from torch.nn import functional as F

from harness_ext import UnsupportedModelError, find_blocks, prune
from harness_ext.engine.coverage import check_coverage, dense_parts

MATRICES = ("w1", "w3", "w2")


class GatedFFN(nn.Module):
    """A shared expert; ``names`` are those of gate, way up and way down."""

    def __init__(self, width: int, *names: str) -> None:
        super().__init__()
        self.names, shapes = names, ((WIDTH, width), (WIDTH, width), (width, WIDTH))
        for name, shape in zip(names, shapes, strict=True):
            self.add_module(name, nn.Linear(*shape, bias=False))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        gate, up, down = (getattr(self, name) for name in self.names)
        output: torch.Tensor = down(F.silu(gate(states)) * up(states))
        return output


def changed(change: Any) -> Any:
    """A model with listed experts, each FFN of which ``change`` has changed."""
    model = mixture("listed")
    for number, block in enumerate(model.blocks):
        torch.manual_seed(number)
        change(block.mlp)
    return model.eval()


def in_ffn(model: Any) -> set[str]:
    """The layers of the first FFN that are found."""
    return {layer.name.removeprefix("blocks.0.mlp.") for layer in find_blocks(model)[0].layers if ".mlp." in layer.name}


def of_experts(group: str = "experts", items: Any = range(EXPERTS)) -> set[str]:
    return {f"{group}.{item}.{name}" for item in items for name in MATRICES}


def with_shared(width: int, *names: str) -> Any:
    def change(mlp: Any) -> None:
        mlp.shared, plain = GatedFFN(width, *names), mlp.forward
        mlp.forward = lambda states: plain(states) + mlp.shared(states)

    return changed(change)


@pytest.mark.parametrize("width", [1, EXPERTS, 5, WIDTH])
@pytest.mark.parametrize("names", [("gate_proj", "up_proj", "down_proj"), ("gate", "up", "down"), ("wg", "wu", "wd"), ("gating", "a", "b")])
def test_the_gate_of_a_shared_expert_of_any_width_is_no_router(width: int, names: tuple[str, ...]) -> None:
    model = with_shared(width, *names)
    assert in_ffn(model) == of_experts() | {f"shared.{name}" for name in names}
    record = prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(6))
    assert not any("shared." in name for name in record["dense"])
    assert {"blocks.*.mlp.gate.weight", "blocks.*.mlp.shared_expert_gate.weight"} <= set(record["dense"])


def test_also_where_it_is_beside_the_experts_and_the_router() -> None:
    def change(mlp: Any) -> None:
        mlp.up, mlp.down = nn.Linear(WIDTH, EXPERTS, bias=False), nn.Linear(EXPERTS, WIDTH, bias=False)
        mlp.shared_gate_proj = nn.Linear(WIDTH, EXPERTS, bias=False)

    model = changed(change)
    del model.blocks[0].mlp.gate, model.blocks[1].mlp.gate
    for block in model.blocks:
        block.mlp.router = nn.Linear(WIDTH, EXPERTS, bias=False)
    assert in_ffn(model) == of_experts() | {"up", "down", "shared_gate_proj"}


@pytest.mark.parametrize("name", ["gating", "wg", "out_gate", "gate_of_all", "router_of_none"])
def test_a_gate_that_writes_no_number_for_each_expert_is_no_router(name: str) -> None:
    def change(mlp: Any) -> None:
        plain = mlp.forward
        mlp.add_module(name, nn.Linear(WIDTH, WIDTH, bias=False))
        mlp.forward = lambda states: plain(states) * getattr(mlp, name)(states).sigmoid()

    model = changed(change)
    assert in_ffn(model) == of_experts() | {name}
    assert f"blocks.0.mlp.{name}" in prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(6))["layers"]


class TopRouter(nn.Module):
    """A router of two layers, with one more score than there are experts, for none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.out = nn.Linear(WIDTH, 4), nn.Linear(4, EXPERTS + 1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.out(torch.tanh(self.narrow(states)))
        return scores[:, :EXPERTS]


def test_all_layers_of_a_router_stay_dense() -> None:
    def change(mlp: Any) -> None:
        mlp.gate = TopRouter()

    model = changed(change)
    assert in_ffn(model) == of_experts()
    record = prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(6))
    assert {"blocks.*.mlp.gate.narrow.weight", "blocks.*.mlp.gate.out.weight"} <= set(record["dense"])


class Odd(nn.Linear):
    """A linear layer of its own kind, which cannot be pruned."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return super().forward(states) * 2


def test_what_is_no_router_and_stays_dense_is_counted() -> None:
    def change(mlp: Any) -> None:
        mlp.gating = Odd(WIDTH, WIDTH, bias=False)

    model = changed(change)
    with raises_line(UnsupportedModelError, "blocks.0.mlp.gating.weight (8, 8)", "would stay dense"):
        check_coverage(model, find_blocks(model))

    def choose(mlp: Any) -> None:
        mlp.gate = Odd(WIDTH, EXPERTS, bias=False)

    model = changed(choose)
    check_coverage(model, find_blocks(model))


def test_the_shared_expert_of_qwen3_next_is_pruned_at_the_size_that_is_its_default() -> None:
    config = transformers.Qwen3NextConfig(num_hidden_layers=1, layer_types=["linear_attention"])
    assert config.num_experts == config.shared_expert_intermediate_size
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    (block,) = find_blocks(model)
    names = {layer.name.rsplit(".mlp.", 1)[-1] for layer in block.layers}
    assert {f"shared_expert.{role}_proj" for role in ("gate", "up", "down")} <= names
    dense = {name.rsplit(".mlp.", 1)[-1] for name in dense_parts([block])}
    assert {"gate.weight", "shared_expert_gate.weight"} <= dense
    assert not {name for name in dense if name.startswith("shared_expert.")}


class Zero(nn.Identity):
    """An expert that returns what it reads."""


def named_otherwise(mlp: Any) -> None:
    mlp.ffns = mlp.experts
    del mlp.experts
    mlp.__dict__["experts"] = mlp.ffns  # for its forward, and no module of its own


def without_computation(mlp: Any) -> None:
    mlp.experts = nn.ModuleList([*mlp.experts, Zero(), Zero()])
    mlp.gate = nn.Linear(WIDTH, EXPERTS + 2, bias=False)


class InDictionary(nn.ModuleDict):
    """Experts by name, gone through in their order."""

    def __iter__(self) -> Any:
        return iter(self.values())


def in_a_dictionary(mlp: Any) -> None:
    mlp.experts = InDictionary({f"expert_{number}": expert for number, expert in enumerate(mlp.experts)})


def called(name: str) -> Any:
    def change(mlp: Any) -> None:
        mlp.add_module(name, mlp.gate)
        del mlp.gate
        mlp.__dict__["gate"] = getattr(mlp, name)

    return change


FORMS: dict[str, tuple[Any, str, set[str]]] = {  # the change, the router, the layers of experts
    "a list of another name": (named_otherwise, "gate", of_experts("ffns")),
    "experts without computation": (without_computation, "gate", of_experts()),
    "a dictionary": (in_a_dictionary, "gate", of_experts(items=[f"expert_{number}" for number in range(EXPERTS)])),
    "a router of another name": (called("classifier"), "classifier", of_experts()),
}


class TestForms:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("options", [{}, {"experts": "all"}, {"true_sequential": True}], ids=str)
    def test_the_router_stays_dense_and_experts_are_experts(self, form: str, options: dict[str, Any]) -> None:
        change, router, layers = FORMS[form]
        model = changed(change)
        assert in_ffn(model) == layers
        before = model.blocks[0].mlp.gate.weight.clone()
        record = prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(6), **options)
        assert f"blocks.*.mlp.{router}.weight" in record["dense"]
        assert torch.equal(model.blocks[0].mlp.gate.weight, before)
        assert all("tokens" in record["layers"][f"blocks.0.mlp.{name}"] for name in layers)
        tokens = {record["layers"][f"blocks.0.mlp.{name}"]["tokens"] for name in layers}
        assert (tokens == {tiny.token_ids(6).numel()}) is ("experts" in options)

    @pytest.mark.parametrize("form", ["a list of another name", "a dictionary", "a router of another name"])
    def test_the_form_makes_no_difference_to_the_weights(self, form: str) -> None:
        change, _, _ = FORMS[form]
        model, plain = changed(change), changed(lambda mlp: None)
        for built in (model, plain):
            prune(built, pruner="sparsegpt", sparsity=0.5, calibration=tiny.token_ids(6))
        for one, other in zip(model.blocks, plain.blocks, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(sorted_weights(one), sorted_weights(other), strict=True))

    def test_all_tokens_reach_every_expert_also_if_the_states_are_passed_by_keyword(self) -> None:
        records = []
        for by_keyword in (False, True):
            model = changed(lambda mlp: None)
            if by_keyword:
                for block in model.blocks:
                    block.mlp.forward = lambda x, plain=block.mlp.forward: plain(x)
                    block.forward = lambda hidden_states, block=block, **_: by_name(block, hidden_states)
            records.append((prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(6), experts="all"), tiny.weights(model)))
        assert tiny.same(records[0][1], records[1][1])

    def test_ffns_beside_no_layer_that_scores_them_are_no_experts(self) -> None:
        model = tiny.model()
        block = model.model.layers[0]
        block.mlps = nn.ModuleList([block.mlp, type(block.mlp)(model.config)])
        del block.mlp
        block.mlp = lambda states: block.mlps[1](block.mlps[0](states))
        block.gate = nn.Linear(tiny.WIDTH, 3)  # of three, and they are two
        found = {layer.name: layer.expert for layer in find_blocks(model)[0].layers}
        assert found["model.layers.0.gate"] is None
        assert found["model.layers.0.mlps.1.up_proj"] is None

    def test_which_of_two_is_the_router_cannot_be_told(self) -> None:
        def change(mlp: Any) -> None:
            called("one")(mlp)
            mlp.other = nn.Linear(WIDTH, EXPERTS)

        with raises_line(UnsupportedModelError, "blocks.0.mlp.one and blocks.0.mlp.other", "blocks.0.mlp.experts"):
            find_blocks(changed(change))

    def test_experts_of_several_kinds_cannot_be_told_apart(self) -> None:
        def change(mlp: Any) -> None:
            mlp.experts[1] = GatedFFN(INNER, *MATRICES)

        with raises_line(UnsupportedModelError, "blocks.0.mlp.experts", "GatedFFN, ListedExpert"):
            find_blocks(changed(change))


def by_name(block: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    states = hidden_states + torch.tanh(block.mixer(hidden_states))
    output: torch.Tensor = states + 0.1 * block.mlp(x=states)
    return output


def sorted_weights(block: nn.Module) -> list[torch.Tensor]:
    weights: list[torch.Tensor] = sorted((p.detach() for p in block.parameters()), key=lambda p: (tuple(p.shape), float(p.sum())))
    return weights
