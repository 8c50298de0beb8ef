"""The pruner ``torch``: the methods of ``torch.nn.utils.prune``, one matrix at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import tiny
import torch
from harness_ext_torch.torch_prune import TorchPrune
from refusals import raises_line
from torch import nn
from torch.nn.utils import prune as torch_prune

import harness_ext
from harness_ext import BadOptionError, Pruned, Sparsity
from harness_ext.engine.layers import find_blocks
from harness_ext.engine.plan import make_plan
from harness_ext.plugins import Plugins
from harness_ext.testing import PrunerContract

COLUMNS = {"method": "ln_structured", "n": 2, "dim": 1}


class Unpatterned(PrunerContract):
    """torch has no method for a pattern."""

    pruner = "torch"
    patterns = ()

    def test_it_keeps_to_patterns(self) -> None:
        for pattern in ("1:4", "2:4"):
            with raises_line(BadOptionError, f"sparsity={pattern}", "torch.nn.utils.prune"):
                harness_ext.prune(tiny.model(), pruner=self.pruner_for(None, Sparsity(0.5)), sparsity=pattern)


class TestMagnitude(Unpatterned):
    pass


class TestRandom(Unpatterned):
    options: ClassVar = {"method": "random_unstructured"}


class TestColumns(Unpatterned):
    options: ClassVar = COLUMNS


del Unpatterned


def weight(rows: int = 24, columns: int = 16) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def pruned(sparsity: float, of: torch.Tensor, **options: Any) -> torch.Tensor:
    result = TorchPrune(**options).prune(of, Sparsity(sparsity), None)
    assert isinstance(result, Pruned)
    assert result.notes == {"torch": torch.__version__}
    return result.weight


def by_torch(of: torch.Tensor, function: Callable[..., nn.Module], **arguments: Any) -> torch.Tensor:
    layer = nn.Linear(of.shape[1], of.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(of)
    function(layer, "weight", **arguments)
    torch_prune.remove(layer, "weight")
    return layer.weight.detach()


@pytest.mark.parametrize("count", [0, 1, 100, 383])
def test_l1_unstructured_is_what_torch_does_with_the_exact_count(count: int) -> None:
    of = weight()
    assert torch.equal(pruned((count + 0.5) / of.numel(), of), by_torch(of, torch_prune.l1_unstructured, amount=count))


def test_the_count_is_the_floor_where_torch_would_round_up() -> None:
    of = weight(3, 3)
    assert int((by_torch(of, torch_prune.l1_unstructured, amount=0.4) == 0).sum()) == 4  # of 3.6
    assert int((pruned(0.4, of) == 0).sum()) == 3


@pytest.mark.parametrize("n", [1, 2, "inf", "-inf", "fro"])
@pytest.mark.parametrize("dim", [0, 1])
def test_ln_structured_removes_the_rows_or_columns_of_the_least_norm(n: Any, dim: int) -> None:
    of = weight()
    norms = torch.linalg.vector_norm(of, ord=2 if n == "fro" else float(n), dim=1 - dim)
    gone = norms.argsort()[: of.shape[dim] // 2]
    wanted = of.index_fill(dim, gone, 0)
    assert torch.equal(pruned(0.5, of, method="ln_structured", n=n, dim=dim), wanted)


@pytest.mark.parametrize("dim", [0, 1])
def test_random_structured_removes_whole_slices_that_the_seed_decides(dim: int) -> None:
    of = weight()
    options = {"method": "random_structured", "dim": dim}
    found = [pruned(0.5, of, seed=seed, **options) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    for one in found:
        kept = (one != 0).all(1 - dim)
        assert int(kept.sum()) == of.shape[dim] // 2
        assert torch.equal(one, of * kept.unsqueeze(1 - dim))


@pytest.mark.parametrize("options", [{}, {"method": "random_unstructured"}, {"method": "random_structured", "dim": 1}, COLUMNS])
def test_the_global_random_state_and_the_weight_are_left_alone(options: dict[str, Any]) -> None:
    of = weight()
    before = of.clone()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one = pruned(0.5, of, **options)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert torch.equal(pruned(0.5, of, **options), one)
    assert torch.equal(of, before)


def test_layers_of_one_shape_lose_different_places_at_random() -> None:
    one, other = weight(), weight().flip(0)
    assert not torch.equal(*(pruned(0.5, of, method="random_unstructured") == 0 for of in (one, other)))


def test_columns_lose_in_every_row_what_wanda_takes_from_it() -> None:
    of = weight(24, 15)
    assert ((pruned(0.7, of, **COLUMNS) == 0).sum(1) == 10).all()


def test_rows_that_do_not_come_to_the_sparsity_are_refused_with_the_nearest_that_does() -> None:
    of = weight(10, 64)
    rows = COLUMNS | {"dim": 0}
    with raises_line(BadOptionError, "sparsity=0.55", "pruner.dim=1", "0.5", "0.6"):
        pruned(0.55, of, **rows)
    for near in (0.5, 0.6):
        assert int((pruned(near, of, **rows) == 0).all(1).sum()) == near * 10


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_whole_models_are_pruned_in_the_layers_that_were_chosen(name: str) -> None:
    model = tiny.model(name)
    record = harness_ext.prune(model, pruner="torch", pruner_options=COLUMNS, sparsity=0.5, modules="ffn")
    chosen = {layer.name for block in find_blocks(model, "ffn") for layer in block.layers}
    assert record["layers"].keys() == chosen
    for block in find_blocks(model):
        for layer in block.layers:
            assert int((layer.weight == 0).all(0).sum()) == (layer.in_features // 2 if layer.name in chosen else 0)
    assert all(entry["torch"] == torch.__version__ for entry in record["layers"].values())


def test_every_method_of_torch_for_one_tensor_is_found_and_a_new_one_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def last_rows(module: nn.Module, name: str, amount: int, dim: int) -> nn.Module:
        mask = torch.ones_like(getattr(module, name))
        mask.narrow(dim, mask.shape[dim] - amount, amount).zero_()
        return torch_prune.custom_from_mask(module, name, mask)

    monkeypatch.setattr(torch_prune, "last_rows", last_rows, raising=False)
    with pytest.raises(BadOptionError) as caught:
        TorchPrune(method="none_such")
    listed = str(caught.value).split("It has: ")[1].split(", ")
    assert set(listed) == {"l1_unstructured", "random_unstructured", "ln_structured", "random_structured", "last_rows"}
    of = weight()
    assert torch.equal(pruned(0.5, of, method="last_rows", dim=0), of.index_fill(0, torch.arange(12, 24), 0))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"method": "l1"}, ["pruner.method='l1'", "Did you mean 'l1_unstructured'"]),
        ({"method": "global_unstructured"}, ["'global_unstructured'", "'magnitude'", "allocation=global"]),
        ({"method": "_validate_pruning_amount"}, ["'_validate_pruning_amount'"]),
        ({"method": "ln_structured", "dim": 0}, ["ln_structured", "pruner.n"]),
        ({"method": "ln_structured", "n": 2}, ["ln_structured", "pruner.dim"]),
        ({"method": "random_structured", "dim": 0, "n": 2}, ["pruner.n=2", "random_structured", "pruner.dim"]),
        ({"dim": 0}, ["pruner.dim=0", "l1_unstructured"]),
        ({"method": "ln_structured", "n": 2, "dim": 2}, ["pruner.dim=2", "0"]),
        ({"method": "ln_structured", "n": "large", "dim": 0}, ["pruner.n='large'", "ln_structured"]),
        ({"method": "random_unstructured", "seed": -1}, ["pruner.seed=-1"]),
        ({"seed": 1}, ["pruner.seed=1", "l1_unstructured"]),
        ({"method": 3}, ["pruner.method=3"]),
    ],
)
def test_wrong_options_are_one_line_before_a_model_is_loaded(options: dict[str, Any], parts: list[str]) -> None:
    state = torch.get_rng_state()
    with raises_line(BadOptionError, *parts):
        make_plan(Plugins(), pruner="torch", sparsity=0.5, pruner_options=options)
    assert torch.equal(torch.get_rng_state(), state)
