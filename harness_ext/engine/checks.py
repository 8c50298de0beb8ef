"""What every new weight is checked for, whoever computed it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from harness_ext.engine.layers import LinearLayer
from harness_ext.errors import NumericalError, PluginError
from harness_ext.method.finite import all_finite
from harness_ext.method.pruner import Pruned
from harness_ext.method.sparsity import Sparsity


def unpack(result: Any, given: torch.Tensor, dense: torch.Tensor, dtype: torch.dtype, blame: str) -> tuple[torch.Tensor, dict[str, Any]]:
    """The new weight and the notes that a pruner returned for a layer.

    Args:
        given: what the pruner was handed.
        dense: what that should still be equal to.
        dtype: of the model's weight, which has to hold the new one.
        blame: the start of a message: whose mistake it is.

    Raises:
        PluginError: it wrote into its input, or returned something else than a weight of that shape, or notes that are not JSON.
        NumericalError: the weight is not finite in ``dtype``.
    """
    weight, notes = result if isinstance(result, Pruned) else (result, {})
    check_not_written(given, dense, blame)
    if not isinstance(weight, torch.Tensor) or weight.shape != dense.shape:
        got = tuple(weight.shape) if isinstance(weight, torch.Tensor) else type(weight).__name__
        raise PluginError(f"{blame}: want a new weight of shape {tuple(dense.shape)}, not {got}")
    check_finite(weight, dtype, blame)
    return weight, json_notes(notes, blame)


def check_not_written(given: torch.Tensor, dense: torch.Tensor, blame: str) -> None:
    """Compares the weight that a method was handed with what that should still be.

    Raises:
        PluginError: they differ.
    """
    if not torch.equal(given, dense):
        raise PluginError(f"{blame}: it wrote into the weight that it was given")


def check_finite(weight: torch.Tensor, dtype: torch.dtype, blame: str) -> None:
    """Checks that the dtype of the model holds a new weight.

    Raises:
        NumericalError: it is not finite there.
    """
    if not all_finite(weight.to(dtype)):
        raise NumericalError(f"{blame}: the new weight has NaN or infinite values in {dtype}")


def json_notes(notes: Mapping[str, Any] | None, blame: str) -> dict[str, Any]:
    """The notes, if they are JSON values.

    Raises:
        PluginError: they are not.
    """
    try:
        json.dumps(notes, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PluginError(f"{blame}: its notes are not JSON values ({error})") from error
    return dict(notes or {})


def bounds(sparsity: Sparsity, weight: torch.Tensor) -> tuple[int, int]:
    """How few and how many zeros a sparsity asks for, as it is counted: in whole weights of the matrix, or of each row."""
    counts = sparsity.removed_of(weight.numel()), weight.shape[0] * sparsity.removed_of(weight.shape[1])
    return min(counts), max(counts)


def check_zeros(weight: torch.Tensor, sparsity: Sparsity, zeros_before: int, blame: str) -> None:
    """Counts the zeros of a new weight. Those that were there before may come on top of what was asked for, and so may one in ten thousand
    that a correction of the remaining weights happens to cancel.

    Raises:
        PluginError: there are fewer or more, or they are not spread as the pattern wants.
    """
    zeros, (low, high) = int((weight == 0).sum()), bounds(sparsity, weight)
    if not low <= zeros <= high + zeros_before + weight.numel() // 10_000:
        raise PluginError(f"{blame}: sparsity {sparsity} is {high} zeros of {weight.numel()}, it left {zeros}")
    check_pattern(weight, sparsity, blame)


def check_pattern(weight: torch.Tensor, sparsity: Sparsity, blame: str) -> None:
    """Looks for groups of a pattern with too few zeros.

    Raises:
        PluginError: there are some.
    """
    if pattern := sparsity.pattern:
        n, m = pattern
        if ((weight.reshape(-1, m) == 0).sum(1) < n).any():
            raise PluginError(f"{blame}: want {n} zeros in every {m} inputs")


@contextmanager
def untouched(tensors: Iterable[torch.Tensor], what: str, blame: str) -> Iterator[None]:
    """Around the code of a plugin that may read these tensors and must not write into them.

    Goes by the version counters of torch, which cost nothing; a write through ``.data`` or NumPy does not count.

    Args:
        what: the tensors are, in words.
        blame: the start of a message: whose mistake it is.

    Raises:
        PluginError: it wrote into one of them.
    """
    before = [(tensor, tensor._version) for tensor in tensors if not tensor.is_inference()]  # which have no counter
    yield
    if any(tensor._version != version for tensor, version in before):
        raise PluginError(f"{blame}: it wrote into {what}")


def tensors_of(statistic: Any) -> list[torch.Tensor]:
    """The tensors that a statistic holds; none where there is none."""
    return [value for value in vars(statistic).values() if isinstance(value, torch.Tensor)] if statistic is not None else []


def marks(model: nn.Module, besides: Iterable[str]) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """The dtype, the shape and a checksum of each parameter and buffer, to be compared with :func:`check_marks`.

    Args:
        besides: names of those that are left out: what a pruner may change.
    """
    left_out = set(besides)
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: (str(tensor.dtype), tuple(tensor.shape), _checksum(tensor)) for name, tensor in named if name not in left_out}


def check_marks(before: Mapping[str, Any], after: Mapping[str, Any], blame: str) -> None:
    """Compares two results of :func:`marks`.

    Raises:
        PluginError: a tensor was changed, added or taken away.
    """
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            raise PluginError(f"{blame}: it changed {name}, which is not the weight of a linear layer to be pruned")


def check_modules(model: nn.Module, layers: Iterable[LinearLayer], blame: str) -> None:
    """Looks for layers that are no longer in the model, whose weights nobody would use.

    Raises:
        PluginError: another module is in the place of one of them, or none.
    """
    modules = dict(model.named_modules())
    for layer in layers:
        if modules.get(layer.module_name) is not layer.module:
            raise PluginError(f"{blame}: it replaced the module {layer.module_name}: write a new weight into it instead")


def _checksum(tensor: torch.Tensor) -> int:
    content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return zlib.crc32(content.numpy().data)
