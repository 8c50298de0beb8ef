"""Mean scores under random weights of the items: the means that other items could have given.

Every item gets a random weight, drawn from the standard exponential distribution (the Bayesian bootstrap: Rubin, Annals of Statistics 9,
1981). An item has one weight for all its scores, dense and pruned, at every sparsity, so every interval is paired. An item that is in
several tables has one weight in all of them.

Items with the same scores in every column are one pattern. The sum of their weights has a gamma distribution with their count as shape,
so one weight is drawn per pattern. That gives the same distribution and is fast where scores are 0 or 1.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness_ext.statistics.checks import Array

WEIGHTS_AT_ONCE = 2**22  # numbers of float64 that are drawn at a time, to bound memory


@dataclass(frozen=True)
class Table:
    """Scores of one set of items.

    Args:
        ids: of the items; an id that another table has as well is the same item.
        values: [seeds, columns, items], in [0, 1], no NaN.
    """

    ids: tuple[Hashable, ...]
    values: Array


@dataclass(frozen=True)
class ExtraItem:
    """One more item, which was not measured, in one block of a sample.

    Args:
        block: the index of the block.
        scores: [columns of the sample], its scores; those outside of the block are not used.
    """

    block: int
    scores: Array


class Block:
    """Items that are weighted together: those of one table, or of several tables that share ids.

    Args:
        tables: of the block.

    Attributes:
        size: the number of items.
        table_sizes: [columns], the number of items in the table of each column.
        patterns: [patterns, columns], the different scores of items (means over seeds; 0 where an item is not in the table).
        present: [patterns, columns], 1 where items of the pattern are in the table of the column.
        counts: [patterns], items of each pattern.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        rows = {key: row for row, key in enumerate(dict.fromkeys(key for table in tables for key in table.ids))}
        widths = [table.values.shape[1] for table in tables]
        scores, present = np.zeros((len(rows), sum(widths))), np.zeros((len(rows), len(tables)))
        for index, (table, end) in enumerate(zip(tables, np.cumsum(widths), strict=True)):
            members = [rows[key] for key in table.ids]
            scores[members, end - widths[index] : end] = table.values.mean(0).T
            present[members, index] = 1
        both, self.counts = np.unique(np.hstack([scores, present]), axis=0, return_counts=True)
        self.size = len(rows)
        self.patterns = both[:, : sum(widths)]
        self.present = np.repeat(both[:, sum(widths) :], widths, axis=1)
        self.table_sizes = self.counts @ self.present

    def draw(self, generator: np.random.Generator, resamples: int) -> tuple[Array, Array, Array]:
        """Weighted sums of scores and sums of weights, [resamples, columns] each, and the weight of one more item, [resamples]."""
        sums, totals = np.empty((2, resamples, self.patterns.shape[1]))
        step = max(1, WEIGHTS_AT_ONCE // len(self.counts))
        for first in range(0, resamples, step):
            part = slice(first, min(first + step, resamples))
            weights = generator.standard_gamma(self.counts, size=(part.stop - first, len(self.counts)))
            sums[part], totals[part] = weights @ self.patterns, weights @ self.present
        return sums, totals, generator.standard_exponential(resamples)

    def influence(self, gradient: Array) -> Array:
        """What an item of each pattern adds to ``gradient @ means`` beyond the average item, [patterns]."""
        means = self.counts @ self.patterns / self.table_sizes
        return np.asarray((self.patterns - self.present * means) @ (gradient / self.table_sizes))


class Sample:
    """The tables of one experiment.

    Args:
        tables: with the same number of seeds, in the same order.

    Attributes:
        means: [columns], of the columns of all tables, one table after the other, over items and seeds.
        by_seed: [seeds, columns], over items.
        columns: for each block, the indices of its columns.
        items: different items in all tables together.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        members = _sharing_ids([table.ids for table in tables])
        ends = np.cumsum([table.values.shape[1] for table in tables])
        self.tables = tables
        self.seeds = len(tables[0].values)
        self.slices = [slice(end - table.values.shape[1], end) for end, table in zip(ends, tables, strict=True)]
        self.blocks = [Block([tables[index] for index in member]) for member in members]
        self.columns = [np.concatenate([np.arange(ends[-1])[self.slices[index]] for index in member]) for member in members]
        self.by_seed = np.hstack([table.values.mean(2) for table in tables])
        self.means = self.by_seed.mean(0)
        self.items = sum(block.size for block in self.blocks)
        self._kept: tuple[tuple[int, int], list[tuple[Array, Array, Array]]] | None = None

    def weighted_means(self, seed: int, resamples: int, extra: ExtraItem | None = None, columns: NDArray[np.intp] | None = None) -> Array:
        """Means under random weights, [resamples, columns].

        Args:
            seed: of the weights; they are the same whatever else is given.
            resamples: how many.
            extra: one more item.
            columns: those that are computed, the others are NaN; None: all.
        """
        if self._kept is None or self._kept[0] != (seed, resamples):
            generator = np.random.default_rng(seed)
            self._kept = (seed, resamples), [block.draw(generator, resamples) for block in self.blocks]
        means = np.full((resamples, len(self.means)), np.nan)
        for index, (own, (sums, totals, weight)) in enumerate(zip(self.columns, self._kept[1], strict=True)):
            inside = slice(None) if columns is None else np.flatnonzero(np.isin(own, columns))
            if extra is not None and extra.block == index:
                added = weight[:, None]
                means[:, own[inside]] = (sums[:, inside] + added * extra.scores[own[inside]]) / (totals[:, inside] + added)
            else:
                means[:, own[inside]] = sums[:, inside] / totals[:, inside]
        return means


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
