"""How sparsity should be spread over layers, written from the papers in float64, without a line of the code under test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def outlier_share(weights: Sequence[Matrix], inputs: Sequence[Matrix], threshold: float) -> float:
    """Section 3.2 of arXiv 2310.05175 for one block: the share of scores ``|W_ij| * ||X_j||_2`` above ``M`` times their mean.

    Weights are [outputs, inputs], inputs are [tokens, inputs].
    """
    scores = []
    for weight, tokens in zip(weights, inputs, strict=True):
        for row in weight:
            for j, value in enumerate(row):
                scores.append(abs(value) * np.sqrt(np.sum(tokens[:, j] ** 2)))
    mean = sum(scores) / len(scores)
    return sum(score > threshold * mean for score in scores) / len(scores)


def owl_ratios(shares: Sequence[float], sizes: Sequence[int], sparsity: float, margin: float) -> list[float]:
    """Ratios of blocks: shares rescaled to [0, 2 lambda] and centred; a block with more outliers loses less."""
    low, high = min(shares), max(shares)
    rescaled = [(share - low) / (high - low) * 2 * margin for share in shares]
    centre = sum(size * share for size, share in zip(sizes, rescaled, strict=True)) / sum(sizes)
    return [sparsity - share + centre for share in rescaled]


def global_masks(scores: Mapping[str, Matrix], count: int) -> dict[str, NDArray[np.bool_]]:
    """The ``count`` lowest of all scores, by sorting them together with their positions."""
    places = sorted(
        (score, layer, position) for layer, matrix in enumerate(scores.values()) for position, score in enumerate(matrix.flatten())
    )
    masks = {name: np.zeros(matrix.size, dtype=bool) for name, matrix in scores.items()}
    flat = list(masks.values())
    for _, layer, position in places[:count]:
        flat[layer][position] = True
    return {name: mask.reshape(scores[name].shape) for name, mask in masks.items()}


def largest_remainders(ratios: Sequence[float], m: int, steps: int) -> list[int]:
    """Hare and Niemeyer's method: whole numbers that add up to ``steps``, from ``ratio * m``; of equal remainders the first goes first."""
    exact = [Fraction(str(ratio)) * m for ratio in ratios]
    whole = [int(value) for value in exact]
    order = sorted(range(len(ratios)), key=lambda i: (whole[i] - exact[i], i))
    for i in order[: steps - sum(whole)]:
        whole[i] += 1
    return whole
