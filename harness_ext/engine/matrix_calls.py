"""Sees the products of a computation in which given matrices take part, and what each matrix is multiplied with.

For matrices that no module of their own multiplies: the experts of a mixture, of which each is a part of one parameter, and weights that a
block uses without calling the layer that holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness_ext.engine.layers import LinearLayer
from harness_ext.errors import UnsupportedModelError

Notice = Callable[[LinearLayer, torch.Tensor], None]


class _Factor(NamedTuple):
    """One side of a matrix product, as the matrix that maps the rows of the other side."""

    matrix: torch.Tensor
    """[in, out] or [matrices, in, out]"""
    rows: torch.Tensor
    """[..., in]; with ``matrices`` of them, [matrices, ..., in], or [..., in] with ``ends``"""
    ends: torch.Tensor | None = None
    """Where the rows of each matrix end."""


class _Stack(NamedTuple):
    """The matrices that are in one parameter."""

    name: str
    parameter: torch.Tensor
    """[matrices, :, :]"""
    in_dim: int
    """Which of its dimensions is multiplied with the inputs: 1 or 2."""
    layers: dict[int, list[tuple[int, LinearLayer]]]
    """By the number of the matrix: the first row of each layer in [outputs, inputs], and the layer."""


class MatrixCalls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this context, calls ``notice(layer, inputs)`` for each product with the weight of a layer.

    Of layers that the computation multiplies as one matrix, such as the gate and up projections of an expert, it is called with each.
    ``inputs`` are [tokens, in_features] in the dtype of the computation. Where all experts are multiplied at once with as many rows each,
    rows of zeros are those of tokens that were not sent to the expert, and are left out.

    Args:
        layers: their weights are in place, and stay there within the context.

    Raises:
        UnsupportedModelError: a matrix is used the other way round than it was taken to be stored; names the layer.
    """

    def __init__(self, layers: Sequence[LinearLayer], notice: Notice) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._notice = notice
        self.touched: set[str] = set()
        """The full names of the parameters that took part in a product, also where that was with another part than those of the layers."""
        self._stacks: dict[int, list[_Stack]] = {}  # by where their memory begins
        stacks: dict[int, _Stack] = {}
        for layer in layers:
            key = id(layer.stored)
            if key not in stacks:
                stacks[key] = _stack(layer)
                self._stacks.setdefault(stacks[key].parameter.untyped_storage().data_ptr(), []).append(stacks[key])
            number = layer.place.number if layer.place else 0
            first = layer.place.rows.start or 0 if layer.place else 0
            stacks[key].layers.setdefault(number, []).append((first, layer))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for factor in _factors(func, args):
            for stack in self._stacks.get(factor.matrix.untyped_storage().data_ptr(), ()):
                if 0 <= _offset(stack, factor.matrix) < stack.parameter.numel():
                    self.touched.add(stack.name)
                    self._look(stack, factor)
        return func(*args, **(kwargs or {}))

    def _look(self, stack: _Stack, factor: _Factor) -> None:
        matrix, rows, ends = factor
        if matrix.ndim == 3 and matrix.stride(0) == 0:  # one matrix for all
            matrix = matrix[0]
        if matrix.ndim == 2:
            for layer in _covered(stack, matrix):
                self._tell(layer, rows)
            return
        stops = [0, *ends.tolist()] if ends is not None else []
        for number in range(len(matrix)):
            own = rows[number] if ends is None else rows[stops[number] : stops[number + 1]]
            covered = list(_covered(stack, matrix[number]))
            if ends is None and any(layer.expert for layer in covered):
                own = own[(own != 0).any(-1)]
            for layer in covered:
                self._tell(layer, own)

    def _tell(self, layer: LinearLayer, rows: torch.Tensor) -> None:
        inputs = rows.reshape(-1, rows.shape[-1])
        if len(inputs):
            self._notice(layer, inputs)


def _stack(layer: LinearLayer) -> _Stack:
    """The parameter that a layer is in."""
    stored = layer.stored.data
    parameter = layer.place.stack(stored) if layer.place else stored[None]
    weight = layer.weight
    return _Stack(layer.parameter_name, parameter, 2 if weight.stride(1) == parameter.stride(2) else 1, {})


def _covered(stack: _Stack, matrix: torch.Tensor) -> Iterator[LinearLayer]:
    """The layers whose first row is in ``matrix``, [in, out], which is a part of a parameter, or several.

    Raises:
        UnsupportedModelError: ``matrix`` is such a part, transposed.
    """
    whole = stack.parameter
    offset = _offset(stack, matrix)
    in_dim, out_dim = stack.in_dim, 3 - stack.in_dim
    number, place = divmod(offset, whole.stride(0))
    if matrix.shape[0] != whole.shape[in_dim] or (matrix.shape[0] > 1 and matrix.stride(0) != whole.stride(in_dim)):
        if matrix.shape[0] == whole.shape[out_dim] and matrix.stride(0) == whole.stride(out_dim) and number in stack.layers:
            layer = stack.layers[number][0][1]
            raise UnsupportedModelError(
                f"{layer.parameter_name} {tuple(layer.stored.shape)} is used the other way round than it seems to be stored: "
                "it cannot be pruned"
            )
        return
    step = max(1, matrix.stride(1) // whole.stride(out_dim))
    first, size = place // whole.stride(out_dim), whole.shape[out_dim]
    last = first + step * (matrix.shape[1] - 1)
    for expert in range(number, number + 1 + last // size if out_dim == 1 else number + 1):
        for row, layer in sorted(stack.layers.get(expert, ()), key=lambda pair: pair[0]):
            distance = row + (expert - number) * size - first
            if 0 <= distance <= last - first and distance % step == 0:
                yield layer


def _offset(stack: _Stack, matrix: torch.Tensor) -> int:
    """Where a tensor of the same storage begins, in elements from the beginning of the parameter."""
    return (matrix.data_ptr() - stack.parameter.data_ptr()) // stack.parameter.element_size()


def _factors(func: Any, args: Any) -> Iterator[_Factor]:
    """The two ways to look at a matrix product: ``left @ right`` maps the rows of ``left``, or the columns of ``right``."""
    name = func._schema.name
    if name in ("aten::mm", "aten::bmm", "aten::matmul"):
        left, right = args[0], args[1]
    elif name in ("aten::addmm", "aten::baddbmm", "aten::addbmm"):
        left, right = args[1], args[2]
    elif name in ("aten::mv", "aten::addmv"):
        left, right = args[-2], args[-1][:, None]
    elif name == "aten::linear":
        left, right = args[0], args[1].mT
    elif name in ("aten::_grouped_mm", "transformers::grouped_mm_fallback"):
        if len(args) > 2 and args[0].ndim == 2 and args[1].ndim == 3:
            yield _Factor(args[1], args[0], args[2])
        return
    else:
        return
    if right.ndim in (2, 3):
        yield _Factor(right, left)
    if left.ndim in (2, 3):
        yield _Factor(left.mT, right.mT)
