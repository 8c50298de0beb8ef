"""The weights that the codes of a quantizer stand for, and what codes, scales and zero points are checked for."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from harness_ext.engine.checks import bounds, check_finite, check_not_written, check_pattern
from harness_ext.errors import PluginError
from harness_ext.method.grid import Grid
from harness_ext.method.quantizer import Quantized, Quantizer
from harness_ext.method.sparsity import Sparsity


class Dequantised(NamedTuple):
    """The values of codes."""

    weight: torch.Tensor
    """[out_features, in_features], in the dtype of the arithmetic."""
    zeros: int
    """How many weights the mask removes."""
    rounded_to_zero: int
    """How many other weights are 0."""


def dequantise(
    result: Any,
    given: torch.Tensor,
    dense: torch.Tensor,
    dtype: torch.dtype,
    quantizer: Quantizer,
    bits: int,
    sparsity: Sparsity,
    blame: str,
) -> Dequantised:
    """The weight that a quantizer's codes stand for: ``(code - zero_point) * scale``, so that it is on the grid of its group.

    Args:
        result: what the quantizer returned.
        given: what the quantizer was handed.
        dense: what that should still be equal to.
        dtype: of the model's weight, which has to hold the new one.
        blame: the start of a message: whose mistake it is.

    Raises:
        PluginError: a code or a zero point is not among the ``2**bits``, a shape or dtype is wrong, a scale is not above 0, the mask does
            not remove what was asked for, or a removed weight is not 0.
        NumericalError: the new weight is not finite in ``dtype``.
    """
    check_not_written(given, dense, blame)
    if not isinstance(result, Quantized):
        raise PluginError(f"{blame}: want a harness_ext.Quantized, not {type(result).__name__}")
    groups = quantizer.groups_of(dense.shape[1])
    of_groups = len(dense), groups
    for name, shape in (("codes", tuple(dense.shape)), ("scales", of_groups), ("zero_points", of_groups)):
        _check_shape(getattr(result, name), shape, name, blame)
    for name in ("codes", "zero_points"):
        _check_whole(getattr(result, name), 2**bits - 1, name, f"{bits} bits hold", blame)
    if not result.scales.is_floating_point() or not (result.scales.isfinite() & (result.scales > 0)).all():
        raise PluginError(f"{blame}: want scales that are finite and above 0")
    group_of = _group_of(result, quantizer, dense.shape[1], blame).to(dense.device)
    scales, zero_points = (tensor.to(dense.device, dense.dtype)[:, group_of] for tensor in (result.scales, result.zero_points))
    weight = Grid(scales, zero_points, bits).values(result.codes.to(dense.device, dense.dtype))
    zeros = _check_mask(result.mask, weight, sparsity, blame)
    check_finite(weight, dtype, blame)
    return Dequantised(weight, zeros, int((weight == 0).sum()) - zeros)


def _check_shape(tensor: Any, shape: tuple[int, ...], name: str, blame: str) -> None:
    if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != shape:
        got = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise PluginError(f"{blame}: want {name} of shape {shape}, not {got}")


def _check_whole(tensor: torch.Tensor, most: int, name: str, why: str, blame: str) -> None:
    """Checks that numbers are whole and from 0 to ``most``."""
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise PluginError(f"{blame}: want {name} of an integer dtype such as torch.uint8, not {tensor.dtype}")
    if tensor.min() < 0 or tensor.max() > most:
        raise PluginError(f"{blame}: want {name} from 0 to {most}, which {why}, not from {int(tensor.min())} to {int(tensor.max())}")


def _group_of(result: Quantized, quantizer: Quantizer, inputs: int, blame: str) -> torch.Tensor:
    """The group of each input, int64 [inputs]."""
    width = quantizer.width_of_group(inputs)
    consecutive = torch.arange(inputs) // width
    if result.group_of is None:
        return consecutive
    _check_shape(result.group_of, (inputs,), "group_of", blame)
    _check_whole(result.group_of, quantizer.groups_of(inputs) - 1, "group_of", f"number the groups of {inputs} inputs", blame)
    group_of = result.group_of.long().cpu()
    if not torch.equal(group_of.sort().values, consecutive):
        raise PluginError(f"{blame}: group_of does not put {width} inputs into each group, and the rest into the last")
    return group_of


def _check_mask(mask: Any, weight: torch.Tensor, sparsity: Sparsity, blame: str) -> int:
    """Checks that a mask removes what was asked for, and that removed weights are 0. Returns how many it removes."""
    if mask is None:
        mask = torch.zeros_like(weight, dtype=torch.bool)
    _check_shape(mask, tuple(weight.shape), "mask", blame)
    if mask.dtype != torch.bool:
        raise PluginError(f"{blame}: want a mask of torch.bool, not of {mask.dtype}")
    mask = mask.to(weight.device)
    low, high = bounds(sparsity, weight)
    zeros = int(mask.sum())
    if not low <= zeros <= high:
        raise PluginError(f"{blame}: sparsity {sparsity} is {high} removed weights of {weight.numel()}, its mask has {zeros}")
    check_pattern(~mask, sparsity, blame)
    if weight[mask].any():
        raise PluginError(f"{blame}: a weight that its mask removes is not 0: want the zero point as the code")
    return zeros
