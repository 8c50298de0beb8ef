"""The critical sparsity of an ability: where its score has fallen by a given share of the dense score."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness_ext.statistics.cells import NARROWEST, Cell, cells_at_the_ends, crossing, midpoints
from harness_ext.statistics.checks import RESAMPLES, Array, check_drop, check_level, check_resamples, check_width
from harness_ext.statistics.curves import Ability, Curve, check_ability, isotonic
from harness_ext.statistics.resampling import linear_interval, method
from harness_ext.statistics.results import Estimate, Result, caveat_of_two, percent
from harness_ext.statistics.weighting import Sample

DROPS = (0.02, 0.05, 0.1)


@dataclass(frozen=True)
class Critical(Result):
    """The critical sparsity of an ability, as far as the measured sparsities and the scores tell.

    Every monotone curve through the measured scores has its critical sparsity in one cell of the grid, and may have it anywhere in that
    cell. So both ends of the interval are sparsities of the grid. At ``low`` and before, the score has not fallen below the threshold; at
    ``high`` and after, it has. Each of the two statements is wrong with probability ``(1 - level) / 2`` at most.

    Args:
        drop: the relative drop, such as 0.05: the threshold is ``1 - drop`` of the dense score.
        corrected: whether scores are chance-corrected, (score - chance) / (1 - chance).
        sparsity: where the monotone fit crosses the threshold if it is straight between the measured sparsities; None: not within the grid.
        cell: the cell of the grid in which the monotone fit crosses the threshold; its end is None where that is beyond ``last``.
        low: the lower end of the interval.
        high: the upper end, or None: beyond ``last``.
        deciding: the cells of the grid at the two ends of the interval, one where they are the same.
        add: the midpoints of those cells, rising. Scores there make the interval narrower. Cells of at most 0.01 have none.
        last: the largest sparsity measured.
        level: of the interval.
        seeds: calibration seeds; with one, the interval does not hold how much another calibration would change.
        items: of all tasks together.
        caveat: what the interval does not hold, or None; with two calibration seeds there is one.
    """

    drop: float
    corrected: bool
    sparsity: float | None
    cell: Cell
    low: float
    high: float | None
    deciding: tuple[Cell, ...]
    add: tuple[float, ...]
    last: float
    level: float
    seeds: int
    items: int
    caveat: str | None = None

    @property
    def censored(self) -> bool:
        """Whether the monotone fit never falls so far within the grid."""
        return self.sparsity is None

    @property
    def width(self) -> float | None:
        """Of the interval; None where it has no upper end."""
        return None if self.high is None else self.high - self.low

    def phrase(self, *, short: bool = False) -> str:
        """``fails at a sparsity between 0.3 and 0.4 (95 % CI 0.2 to 0.5)``, or what is known instead.

        Args:
            short: for the second of two in a sentence.
        """
        interval = self.interval_words() if short else f"{percent(self.level)} CI {self.interval_words()}"
        if (self.low, self.high) == self.cell:
            interval = f"{'' if short else percent(self.level) + ' CI, '}not measured {'beyond' if self.high is None else 'in between'}"
        if self.censored:
            return f"does not fail up to {self.last:g}, the largest sparsity measured ({interval})"
        return f"{'' if short else 'fails at a sparsity '}{self.cell_words()} ({interval})"

    def cell_words(self) -> str:
        """``between 0.3 and 0.4``, or ``beyond 0.8``."""
        return f"beyond {self.last:g}" if self.cell[1] is None else f"between {self.cell[0]:g} and {self.cell[1]:g}"

    def interval_words(self) -> str:
        """``0.3 to 0.5``, or with an end that lies beyond the grid."""
        if self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        return f"beyond {self.last:g}" if self.low >= self.last else f"{self.low:g} to beyond {self.last:g}"


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
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Critical:
    """The critical sparsity of one task; see ``ability_critical``.

    Args:
        values: [sparsity, item] or [seed, sparsity, item], scores in [0, 1].
    """
    curve = Curve("scores", sparsities, values, chance=chance)
    return ability_critical([curve], drop=drop, corrected=corrected, level=level, resamples=resamples, seed=seed)


def ability_critical(
    curves: Sequence[Curve],
    *,
    drop: float,
    corrected: bool = False,
    families: Mapping[str, Hashable] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Critical:
    """The critical sparsity of an ability, the mean score over one task or more.

    The threshold is ``1 - drop`` of the dense score. The score less the threshold has an interval at every sparsity
    (``resampling.interval``), and these tell the cells of the grid in which the score may cross (``cells.cells_at_the_ends``).

    Args:
        curves: of its tasks, with the same sparsities and calibration seeds.
        drop: relative, such as 0.05.
        corrected: chance-correct each task's score first.
        families: the family of each task, by the name of its curve; families have the same weight, and so have the tasks of a family.
            None: every task is a family of its own.
        level: of the interval.
        resamples: weightings of the items that are drawn.
        seed: of the draws.

    Raises:
        StatisticsError: bad input.
    """
    check_ability(curves, "ability")
    drop, level = check_drop(drop), check_level(level)
    resamples = check_resamples(resamples, level)
    ability, sample = Ability.of(curves, corrected, families), sample_of(curves)
    intervals = [_excess(ability, sample, drop, index, level, resamples, seed) for index in range(1, len(ability.sparsities))]
    means = ability.scores(sample.means[None])[0]
    counts = {"seeds": sample.seeds, "items": sample.items}
    return critical_from(ability.sparsities, means, intervals, drop=drop, corrected=corrected, level=level, **counts)


def critical_from(
    sparsities: Array,
    means: Array,
    intervals: Sequence[tuple[float, float]],
    *,
    drop: float,
    corrected: bool,
    level: float,
    seeds: int,
    items: int,
) -> Critical:
    """The critical sparsity, from the mean score at each sparsity and the interval of the score less the threshold.

    Args:
        sparsities: [sparsities], rising from 0.
        means: [sparsities].
        intervals: at each sparsity but 0.
    """
    deciding = cells_at_the_ends(sparsities, intervals)
    sparsity, cell = crossing(sparsities, means, drop)
    return Critical(
        drop=drop,
        corrected=corrected,
        sparsity=sparsity,
        cell=cell,
        low=deciding[0][0],
        high=deciding[1][1],
        deciding=tuple(dict.fromkeys(deciding)),
        add=midpoints(deciding),
        last=float(sparsities[-1]),
        level=level,
        seeds=seeds,
        items=items,
        caveat=caveat_of_two(seeds),
    )


def _excess(ability: Ability, sample: Sample, drop: float, index: int, level: float, resamples: int, seed: int) -> tuple[float, float]:
    """The interval of the score at a sparsity less ``1 - drop`` of the dense score."""
    at = np.zeros(len(ability.sparsities))
    at[index], at[0] = 1.0, drop - 1
    return linear_interval(sample, ability.gradient(at), ability.offset(at), level=level, resamples=resamples, seed=seed)


def sparsities_to_add(results: Iterable[Critical], width: float) -> tuple[float, ...]:
    """Where to measure next to make each interval at most ``width`` wide; nothing if all are, or if more sparsities would not help.

    Cells of at most a quarter of ``width`` (or of 0.01) are not halved: what widens the interval then are too few items or seeds.

    Args:
        results: the critical sparsities of interest, on one grid.
        width: in sparsity, such as 0.05.

    Raises:
        StatisticsError: a width outside of (0, 1].
    """
    narrowest = max(NARROWEST, check_width(width) / 4)
    wide = [result for result in results if result.width is None or result.width > width]
    return tuple(sorted({place for result in wide for place in midpoints(result.deciding, narrowest)}))


def sample_of(curves: Sequence[Curve]) -> Sample:
    """What is weighted; kept, so that every drop and correction of the same curves is computed from one draw."""
    return _sample(tuple(curves))


@functools.lru_cache(maxsize=3)
def _sample(curves: tuple[Curve, ...]) -> Sample:
    return Sample([curve.table for curve in curves])


def ability_curve(
    curves: Sequence[Curve],
    *,
    corrected: bool = False,
    families: Mapping[str, Hashable] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> AbilityCurve:
    """Mean scores of an ability over one task or more, with pointwise intervals over items (and calibration seeds), for drawing.

    Args:
        curves: of its tasks, with the same sparsities and calibration seeds.
        corrected: chance-correct each task's score first.
        families: as in ``ability_critical``.

    Raises:
        StatisticsError: bad input.
    """
    check_ability(curves, "ability")
    level = check_level(level)
    resamples = check_resamples(resamples, level)
    sample, ability = sample_of(curves), Ability.of(curves, corrected, families)
    least, greatest = (float(ability.scores(np.full((1, len(sample.means)), score))[0, 0]) for score in (0.0, 1.0))
    means = ability.scores(sample.means[None])[0]
    scores = []
    for at, mean in zip(np.eye(len(means)), means, strict=True):
        gradient = ability.gradient(at)
        low, high = linear_interval(sample, gradient, ability.offset(at), level=level, resamples=resamples, seed=seed)
        ends = max(low, least), min(high, greatest)
        scores.append(Estimate(float(mean), *ends, level, method(sample, gradient), caveat_of_two(sample.seeds)))
    return AbilityCurve(
        sparsities=tuple(ability.sparsities.tolist()),
        scores=tuple(scores),
        fitted=tuple(isotonic(means).tolist()),
        corrected=corrected,
        seeds=sample.seeds,
        items=sample.items,
    )
