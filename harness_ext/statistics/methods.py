"""Two methods on the same items: how far their scores are apart, and which items only one of them gets right."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness_ext.statistics.checks import (
    RESAMPLES,
    Array,
    StatisticsError,
    check_chance,
    check_ids,
    check_level,
    check_resamples,
    scores_array,
)
from harness_ext.statistics.families import family_weights
from harness_ext.statistics.pairs import McNemar, mcnemar_of
from harness_ext.statistics.resampling import linear_interval, method
from harness_ext.statistics.results import Estimate, Result, caveat_of_two
from harness_ext.statistics.weighting import Sample, Table


@dataclass(frozen=True, eq=False)
class PairedScores:
    """The scores of two methods on the items of one task.

    Args:
        name: of the task.
        ids: of the items, all different.
        first, second: scores in [0, 1], [item], or [seed, item] over calibration seeds.
        chance: the score of a guess.

    Raises:
        StatisticsError: anything else, or other shapes than each other's.
    """

    name: str
    ids: Sequence[Hashable]
    first: ArrayLike
    second: ArrayLike
    chance: float = 0.0

    def __post_init__(self) -> None:
        check_chance(self.chance)
        for side in ("first", "second"):
            values = scores_array(getattr(self, side), f"{self.name}: {side}", (1, 2))
            object.__setattr__(self, side, values[None] if values.ndim == 1 else values)
        if self.both.shape[2] != len(self.ids) or np.shape(self.first) != np.shape(self.second):
            shapes = f"{np.shape(self.first)} and {np.shape(self.second)}"
            raise StatisticsError(f"{self.name}: scores of the shapes {shapes} for {len(self.ids)} ids; want [seed, item] of both methods")
        object.__setattr__(self, "ids", check_ids(self.ids, len(self.ids), self.name))

    @property
    def both(self) -> Array:
        """[seeds, 2, items]."""
        first, second = np.asarray(self.first, dtype=np.float64), np.asarray(self.second, dtype=np.float64)
        return np.stack([first, second], axis=1) if first.shape == second.shape else np.empty((0, 2, 0))


@dataclass(frozen=True)
class MethodDifference(Result):
    """The second method against the first, on one task or over the tasks of an ability.

    Args:
        name: of the task or the ability.
        tasks: those in it.
        items: different items.
        seeds: calibration seeds over which both are averaged.
        first, second: mean scores; chance-corrected for an ability.
        difference: second - first, with a paired interval over items and seeds.
        mcnemar: one test for each seed, ``right_to_wrong`` counts items that only the first method gets right; empty where scores are
            graded, or where two tasks of an ability share items.
    """

    name: str
    tasks: tuple[str, ...]
    items: int
    seeds: int
    first: float
    second: float
    difference: Estimate
    mcnemar: tuple[McNemar, ...]


def task_difference(scores: PairedScores, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> MethodDifference:
    """The difference of two methods on one task, of raw scores.

    Args:
        level: of the interval.
        resamples: of the bootstrap over items; ``seed`` is theirs.

    Raises:
        StatisticsError: options out of range.
    """
    return _difference(scores.name, [scores], np.array([-1.0, 1.0]), 0.0, level, resamples, seed)


def ability_difference(
    name: str,
    tasks: Sequence[PairedScores],
    *,
    families: Mapping[str, Hashable] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> MethodDifference:
    """The difference of two methods over the tasks of an ability, of chance-corrected scores.

    Args:
        name: of the ability.
        tasks: with the same number of seeds; items of the same id in several tasks are resampled together.
        families: the family of each task, weighted as in ``family_weights``.
        level, resamples, seed: as in ``task_difference``.

    Raises:
        StatisticsError: no task, different numbers of seeds, or options out of range.
    """
    weights = np.array(family_weights([task.name for task in tasks], families))
    if len({len(task.both) for task in tasks}) > 1:
        raise StatisticsError(f"{name}: its tasks have different numbers of seeds")
    scale = weights / (1 - np.array([task.chance for task in tasks]))
    offset = -float(scale @ [task.chance for task in tasks])
    return _difference(name, tasks, np.outer(scale, [-1.0, 1.0]).ravel(), offset, level, resamples, seed)


def _difference(
    name: str, tasks: Sequence[PairedScores], gradient: Array, offset: float, level: float, resamples: int, seed: int
) -> MethodDifference:
    level = check_level(level)
    resamples = check_resamples(resamples, level)
    sample = Sample([Table(tuple(task.ids), task.both) for task in tasks])
    low, high = linear_interval(sample, gradient, level=level, resamples=resamples, seed=seed)
    first = float(-gradient[0::2] @ sample.means[0::2]) + offset
    second = float(gradient[1::2] @ sample.means[1::2]) + offset
    difference = Estimate(float(gradient @ sample.means), low, high, level, method(sample, gradient), caveat_of_two(sample.seeds))
    return MethodDifference(
        name, tuple(task.name for task in tasks), sample.items, sample.seeds, first, second, difference, _tests(tasks, sample)
    )


def _tests(tasks: Sequence[PairedScores], sample: Sample) -> tuple[McNemar, ...]:
    both = np.concatenate([task.both for task in tasks], axis=2)
    if sample.items < both.shape[2] or not np.isin(both, (0.0, 1.0)).all():
        return ()
    return tuple(mcnemar_of(first, second) for first, second in both == 1)
