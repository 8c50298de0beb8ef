"""What is seen of the products of a computation, for all the ways to write one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness_ext.engine.experts import Expert, Place
from harness_ext.engine.layers import LinearLayer
from harness_ext.engine.matrix_calls import MatrixCalls
from harness_ext.errors import UnsupportedModelError

EXPERTS, OUT, IN, TOKENS = 3, 4, 6, 5


class Holder(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape), requires_grad=False)


def layer(
    module: nn.Module, expert: int | None = None, *, transposed: bool = False, rows: slice = slice(None), name: str = "it"
) -> LinearLayer:
    if expert is None:
        return LinearLayer(name, "ffn", module)
    return LinearLayer(name, "ffn", module, Expert("group", expert, EXPERTS, "", ""), "weight", Place(expert, EXPERTS, transposed, rows))


def seen(layers: list[LinearLayer], compute: Callable[[], Any]) -> list[tuple[str, torch.Tensor]]:
    found: list[tuple[str, torch.Tensor]] = []
    with torch.no_grad(), MatrixCalls(layers, lambda layer, inputs: found.append((layer.name, inputs.clone()))):
        compute()
    return found


X = torch.randn(TOKENS, IN)
WAYS: dict[str, Callable[[torch.Tensor], Any]] = {
    "linear": lambda w: F.linear(X, w),
    "linear with a bias": lambda w: F.linear(X, w, torch.zeros(OUT)),
    "of three dimensions": lambda w: F.linear(X.view(1, TOKENS, IN), w),
    "a product with the transpose": lambda w: X @ w.T,
    "a product from the left": lambda w: w @ X.T,
    "from the left, of three dimensions": lambda w: w @ X.view(1, TOKENS, IN).mT,
    "einsum": lambda w: torch.einsum("ti,oi->to", X, w),
    "tensordot": lambda w: torch.tensordot(X, w, dims=([1], [1])),
    "addmm": lambda w: torch.addmm(torch.zeros(OUT), X, w.T),
    "rows in two parts": lambda w: (F.linear(X, w[: OUT // 2]), F.linear(X, w[OUT // 2 :])),
    "every other row": lambda w: (F.linear(X, w[::2]), F.linear(X, w[1::2])),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_a_whole_parameter(way: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "X", X.to(dtype))
    module = Holder(OUT, IN).to(dtype)
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *shape: zeros(*shape, dtype=dtype))
    ((name, inputs),) = seen([layer(module)], lambda: WAYS[way](module.weight))
    assert name == "it"
    assert torch.equal(inputs, X)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("expert", range(EXPERTS))
def test_one_of_several_matrices(way: str, expert: int) -> None:
    module = Holder(EXPERTS, OUT, IN)
    layers = [layer(module, number, name=str(number)) for number in range(EXPERTS)]
    ((name, inputs),) = seen(layers, lambda: WAYS[way](module.weight[expert]))
    assert name == str(expert)
    assert torch.equal(inputs, X)


@pytest.mark.parametrize("expert", range(EXPERTS))
def test_one_that_is_stored_transposed(expert: int) -> None:
    module = Holder(EXPERTS, IN, OUT)
    layers = [layer(module, number, transposed=True, name=str(number)) for number in range(EXPERTS)]
    ((name, inputs),) = seen(layers, lambda: X @ module.weight[expert])
    assert name == str(expert)
    assert torch.equal(inputs, X)


def test_one_of_matrices_below_each_other() -> None:
    module = Holder(EXPERTS * OUT, IN)
    layers = [layer(module, number, name=str(number)) for number in range(EXPERTS)]
    ((name, _),) = seen(layers, lambda: X @ module.weight.view(EXPERTS, OUT, IN)[1].T)
    assert name == "1"


def test_of_matrices_that_are_multiplied_as_one_each_is_told() -> None:
    module = Holder(EXPERTS, OUT, IN)
    halves = [layer(module, 1, rows=rows, name=name) for name, rows in (("up", slice(2, None)), ("gate", slice(2)))]
    assert [name for name, _ in seen(halves, lambda: F.linear(X, module.weight[1]))] == ["gate", "up"]
    assert [name for name, _ in seen(halves, lambda: F.linear(X, module.weight[1, :2]))] == ["gate"]
    assert [name for name, _ in seen(halves, lambda: F.linear(X, module.weight[1, 2:]))] == ["up"]


def test_of_all_at_once_rows_of_zeros_are_left_out() -> None:
    module, inputs = Holder(EXPERTS, IN, OUT), torch.randn(EXPERTS, TOKENS, IN)
    inputs[1, 2:] = 0
    inputs[2] = 0
    layers = [layer(module, number, transposed=True, name=str(number)) for number in range(EXPERTS)]
    (zero, first), (one, second) = seen(layers, lambda: torch.bmm(inputs, module.weight))
    assert (zero, one) == ("0", "1")
    assert torch.equal(first, inputs[0])
    assert torch.equal(second, inputs[1, :2])


def test_in_groups_each_has_its_own_rows() -> None:
    module, ends = Holder(EXPERTS, OUT, IN).to(torch.bfloat16), torch.tensor([2, 2, 5], dtype=torch.int32)
    layers = [layer(module, number, name=str(number)) for number in range(EXPERTS)]
    rows = torch.randn(TOKENS, IN).to(torch.bfloat16)

    def compute() -> None:
        from transformers.integrations.moe import _grouped_mm_fallback  # noqa: F401 (registers the operation)

        torch.ops.transformers.grouped_mm_fallback(rows, module.weight.mT, offs=ends)

    (zero, first), (two, last) = seen(layers, compute)
    assert (zero, two) == ("0", "2")
    assert torch.equal(first, rows[:2])
    assert torch.equal(last, rows[2:])


def test_one_matrix_for_several_batches() -> None:
    module, inputs = Holder(OUT, IN), torch.randn(2, TOKENS, IN)
    ((_, rows),) = seen([layer(module)], lambda: torch.matmul(module.weight, inputs.mT))
    assert torch.equal(rows, inputs.reshape(-1, IN))


NO_PRODUCTS = [lambda w: w.sum(), lambda w: w * 2, lambda w: w[:, 0], lambda w: w.clone() @ X.T, lambda w: F.linear(X[:0], w)]


@pytest.mark.parametrize("compute", NO_PRODUCTS)
def test_what_is_no_product_with_a_token_is_not_seen(compute: Any) -> None:
    module = Holder(OUT, IN)
    assert seen([layer(module)], lambda: compute(module.weight)) == []


def test_products_of_others_are_not_seen() -> None:
    module, other = Holder(OUT, IN), Holder(OUT, IN)
    assert seen([layer(module)], lambda: F.linear(X, other.weight)) == []


def test_tensors_of_one_storage_are_told_apart() -> None:
    memory = torch.randn(2 * OUT * IN)
    modules = [Holder(1), Holder(1)]
    for number, module in enumerate(modules):
        module.weight.data = memory[number * OUT * IN : (number + 1) * OUT * IN].view(OUT, IN)
    layers = [layer(module, name=str(number)) for number, module in enumerate(modules)]
    assert [name for name, _ in seen(layers, lambda: F.linear(X, modules[1].weight))] == ["1"]


def test_a_matrix_that_is_used_the_other_way_round_is_an_error() -> None:
    module = Holder(EXPERTS, OUT, IN)
    with pytest.raises(UnsupportedModelError, match=r"group\.weight \(3, 4, 6\) is used the other way round") as error:
        seen([layer(module, number) for number in range(EXPERTS)], lambda: torch.randn(TOKENS, OUT) @ module.weight[1])
    assert "\n" not in str(error.value)


def test_nothing_is_computed_otherwise() -> None:
    module = Holder(EXPERTS, OUT, IN)
    expected = F.linear(X, module.weight[1])
    with torch.no_grad(), MatrixCalls([layer(module, 1)], lambda *_: None):
        assert torch.equal(F.linear(X, module.weight[1]), expected)
