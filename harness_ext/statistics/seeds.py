"""The same pruning with several calibration seeds: mean, spread, and an interval over seeds and items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness_ext.statistics.checks import (
    RESAMPLES,
    Array,
    StatisticsError,
    check_above_chance,
    check_aligned,
    check_chance,
    check_level,
    check_resamples,
)
from harness_ext.statistics.pairs import Scores, paired_estimates
from harness_ext.statistics.resampling import linear_interval, method
from harness_ext.statistics.results import Estimate, Result, caveat_of_two
from harness_ext.statistics.weighting import Sample, Table


@dataclass(frozen=True)
class Spread(Result):
    """A statistic over calibration seeds.

    Args:
        values: of each seed.
        mean: over all seeds, with its interval.
        sd: over seeds (n - 1); None with one. It holds the noise of the items as well.
        least, greatest: over seeds.
    """

    values: tuple[float, ...]
    mean: Estimate
    sd: float | None
    least: float
    greatest: float


@dataclass(frozen=True)
class OverSeeds(Result):
    """A pruned model over calibration seeds.

    Args:
        accuracy: the mean score.
        corrected: the same, chance-corrected.
        retained, difference: against the dense model; None if it is not given.
        caveat: what the intervals do not hold, or None; with two seeds there is one.
    """

    seeds: int
    items: int
    chance: float
    accuracy: Spread
    corrected: Spread
    retained: Spread | None
    difference: Spread | None
    caveat: str | None = None


def over_seeds(
    pruned: Sequence[Scores],
    *,
    dense: Scores | None = None,
    chance: float = 0.0,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> OverSeeds:
    """Mean, spread and an interval over calibration seeds and items (``resampling.interval``).

    Args:
        pruned: one for each calibration seed, of the same items in the same order.
        dense: the dense model on those items.
        seed: of the bootstrap.

    Raises:
        StatisticsError: no scores, other items, another order, or a dense score that is not above chance.
    """
    if not pruned:
        raise StatisticsError("pruned: no scores; want those of at least one calibration seed")
    for index, scores in enumerate(pruned[1:], 1):
        check_aligned(pruned[0].ids, scores.ids, ("calibration seed number 0", f"calibration seed number {index}"))
    chance, level = check_chance(chance), check_level(level)
    resamples = check_resamples(resamples, level)
    sample = Sample([Table(tuple(pruned[0].ids), np.stack([scores.array for scores in pruned])[:, None])])
    ends = linear_interval(sample, np.ones(1), level=level, resamples=resamples, seed=seed)
    low, high = max(ends[0], 0.0), min(ends[1], 1.0)  # clipped to the range of a score
    caveat = caveat_of_two(sample.seeds)
    raw = Estimate(float(sample.means[0]), low, high, level, method(sample, np.ones(1)), caveat)
    each = sample.by_seed[:, 0]
    value, low, high = ((end - chance) / (1 - chance) for end in (raw.value, low, high))
    shifted = Estimate(value, low, high, level, raw.method, caveat)
    retained = difference = None
    if dense is not None:
        check_aligned(dense.ids, pruned[0].ids, ("dense", "pruned"))
        before = float(dense.array.mean())
        check_above_chance(before, chance, "dense")
        left, apart = paired_estimates(dense, pruned, chance=chance, level=level, resamples=resamples, seed=seed)
        retained, difference = _spread((each - chance) / (before - chance), left), _spread(each - before, apart)
    return OverSeeds(
        seeds=len(pruned),
        items=len(pruned[0].ids),
        chance=chance,
        accuracy=_spread(each, raw),
        corrected=_spread((each - chance) / (1 - chance), shifted),
        retained=retained,
        difference=difference,
        caveat=caveat,
    )


def _spread(values: Array, mean: Estimate) -> Spread:
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return Spread(tuple(values.tolist()), mean, sd, float(values.min()), float(values.max()))
