"""The critical sparsity of an ability: where its score has fallen by a given share of the dense score."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness_ext.statistics.checks import Array, check_drop, check_level, check_resamples
from harness_ext.statistics.curves import Crossing, Curve, check_ability, isotonic
from harness_ext.statistics.resampling import Sample, interval
from harness_ext.statistics.results import Estimate, Result, bounded, percent

DROPS = (0.02, 0.05, 0.1)


@dataclass(frozen=True)
class Critical(Result):
    """The critical sparsity of an ability.

    Args:
        drop: the relative drop, such as 0.05.
        corrected: whether scores are chance-corrected, (score - chance) / (1 - chance).
        sparsity: the critical sparsity, or None: never within the grid, that is, beyond ``last``.
        low: the lower end of the interval. Where it equals ``last``, the interval lies beyond the grid.
        high: the upper end, or None: beyond ``last``.
        last: the largest sparsity measured.
        level: of the interval.
        seeds: calibration seeds; with one, the interval does not cover how much another calibration would change.
        items: of all tasks together.
    """

    drop: float
    corrected: bool
    sparsity: float | None
    low: float
    high: float | None
    last: float
    level: float
    seeds: int
    items: int

    @property
    def censored(self) -> bool:
        """Whether the score never falls so far within the grid."""
        return self.sparsity is None

    def phrase(self, *, short: bool = False) -> str:
        """``fails at a sparsity of 0.38 (95 % CI 0.35 to 0.41)``, or what is known instead; ``short`` for the second in a sentence."""
        interval = self.interval_words() if short else f"{percent(self.level)} CI {self.interval_words()}"
        if self.sparsity is None:
            return f"does not fail up to {self.last:.2f}, the largest sparsity measured ({interval})"
        return f"{'at' if short else 'fails at a sparsity of'} {self.sparsity:.2f} ({interval})"

    def interval_words(self) -> str:
        """``0.35 to 0.41``, or with an end that lies beyond the grid."""
        if self.high is not None:
            return f"{self.low:.2f} to {self.high:.2f}"
        return f"beyond {self.last:.2f}" if self.low >= self.last else f"{self.low:.2f} to beyond {self.last:.2f}"


@dataclass(frozen=True)
class AbilityCurve(Result):
    """Mean scores of an ability over sparsities, rising, with pointwise intervals and the monotone fit."""

    sparsities: tuple[float, ...]
    scores: tuple[Estimate, ...]
    fitted: tuple[float, ...]
    corrected: bool
    seeds: int
    items: int


def critical_sparsity(
    sparsities: Sequence[float],
    values: ArrayLike,
    *,
    drop: float,
    chance: float = 0.0,
    corrected: bool = False,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Critical:
    """The critical sparsity of one task; see ``ability_critical``.

    Args:
        values: [sparsity, item] or [seed, sparsity, item], scores in [0, 1].
    """
    curve = Curve("scores", sparsities, values, chance=chance)
    return ability_critical([curve], drop=drop, corrected=corrected, level=level, resamples=resamples, seed=seed)


def ability_critical(
    curves: Sequence[Curve], *, drop: float, corrected: bool = False, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Critical:
    """The critical sparsity of an ability, the mean score over one task or more.

    The monotone fit of the mean scores falls below ``(1 - drop)`` of the measured dense score there; it is interpolated linearly.

    Args:
        curves: of its tasks, with the same sparsities and calibration seeds.
        corrected: chance-correct each task's score first.

    Raises:
        StatisticsError: bad input.
    """
    check_ability(curves, "ability")
    crossing = Crossing.of(curves, check_drop(drop), corrected)
    return critical(crossing, sample_of(curves), check_level(level), check_resamples(resamples), seed)


def sample_of(curves: Sequence[Curve]) -> Sample:
    """What is resampled; kept, so that every drop and correction of the same curves is computed from one draw."""
    return _sample(tuple(curves))


@functools.lru_cache(maxsize=3)  # of recall, of the in-context ability, of both
def _sample(curves: tuple[Curve, ...]) -> Sample:
    return Sample([curve.table for curve in curves])


def critical(crossing: Crossing, sample: Sample, level: float, resamples: int, seed: int) -> Critical:
    """The critical sparsity of a crossing, whose columns are among those of the sample."""
    _, point = crossing(sample.means[None])
    low, high = interval(sample, crossing, crossing.contrast(sample.means), level=level, resamples=resamples, seed=seed)
    return Critical(
        drop=crossing.drop,
        corrected=crossing.corrected,
        sparsity=bounded(point[0]),
        low=low,
        high=bounded(high),
        last=float(crossing.sparsities[-1]),
        level=level,
        seeds=sample.seeds,
        items=sample.items,
    )


def ability_curve(
    curves: Sequence[Curve], *, corrected: bool = False, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> AbilityCurve:
    """Mean scores of an ability over one task or more, with pointwise bootstrap intervals over items (and seeds), for drawing.

    Args:
        curves: of its tasks, with the same sparsities and calibration seeds.
        corrected: chance-correct each task's score first.

    Raises:
        StatisticsError: bad input.
    """
    check_ability(curves, "ability")
    level, resamples = check_level(level), check_resamples(resamples)
    sample, crossing = sample_of(curves), Crossing.of(curves, 0.05, corrected)
    means = crossing.ability(sample.means[None])[0]
    scores = []
    for index, mean in enumerate(means):

        def score(drawn: Array, index: int = index) -> tuple[Array, Array]:
            values = np.nan_to_num(crossing.ability(drawn)[:, index])
            return values, values

        contrast = np.zeros(len(sample.means))
        contrast[crossing.columns[:, index]] = 1 / (1 - crossing.chances) / len(curves)
        low, high = interval(sample, score, contrast, level=level, resamples=resamples, seed=seed)
        scores.append(Estimate(float(mean), low, high, level, sample.method))
    return AbilityCurve(
        sparsities=tuple(crossing.sparsities.tolist()),
        scores=tuple(scores),
        fitted=tuple(isotonic(means).tolist()),
        corrected=corrected,
        seeds=sample.seeds,
        items=sample.items,
    )
