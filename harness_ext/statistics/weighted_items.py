"""The critical sparsity of items that have unequal weights, with an interval over items and calibration seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student  # type: ignore[import-untyped]

from harness_ext.statistics.checks import Array
from harness_ext.statistics.critical import Critical, critical_from
from harness_ext.statistics.resampling import NOTHING, square_and_add, tail_indices
from harness_ext.statistics.weighting import WEIGHTS_AT_ONCE


@dataclass(frozen=True)
class Items:
    """Items that the dense model answers rightly, with weights.

    Args:
        sparsities: [sparsities], rising from 0.
        scores: [seeds, sparsities, items]; the dense ones are 1. Chance-corrected or not.
        weights: [items], the weight of each item in the score; they add up to 1.
        units: [items], numbers from 0. Items of the same number are the same item in several tasks, and are resampled together.
        least: the lowest score that an item can have.
        corrected: whether scores are chance-corrected.
    """

    sparsities: Array
    scores: Array
    weights: Array
    units: NDArray[np.intp]
    least: float
    corrected: bool

    @property
    def by_item(self) -> Array:
        """[items, sparsities], over seeds."""
        return np.ascontiguousarray(self.scores.mean(0).T)


@dataclass(frozen=True)
class Resampled:
    """Weighted sums over items, under many random weightings of the items.

    Args:
        sums: [resamples, sparsities], of the scores.
        totals: [resamples], of the weights.
        extra: [resamples], the weight of one more item.
    """

    sums: Array
    totals: Array
    extra: Array

    @classmethod
    def joined(cls, parts: Sequence[Resampled]) -> Resampled:
        """Puts several draws one after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("sums", "totals", "extra")))

    def excess(self, at: int, drop: float, score: float) -> Array:
        """[resamples], the score at sparsity number ``at`` less ``1 - drop`` of the dense score, with one more item.

        Args:
            score: of the one more item; its dense score is 1.
        """
        pruned, dense = (self.sums[:, index] + self.extra * value for index, value in ((at, score), (0, 1.0)))
        return np.asarray((pruned - (1 - drop) * dense) / (self.totals + self.extra))


def effective_number(weights: Array) -> float:
    """The number of equal weights with the same variance of the mean, ``(sum w)^2 / sum w^2`` (Kish, Survey Sampling, 1965); 0 for none."""
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def bootstrap_weights(generator: np.random.Generator, units: int, resamples: int) -> Iterator[Array]:
    """Random weights [n, units] of the Bayesian bootstrap, ``resamples`` rows in all parts together."""
    step = max(1, WEIGHTS_AT_ONCE // max(units, 1))
    for first in range(0, resamples, step):
        yield generator.standard_exponential((min(step, resamples - first), units))


def resample(items: Items, *, resamples: int, seed: int) -> Resampled:
    """Weighted sums under random weightings. One more item weighs as much as the heaviest item."""
    generator, by_item, parts = np.random.default_rng(seed), items.by_item, []
    for random in bootstrap_weights(generator, int(items.units.max()) + 1, resamples):
        weights = random[:, items.units] * items.weights
        extra = generator.standard_exponential(len(weights)) * items.weights.max()
        parts.append(Resampled(weights @ by_item, weights.sum(1), extra))
    return Resampled.joined(parts)


def weighted_critical(items: Items, sums: Resampled, *, drop: float, level: float) -> Critical:
    """The critical sparsity, as ``critical.ability_critical`` gives it for items of equal weights.

    The score less the threshold has an interval at every sparsity. Its ends are quantiles over the random weightings with one more item,
    with the lowest score for the lower end and the highest for the upper end (Gaffke's bound, ``resampling.item_interval``). Calibration
    seeds add ``seed_margin``.
    """
    means, tail, resamples = items.scores.mean(0) @ items.weights, (1 - level) / 2, len(sums.totals)
    lower, upper = tail_indices(tail, resamples)
    intervals = []
    for at in range(1, len(means)):
        low, high = (
            float(np.partition(sums.excess(at, drop, score), index)[index]) for score, index in ((items.least, lower), (1.0, upper))
        )
        value, margin = float(means[at] - (1 - drop) * means[0]), seed_margin(items, at, drop, tail)
        intervals.append((value - square_and_add(value - low, margin), value + square_and_add(high - value, margin)))
    counts = {"seeds": len(items.scores), "items": int((items.weights > 0).sum())}
    return critical_from(items.sparsities, means, intervals, drop=drop, corrected=items.corrected, level=level, **counts)


def seed_margin(items: Items, at: int, drop: float, tail: float) -> float:
    """The half width that calibration seeds add to an interval; 0 with one seed. ``resampling.seed_variance`` with weights of items."""
    seeds = len(items.scores)
    if seeds == 1:
        return 0.0
    y = items.scores[:, at] - (1 - drop) * items.scores[:, 0]  # [seeds, items]
    by_seed, by_item = y @ items.weights, y.mean(0)
    left = y - by_item - by_seed[:, None] + by_seed.mean()
    effective = effective_number(items.weights)
    rest = float((left**2 @ items.weights**2).sum()) / ((seeds - 1) * seeds) * effective / max(effective - 1, 1)
    variance = max(float(by_seed.var(ddof=1)) / seeds - rest, 0.0)
    return float(student.ppf(1 - tail, seeds - 1)) * math.sqrt(variance if variance > NOTHING else 0.0)
