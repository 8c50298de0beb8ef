"""Scores against sparsity: the curve of one task, the ability that several tasks make, and the monotone fit."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness_ext.statistics.checks import (
    Array,
    StatisticsError,
    check_above_chance,
    check_chance,
    check_ids,
    check_sparsities,
    scores_array,
)
from harness_ext.statistics.families import family_weights
from harness_ext.statistics.weighting import Table


@dataclass(frozen=True, eq=False)
class Curve:
    """The scores of one task, dense and pruned.

    Args:
        name: of the task, for messages.
        sparsities: distinct, in [0, 1), 0 (the dense model) among them; in any order.
        values: scores in [0, 1], [sparsity, item], or [seed, sparsity, item] over calibration seeds (the dense scores repeated).
        ids: of the items; by default they are this curve's own. Items of the same id in several curves are resampled together.
        chance: the score of a guess.

    Raises:
        StatisticsError: anything else, or a dense score that is not above chance.
    """

    name: str
    sparsities: Sequence[float]
    values: ArrayLike
    ids: Sequence[Hashable] | None = None
    chance: float = 0.0

    def __post_init__(self) -> None:
        grid = check_sparsities(self.sparsities, self.name)
        values = scores_array(self.values, self.name, (2, 3))
        values = values[None] if values.ndim == 2 else values
        if values.shape[1] != len(grid):
            raise StatisticsError(
                f"{self.name}: {len(grid)} sparsities for {values.shape[1]} rows; want scores of [(seed,) sparsity, item]"
            )
        items, own = values.shape[2], object()
        ids = check_ids(self.ids, items, self.name) if self.ids is not None else tuple((own, item) for item in range(items))
        order = np.argsort(grid)
        values = np.ascontiguousarray(values[:, order])
        check_above_chance(float(values[:, 0].mean()), check_chance(self.chance), self.name)
        for name, value in {"sparsities": tuple(grid[order].tolist()), "values": values, "ids": ids}.items():
            object.__setattr__(self, name, value)

    @property
    def table(self) -> Table:
        """The scores as they are resampled."""
        return Table(tuple(self.ids or ()), np.asarray(self.values))

    @property
    def seeds(self) -> int:
        """The number of calibration seeds."""
        return len(np.asarray(self.values))


def check_ability(curves: Sequence[Curve], what: str) -> tuple[float, ...]:
    """The sparsities of the curves of one ability, checked to be those of every curve, as is the number of seeds."""
    if not curves:
        raise StatisticsError(f"{what}: no curve; want at least one task")
    for curve in curves:
        if curve.sparsities != curves[0].sparsities:
            odd = sorted(set(curve.sparsities) ^ set(curves[0].sparsities))
            raise StatisticsError(f"{what}: {curves[0].name} and {curve.name} differ in the sparsities {', '.join(f'{s:g}' for s in odd)}")
        if curve.seeds != curves[0].seeds:
            raise StatisticsError(f"{what}: {curves[0].name} has {curves[0].seeds} calibration seeds, {curve.name} {curve.seeds}")
    return tuple(curves[0].sparsities)


def over_calibrations(curves: Sequence[Curve]) -> list[Curve]:
    """The same curves with scores averaged over calibration seeds."""
    return [Curve(curve.name, curve.sparsities, np.asarray(curve.values).mean(0), curve.ids, curve.chance) for curve in curves]


def isotonic(means: ArrayLike) -> Array:
    """The least-squares fit that never rises, by the min-max formula (Barlow et al., Statistical Inference under Order Restrictions, 1972).

    Args:
        means: [..., points], all of the same weight.

    Returns:
        the same shape; point k is the minimum over i <= k of the maximum over j >= k of the average of the points i to j.
    """
    means = np.asarray(means, dtype=np.float64)
    points = means.shape[-1]
    fitted = np.full(means.shape, np.inf)
    for first in range(points):
        averages = np.cumsum(means[..., first:], axis=-1) / np.arange(1, points - first + 1)
        greatest = np.maximum.accumulate(averages[..., ::-1], axis=-1)[..., ::-1]
        fitted[..., first:] = np.minimum(fitted[..., first:], greatest)
    return fitted


@dataclass(frozen=True)
class Ability:
    """The mean score of an ability at each sparsity, as a linear function of the mean scores of its tasks.

    The columns of the means are those of ``Sample``: all sparsities of the first task, then those of the second, and so on.

    Args:
        sparsities: rising, from 0.
        weights: [tasks], of the tasks in the ability; they add up to 1.
        chances: [tasks], zeros for raw scores; a score counts as (score - chance) / (1 - chance).
    """

    sparsities: Array
    weights: Array
    chances: Array

    @classmethod
    def of(cls, curves: Sequence[Curve], corrected: bool, families: Mapping[str, Hashable] | None = None) -> Ability:
        """Of curves that ``check_ability`` has passed."""
        weights = family_weights([curve.name for curve in curves], families)
        chances = [curve.chance if corrected else 0.0 for curve in curves]
        return cls(np.asarray(curves[0].sparsities), np.asarray(weights), np.asarray(chances))

    def scores(self, means: Array) -> Array:
        """[n, sparsities] of means [n, columns]."""
        by_task = means.reshape(len(means), len(self.weights), len(self.sparsities))
        corrected = (by_task - self.chances[:, None]) / (1 - self.chances[:, None])
        return np.asarray(np.einsum("nts,t->ns", corrected, self.weights))

    def gradient(self, at: Array) -> Array:
        """The derivative [columns] by the means of ``scores(means) @ at``; at: [sparsities]."""
        return np.outer(self.weights / (1 - self.chances), at).ravel()

    def offset(self, at: Array) -> float:
        """The rest: ``scores(means) @ at`` is ``gradient(at) @ means + offset(at)``."""
        return -float(self.weights @ (self.chances / (1 - self.chances))) * float(at.sum())
