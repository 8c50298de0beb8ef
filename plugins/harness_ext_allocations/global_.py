"""One threshold for all layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from harness_ext import (
    Allocation,
    BadOptionError,
    LayerShape,
    Measured,
    NumericalError,
    PluginError,
    Pruner,
    PruningMethod,
    Sparsity,
    Statistic,
)


class Global(Allocation):
    """Compares the pruner's scores over all selected layers: a layer loses as many weights as it has among the lowest of all.

    The scores are those of the dense model and its activations. Of equal scores the first in the order of the model goes first, so that
    with ``magnitude`` the result is global magnitude pruning, weight by weight. A layer keeps at least one weight. A pruner that compares
    its scores by row, as ``wanda`` does, takes the layer's ratio from each of its rows.

    All scores are kept in host memory as float32: 4 bytes for each weight of the selected layers.
    """

    name: ClassVar[str] = "global"
    patterns: ClassVar[bool] = False

    def check(self, pruner: PruningMethod) -> None:
        if not isinstance(pruner, Pruner) or type(pruner).score is Pruner.score:
            raise BadOptionError(
                f"allocation='global' compares scores, which pruner {pruner.name!r} does not give: want one that overrides score, "
                "such as magnitude or wanda"
            )

    def measures(self, pruner: PruningMethod) -> type[Statistic] | None:
        return pruner.measures()

    def measure(self, block: Sequence[Measured], pruner: PruningMethod) -> dict[str, torch.Tensor]:
        """The scores of each layer: float32 [rows * columns] on the CPU.

        Raises:
            NumericalError: a score is NaN.
            PluginError: the scores are not of the shape of the weight.
        """
        scores_of = {}
        for layer, weight, statistic in block:
            if not isinstance(pruner, Pruner):
                raise PluginError(f"pruner {pruner.name!r} gives no scores")
            scores = pruner.score(weight, statistic)
            if not isinstance(scores, torch.Tensor) or scores.shape != weight.shape:
                got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
                raise PluginError(f"pruner {pruner.name!r} on {layer.name}: want scores of shape {tuple(weight.shape)}, not {got}")
            if scores.isnan().any():
                raise NumericalError(f"pruner {pruner.name!r} on {layer.name}: scores are NaN")
            # Adding zero makes -0.0 and 0.0 one value, and a copy that does not keep the weight alive.
            scores_of[layer.name] = (scores.detach().to("cpu", torch.float32) + 0.0).flatten()
        return scores_of

    def spread(
        self, sparsity: Sparsity, layers: Sequence[LayerShape], measured: Mapping[int, Mapping[str, torch.Tensor]]
    ) -> Mapping[str, float | Sparsity]:
        scores = [measured[layer.block][layer.name] for layer in layers]
        counts = counts_below(scores, sparsity.removed_of(sum(layer.size for layer in layers)))
        return {layer.name: sparsity_of(min(count, layer.size - 1), layer.size) for layer, count in zip(layers, counts, strict=True)}


def counts_below(scores: Sequence[torch.Tensor], count: int) -> list[int]:
    """How many of the ``count`` lowest scores of all are in each tensor; among equal scores the first ones are taken.

    Args:
        scores: float32 [size] each, on the CPU, without NaN and without negative zeros.
    """
    if count == 0:
        return [0] * len(scores)
    threshold = _kth_lowest(scores, count)
    below = [int((part < threshold).sum()) for part in scores]
    missing = count - sum(below)
    for index, part in enumerate(scores):
        ties = min(missing, int((part == threshold).sum()))
        below[index] += ties
        missing -= ties
    return below


def _kth_lowest(scores: Sequence[torch.Tensor], count: int) -> float:
    """The ``count``-th lowest value of all, counted from 1, without a second copy of the scores.

    The bits of a float, read as an integer, have its order if those of negative numbers are turned round. The upper 16 of them are found
    by counting how often each occurs, then the lower 16 among the scores with these upper ones.
    """
    counts = sum(torch.bincount((_ordered(part) >> 16) + 2**15, minlength=2**16) for part in scores)
    upper, before = _bin_of(counts, count)  # type: ignore[arg-type]
    counts = sum(
        torch.bincount(keys[keys >> 16 == upper - 2**15] & 0xFFFF, minlength=2**16) for keys in (_ordered(part) for part in scores)
    )
    lower, _ = _bin_of(counts, count - before)  # type: ignore[arg-type]
    key = torch.tensor([(upper - 2**15) * 2**16 + lower], dtype=torch.int32)
    return float(_turn(key).view(torch.float32))


def _bin_of(counts: torch.Tensor, count: int) -> tuple[int, int]:
    """The bin that the ``count``-th of the counted things is in, and how many are in the bins before."""
    cumulative = counts.cumsum(0)
    index = int(torch.searchsorted(cumulative, count))
    return index, int(cumulative[index] - counts[index])


def _ordered(scores: torch.Tensor) -> torch.Tensor:
    return _turn(scores.view(torch.int32))


def _turn(bits: torch.Tensor) -> torch.Tensor:
    """Turns the order of the negative ones round, and back if done twice."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def sparsity_of(count: int, size: int) -> Sparsity:
    """The ratio of which ``removed_of(size)`` is ``count``: the quotient, or the next float where that is rounded down."""
    ratio = count / size
    while Sparsity(ratio).removed_of(size) < count:
        ratio = math.nextafter(ratio, 1.0)
    return Sparsity(ratio)
