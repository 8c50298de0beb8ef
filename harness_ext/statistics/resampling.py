"""Confidence intervals of anything computed from mean scores, over items and calibration seeds.

Three steps, each with its own source: the part of the items (``item_interval``), the part of the calibration seeds (``seed_margin``), and
the sum of the two (``square_and_add``).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student  # type: ignore[import-untyped]

from harness_ext.statistics.checks import Array
from harness_ext.statistics.weighting import ExtraItem, Sample

Bounds = tuple[Array, Array]
Functional = Callable[[Array], Bounds]  # means [n, columns] -> the least and the greatest value that they allow, [n] each, inf if unbounded

METHOD = "Bayesian bootstrap over items with one more item at the worst score (Gaffke 2005)"
METHOD_SEEDS = f"{METHOD}, and Student's t over calibration seeds"
METHOD_EQUAL = "exact binomial: no weighting of the items changes the value"
NOTHING = 1e-24  # a variance below this is rounding


def method(sample: Sample, gradient: Array) -> str:
    """How ``interval`` makes the interval, in words."""
    if sample.seeds > 1:
        return METHOD_SEEDS
    return METHOD if _items_vary(sample, gradient) else METHOD_EQUAL


def linear_interval(
    sample: Sample, gradient: Array, offset: float = 0.0, *, level: float, resamples: int, seed: int
) -> tuple[float, float]:
    """The ``interval`` of ``gradient @ means + offset``."""
    columns = np.flatnonzero(gradient)

    def value(means: Array) -> Bounds:
        values = means[:, columns] @ gradient[columns] + offset
        return values, values

    return interval(sample, value, gradient, level=level, resamples=resamples, seed=seed, columns=columns)


def interval(
    sample: Sample,
    functional: Functional,
    gradient: Array,
    *,
    level: float,
    resamples: int,
    seed: int,
    columns: NDArray[np.intp] | None = None,
) -> tuple[float, float]:
    """A two-sided confidence interval of a function of the mean scores; each end is missed with probability ``(1 - level) / 2`` at most.

    Args:
        functional: the function.
        gradient: [columns], its derivative at the measured means.
        level: such as 0.95.
        resamples: weightings of the items that are drawn, at least ``2 / (1 - level) - 1``.
        seed: of the draws.
        columns: those that the function looks at; None: all.

    Returns:
        the two ends; ``-inf`` or ``inf`` where there is none.
    """
    tail = (1 - level) / 2
    ends = item_interval(sample, functional, gradient, tail=tail, resamples=resamples, seed=seed, columns=columns)
    margin = seed_margin(sample, gradient, tail)
    least, greatest = (float(bound[0]) for bound in functional(sample.means[None]))
    low = least - square_and_add(least - ends[0], margin) if math.isfinite(least) else least
    high = greatest + square_and_add(ends[1] - greatest, margin) if math.isfinite(greatest) else greatest
    return low, high


def square_and_add(distance: float, margin: float) -> float:
    """The distance of an end from the estimate, over two independent sources of error with the distances ``distance`` and ``margin``.

    Newcombe, Statistics in Medicine 17, 1998, 873-890; Zou and Donner, Statistics in Medicine 27, 2008, 1693-1702.
    """
    return distance if margin == 0 else math.hypot(max(distance, 0.0), margin)


def item_interval(
    sample: Sample,
    functional: Functional,
    gradient: Array,
    *,
    tail: float,
    resamples: int,
    seed: int,
    columns: NDArray[np.intp] | None = None,
) -> tuple[float, float]:
    """The interval over items: each end is missed with probability ``tail`` at most.

    The lower end is the ``tail`` quantile of the function over random weightings of the items, with one more item added whose scores are
    the worst possible (Gaffke, Mathematical Methods of Statistics 14, 2005, 451-467; Learned-Miller and Thomas, arXiv 1905.06208). The
    upper end has one with the best possible scores. For the mean of 0/1 scores the ends are those of Clopper and Pearson. Scores that are
    all equal have an interval with a width. With several tables, the one more item is in the block where one item changes the value most.
    """
    ends = []
    for side, index in enumerate(tail_indices(tail, resamples)):
        extra, change = extreme_item(sample, gradient, side)
        if not _items_vary(sample, gradient):
            share = 1 - tail ** (1 / sample.blocks[extra.block].size)
            ends.append(float(functional(sample.means[None])[side][0]) + share * change)
            continue
        values = functional(sample.weighted_means(seed, resamples, extra, columns))[side]
        ends.append(float(np.partition(values, index)[index]))
    return ends[0], ends[1]


def tail_indices(tail: float, resamples: int) -> tuple[int, int]:
    """The indices of the ``tail`` quantile and of the ``1 - tail`` quantile among sorted values of as many resamples."""
    rank = max(math.floor(tail * (resamples + 1) + 1e-9), 1)
    return rank - 1, resamples - rank


def extreme_item(sample: Sample, gradient: Array, side: int) -> tuple[ExtraItem, float]:
    """The possible item that lowers (``side`` 0) or raises (1) ``gradient @ means`` most, and by how much if it were all of its block."""
    scores = np.where((gradient > 0) == bool(side), 1.0, 0.0)
    changes = gradient * (scores - sample.means)
    by_item = [
        abs(float((changes[columns] / (block.table_sizes + 1)).sum())) for block, columns in zip(sample.blocks, sample.columns, strict=True)
    ]
    block = int(np.argmax(by_item))
    return ExtraItem(block, scores), float(changes[sample.columns[block]].sum())


def seed_margin(sample: Sample, gradient: Array, tail: float) -> float:
    """The half width that calibration seeds add to an interval: Student's t times their standard error; 0 with one seed."""
    if sample.seeds == 1:
        return 0.0
    return float(student.ppf(1 - tail, sample.seeds - 1)) * math.sqrt(seed_variance(sample, gradient))


def seed_variance(sample: Sample, gradient: Array) -> float:
    """The variance of ``gradient @ means`` due to calibration seeds, not counting the noise of items; at least 0.

    For y[seed, item] = mean + seed + item + rest, the mean over seeds and items has a variance of V_item + V_seed, where V_item is that
    of the mean over items of scores averaged over seeds, which holds the part of the rest. V_seed is the variance between the seeds' means
    over the number of seeds, less MS(rest) / (seeds * items) (Searle, Casella and McCulloch, Variance Components, 1992, chapter 4).
    """
    between = float((sample.by_seed @ gradient).var(ddof=1)) / sample.seeds
    rest = 0.0
    for table, columns in zip(sample.tables, sample.slices, strict=True):
        y = np.einsum("scn,c->sn", table.values, gradient[columns])
        left = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
        rest += float((left**2).sum()) / ((sample.seeds - 1) * max(y.shape[1] - 1, 1) * y.size)
    variance = max(between - rest, 0.0)
    return variance if variance > NOTHING else 0.0


def _items_vary(sample: Sample, gradient: Array) -> bool:
    """Whether any weighting of the items changes ``gradient @ means``."""
    parts = [block.influence(gradient[columns]) for block, columns in zip(sample.blocks, sample.columns, strict=True)]
    return sum(float(block.counts @ part**2) for block, part in zip(sample.blocks, parts, strict=True)) > NOTHING
