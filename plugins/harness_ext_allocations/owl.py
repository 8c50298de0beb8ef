"""Outlier weighed layer-wise sparsity (Yin et al., arXiv 2310.05175)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from harness_ext import Allocation, BadOptionError, ChannelNorms, LayerShape, Measured, PruningMethod, Sparsity

HIGHEST = 0.99  # of a block's weights, whatever its share of outliers


class OWL(Allocation):
    """Removes less from the decoder blocks that have more outliers (section 3.2); all matrices of a block have one ratio.

    The score of a weight is ``|W_ij| * ||X_j||_2``, and an outlier is one above ``threshold`` times the mean over the selected matrices of
    the block. The shares of outliers of the blocks are rescaled linearly to ``[0, 2 * margin]``; a block is pruned to the asked ratio less
    what its rescaled share is above their mean, where each block counts by its number of weights, so that the total is what was asked for.

    Ratios that would leave [0, 0.99] stop there, and all others move by the same amount until the total is right again. Where all blocks
    have the same share, each gets the asked ratio. With a pattern ``n:m`` a block's ratio is at most ``(m - 1) / m``, and the rounding to
    whole ``n`` may give matrices of one block an ``n`` that differs by one.
    """

    name: ClassVar[str] = "owl"
    statistic: ClassVar[type[ChannelNorms]] = ChannelNorms
    threshold: float = 5.0
    """``M`` of the paper: how many times the mean score an outlier is above."""
    margin: float = 0.08
    """``lambda`` of the paper: half the distance between the ratios of the blocks with the most and the fewest outliers."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < math.inf:
            raise BadOptionError(f"allocation.threshold={self.threshold}: want a multiple of the mean score above 0, such as 5")
        if not 0 <= self.margin <= 0.5:
            raise BadOptionError(f"allocation.margin={self.margin}: want a ratio of at least 0 and at most 0.5, such as 0.08")

    def measure(self, block: Sequence[Measured], pruner: PruningMethod) -> float:
        """The share of outliers among all weights of the block, in [0, 1]."""
        size = sum(measured.layer.size for measured in block)
        # The scores are computed twice, so that only one matrix of them is in memory at a time.
        limit = self.threshold * sum(float(_scores(measured).sum(dtype=torch.float64)) for measured in block) / size
        return sum(int((_scores(measured) > limit).sum()) for measured in block) / size

    def check_layers(self, sparsity: Sparsity, layers: Sequence[LayerShape]) -> None:
        """Refuses a ratio above what a block may lose.

        Raises:
            BadOptionError: it is.
        """
        if sparsity.ratio > (highest := _highest(sparsity)):
            raise BadOptionError(f"sparsity={sparsity}: allocation 'owl' removes at most {highest} of a block: want a ratio up to that")

    def spread(self, sparsity: Sparsity, layers: Sequence[LayerShape], measured: Mapping[int, float]) -> Mapping[str, float | Sparsity]:
        """As described above.

        Raises:
            BadOptionError: the asked ratio is above what a block may lose.
        """
        sizes: dict[int, int] = {}
        for layer in layers:
            sizes[layer.block] = sizes.get(layer.block, 0) + layer.size
        fewest, most = min(measured[block] for block in sizes), max(measured[block] for block in sizes)
        if fewest == most:
            return {layer.name: sparsity for layer in layers}
        self.check_layers(sparsity, layers)
        highest = _highest(sparsity)
        rescaled = {block: 2 * self.margin * (measured[block] - fewest) / (most - fewest) for block in sizes}
        total = sum(sizes.values())
        mean = sum(size * rescaled[block] for block, size in sizes.items()) / total
        wanted = {block: sparsity.ratio - (rescaled[block] - mean) for block in sizes}
        ratios = _keep_within(wanted, sizes, sparsity.ratio * total, highest)
        return {layer.name: ratios[layer.block] for layer in layers}


def _highest(sparsity: Sparsity) -> float:
    """The most that a block may lose."""
    return (sparsity.pattern[1] - 1) / sparsity.pattern[1] if sparsity.pattern else HIGHEST


def _scores(measured: Measured) -> torch.Tensor:
    """[rows, columns]."""
    scores: torch.Tensor = measured.weight.abs() * measured.statistic.norms
    return scores


def _keep_within(wanted: Mapping[int, float], sizes: Mapping[int, int], removed: float, highest: float) -> Mapping[int, float]:
    """Ratios in [0, highest] that remove that many weights: all are moved by one amount, which is found by bisection, and then cut off."""
    if all(0 <= ratio <= highest for ratio in wanted.values()):
        return wanted

    def moved(by: float) -> dict[int, float]:
        return {block: min(max(ratio + by, 0.0), highest) for block, ratio in wanted.items()}

    low, high = -max(wanted.values()), highest - min(wanted.values())
    for _ in range(100):
        middle = (low + high) / 2
        if sum(size * ratio for size, ratio in zip(sizes.values(), moved(middle).values(), strict=True)) < removed:
            low = middle
        else:
            high = middle
    return moved(high)
