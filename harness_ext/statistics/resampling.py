"""The bootstrap over items, and over calibration seeds and items, of anything computed from mean scores.

Items are resampled with all their scores (dense and pruned, at every sparsity, of every seed), so that every interval is paired.
Tables that share ids are resampled together. Resampling the items that have the same scores in every column one by one, or drawing
how often they occur altogether, is the same; the second is what is done, and is fast where scores are 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr  # type: ignore[import-untyped]
from scipy.stats import t as student  # type: ignore[import-untyped]

from harness_ext.statistics.checks import Array

Bounds = tuple[Array, Array]
Functional = Callable[[Array], Bounds]  # means [n, columns] -> the least and the greatest value that they allow, [n] each, inf if unbounded

METHOD = "accelerated percentile bootstrap over items"
METHOD_SEEDS = "accelerated percentile bootstrap over calibration seeds and items"


@dataclass(frozen=True)
class Table:
    """Scores of one set of items.

    Args:
        ids: of the items; an id that another table has as well is the same item.
        values: [seeds, columns, items], no NaN.
    """

    ids: tuple[Hashable, ...]
    values: Array


class _Block:
    """Items that are resampled together: those of one table, or of several that share ids."""

    def __init__(self, tables: Sequence[Table]) -> None:
        ids = {key: row for row, key in enumerate(dict.fromkeys(key for table in tables for key in table.ids))}
        scores, present = [], []
        for table in tables:
            where = [ids[key] for key in table.ids]
            width = table.values.shape[1]
            scores.append(np.zeros((len(ids), width)))
            scores[-1][where] = table.values.mean(0).T
            present.append(np.zeros((len(ids), 1)))
            present[-1][where] = 1
        self.size = len(ids)
        self.widths = [table.values.shape[1] for table in tables]
        self.patterns, self.counts = np.unique(np.hstack([*scores, *present]), axis=0, return_counts=True)

    def means(self, weights: Array) -> Array:
        """Means of the columns [n, columns] when the patterns occur so often: weights [n, patterns]."""
        sums = weights @ self.patterns
        columns = sum(self.widths)
        with np.errstate(invalid="ignore", divide="ignore"):  # no item of a table was drawn: NaN, nothing is known
            return np.asarray(sums[:, :columns] / np.repeat(sums[:, columns:], self.widths, axis=1))

    def resampled(self, generator: np.random.Generator, resamples: int) -> Array:
        drawn = generator.multinomial(self.size, self.counts / self.size, size=resamples)
        return self.means(drawn.astype(np.float64))

    def influence(self, contrast: Array) -> Array:
        """What an item of each pattern adds to the contrast of the means, less its expectation: [patterns], with sum(counts * it) = 0."""
        columns = sum(self.widths)
        present = np.repeat(self.patterns[:, columns:], self.widths, axis=1)
        items = self.counts @ present
        away = self.patterns[:, :columns] - present * (self.counts @ self.patterns[:, :columns] / items)
        return np.asarray(away @ (contrast / items))


class Sample:
    """The tables of one experiment. Functionals see the means of the columns of all of them, one table after the other.

    Args:
        tables: with the same number of seeds, in the same order.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = tables
        self.seeds = len(tables[0].values)
        members = _sharing_ids([table.ids for table in tables])
        self.blocks = [_Block([tables[index] for index in member]) for member in members]
        ends = np.cumsum([table.values.shape[1] for table in tables])
        self.slices = [slice(end - table.values.shape[1], end) for end, table in zip(ends, tables, strict=True)]
        every = np.arange(ends[-1])
        self.columns = [np.concatenate([every[self.slices[index]] for index in member]) for member in members]
        self.by_seed = np.hstack([table.values.mean(2) for table in tables])  # [seeds, columns]
        self.means = self.by_seed.mean(0)
        self.smallest = max(min(len(table.ids) for table in tables), 2)
        self.items = sum(block.size for block in self.blocks)
        self.method = METHOD if self.seeds == 1 else METHOD_SEEDS
        self._kept: tuple[tuple[int, int], Array, Array] | None = None

    def resampled(self, seed: int, resamples: int, contrast: Array) -> tuple[Array, float]:
        """Resampled means [resamples, columns], over seeds and items where there are several seeds, and the acceleration.

        The two levels add: mean + stretch * ((means of drawn items - mean) + share * seeds' part). Items are the same ones for every seed,
        so one draw of items is for all seeds. The seeds' part is a multiplier bootstrap, a sum of the seeds' deviations times normal
        variables: drawn with replacement, two seeds have only three means, and three have ten. ``stretch`` and ``share`` make the variance
        and its degrees of freedom those of a two-way random model (``_levels``).

        The acceleration is that of a mean, the skewness of what items add to the contrast: sum(u^3) / (6 sum(u^2)^1.5).
        """
        parts = [block.influence(contrast[columns]) for block, columns in zip(self.blocks, self.columns, strict=True)]
        square = sum(float(block.counts @ part**2) for block, part in zip(self.blocks, parts, strict=True))
        cube = sum(float(block.counts @ part**3) for block, part in zip(self.blocks, parts, strict=True))
        means, multipliers = self._drawn(seed, resamples)
        extra = 0.0
        if self.seeds > 1:
            stretch, share, extra = self._levels(contrast, square)
            if extra:
                means = self.means + stretch * (means - self.means + share * multipliers @ (self.by_seed - self.means))
        total = square + extra
        return means, cube / (6 * total**1.5) if total > 1e-24 else 0.0

    def _drawn(self, seed: int, resamples: int) -> tuple[Array, Array]:
        """The means of drawn items [resamples, columns], and multipliers of the seeds [resamples, seeds]; kept for the next statistic."""
        if self._kept is None or self._kept[0] != (seed, resamples):
            generator = np.random.default_rng(seed)
            means = np.empty((resamples, len(self.means)))
            for block, columns in zip(self.blocks, self.columns, strict=True):
                means[:, columns] = block.resampled(generator, resamples)
            multipliers = generator.standard_normal((resamples, self.seeds)) / math.sqrt(max(self.seeds * (self.seeds - 1), 1))
            self._kept = (seed, resamples), means, multipliers
        return self._kept[1:]

    def _levels(self, contrast: Array, square: float) -> tuple[float, float, float]:
        """How far to stretch the resampled means, how much of the seeds' part to take, and the variance that seeds add.

        For y[seed, item] = mean + seed + item + rest, the variance of the mean is V_item + V_seed - V_rest, with V_item that of the mean
        over items of scores averaged over seeds, V_seed that of the mean over seeds of scores averaged over items, and V_rest =
        MS(rest) / (items * seeds), which both hold (Searle, Casella and McCulloch, Variance Components, 1992). Student's quantiles for the
        two are combined as Cochran does for two means of unlike variance (Biometrics 20, 1964), the squares weighted by the variances,
        which with two or three seeds holds better than Satterthwaite's degrees of freedom. Here y is the contrast, the linear part of the
        statistic.
        """
        rest = 0.0
        for table, columns in zip(self.tables, self.slices, strict=True):
            y = np.einsum("scn,c->sn", table.values, contrast[columns])
            left = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
            rest += float((left**2).sum()) / ((self.seeds - 1) * max(y.shape[1] - 1, 1) * y.size)
        seed = float((self.by_seed @ contrast).var(ddof=1)) / self.seeds
        item = square * self.smallest / (self.smallest - 1)
        extra = max(seed - rest, 0.0)
        if extra <= 1e-24:
            return 1.0, 0.0, 0.0
        quantiles = [float(student.ppf(0.975, df)) for df in (self.smallest - 1, self.seeds - 1)]
        stretch = math.sqrt((item * quantiles[0] ** 2 + extra * quantiles[1] ** 2) / (item + extra)) / quantiles[0]
        return stretch, math.sqrt(extra / seed), extra


