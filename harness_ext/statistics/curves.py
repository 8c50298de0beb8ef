"""Scores against sparsity: the curve of one task, its monotone fit, and where the fit has fallen by a given share."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness_ext.statistics.checks import (
    Array,
    StatisticsError,
    check_above_chance,
    check_chance,
    check_ids,
    check_sparsities,
    scores_array,
)
from harness_ext.statistics.resampling import Bounds, Table

TINY = 1e-9  # two mean scores that differ by less are the same but for rounding


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
class Crossing:
    """Where the monotone fit of an ability falls below ``(1 - drop)`` of the dense score; a functional of the means.

    The ability is the mean over its tasks, of (score - chance) / (1 - chance) if ``corrected``. The dense score is the measured one,
    not the fitted one. The fit is interpolated linearly between sparsities.

    Args:
        sparsities: rising, from 0.
        drop: relative.
        columns: [tasks, sparsities], where the means of each task stand.
        chances: [tasks], zeros for raw scores.
        corrected: whether scores are chance-corrected.
    """

    sparsities: Array
    drop: float
    columns: NDArray[np.intp]
    chances: Array
    corrected: bool

    @classmethod
    def of(cls, curves: Sequence[Curve], drop: float, corrected: bool, first_column: int = 0) -> Crossing:
        sparsities = np.asarray(curves[0].sparsities)
        columns = first_column + np.arange(len(curves) * len(sparsities)).reshape(len(curves), -1)
        return cls(sparsities, drop, columns, np.array([curve.chance if corrected else 0.0 for curve in curves]), corrected)

    def ability(self, means: Array) -> Array:
        """[n, sparsities], the mean over tasks."""
        scores = means[:, self.columns]
        return np.asarray(((scores - self.chances[:, None]) / (1 - self.chances[:, None])).mean(1))

    def __call__(self, means: Array) -> Bounds:
        """[n] twice the sparsity; the last one and inf where the fit never falls so far; 0 and inf where dense is not above chance."""
        ability = self.ability(means)
        dense, last = ability[:, 0], len(self.sparsities) - 1
        known = dense > TINY  # not NaN either
        ability = np.where(known[:, None], ability, 0.0)
        fitted = isotonic(ability)
        threshold = (1 - self.drop) * ability[:, 0]
        held = (fitted >= threshold[:, None] - TINY).sum(1) - 1  # the last sparsity at which the ability holds
        before, after = np.clip(held, 0, last - 1), np.clip(held, 0, last - 1) + 1
        rows = np.arange(len(fitted))
        fall = fitted[rows, before] - fitted[rows, after]
        share = np.clip((fitted[rows, before] - threshold) / np.where(fall > 0, fall, 1.0), 0.0, 1.0)
        where = self.sparsities[before] + share * (self.sparsities[after] - self.sparsities[before])
        beyond = held == last
        low = np.where(beyond, self.sparsities[-1], where)
        high = np.where(beyond, np.inf, where)
        return np.where(known, low, 0.0), np.where(known, high, np.inf)

    def contrast(self, means: Array, per_fall: bool = False) -> Array:
        """The weights of the means [columns] in the score at the crossing (or the last sparsity) less ``1 - drop`` of the dense one.

        Args:
            per_fall: divide by how steeply the fit falls there, which makes it the derivative of the crossing; 0 where it never crosses.
        """
        low, high = (float(bound[0]) for bound in self(means[None]))
        after = int(np.clip(np.searchsorted(self.sparsities, low), 1, len(self.sparsities) - 1))
        width = self.sparsities[after] - self.sparsities[after - 1]
        share = (low - self.sparsities[after - 1]) / width
        at_sparsity = np.zeros(len(self.sparsities))
        at_sparsity[after - 1], at_sparsity[after] = 1 - share, share
        at_sparsity[0] -= 1 - self.drop
        if per_fall:
            fitted = isotonic(self.ability(means[None]))[0]
            fall = (fitted[after - 1] - fitted[after]) / width
            at_sparsity *= 0.0 if np.isinf(high) else 1 / max(fall, TINY)
        weights = np.zeros(len(means))
        weights[self.columns] = at_sparsity[None] / (1 - self.chances[:, None]) / len(self.chances)
        return weights