def interval(
    sample: Sample, functional: Functional, contrast: Array, *, level: float, resamples: int, seed: int, cautious: bool = False
) -> tuple[float, float]:
    """The bootstrap interval of a functional of means, accelerated and bias-corrected by the skewness of its contrast.

    BCa (Efron, Better bootstrap confidence intervals, JASA 82, 1987) with acceleration and bias correction set to those of a mean, which
    both are sum(u^3) / (6 sum(u^2)^1.5): whether a curve has fallen below a level at a given sparsity is a question about a mean. The
    bias correction that is counted from the resamples makes the intervals of a monotone fit worse (docs/statistics.md). Levels are
    widened by Hesterberg's sqrt(n / (n - 1)) t_{n-1} (The American Statistician 69, 2015) for small n. The ends are order statistics, the
    lower one rounded down and the upper one up, so that a value which is only known to lie beyond a bound stays so.

    Args:
        contrast: [columns], the derivative of the functional by the means, up to a positive factor.
        cautious: take ends that are one standard error of the resampling further out, so that few findings hang on ``seed``.

    Returns:
        the two ends; ``-inf`` or ``inf`` where there is none.
    """
    means, acceleration = sample.resampled(seed, resamples, contrast)
    n = sample.smallest
    z = math.sqrt(n / (n - 1)) * float(student.ppf((1 + level) / 2, n - 1))
    ends = []
    for values, sign in zip(functional(means), (-1, 1), strict=True):
        shifted = acceleration + sign * z
        slack = 1 - acceleration * shifted
        probability = float(ndtr(acceleration + shifted / slack)) if slack > 0 else float(sign > 0)
        at = probability * (resamples + 1) - 1
        if cautious:
            at += sign * math.sqrt(resamples * probability * (1 - probability))
        index = min(max(math.floor(at) if sign < 0 else math.ceil(at), 0), resamples - 1)
        ends.append(float(np.partition(values, index)[index]))
    return ends[0], ends[1]


def _sharing_ids(ids: Sequence[tuple[Hashable, ...]]) -> list[list[int]]:
    """Groups of tables, such that tables in different groups have no id in common."""
    groups: list[tuple[list[int], set[Hashable]]] = []
    for index, keys in enumerate(ids):
        members, union = [index], set(keys)
        apart = []
        for group in groups:
            if union.isdisjoint(group[1]):
                apart.append(group)
            else:
                members, union = group[0] + members, union | group[1]
        groups = [*apart, (members, union)]
    return [sorted(members) for members, _ in groups]
