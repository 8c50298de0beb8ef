"""Critical sparsities by difficulty: items of an ability in bins of their margin in the dense model."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness_ext.statistics.checks import RESAMPLES, StatisticsError, check_drop, check_level, check_resamples
from harness_ext.statistics.critical import Critical
from harness_ext.statistics.curves import Curve
from harness_ext.statistics.results import Result
from harness_ext.statistics.right_items import RightItems
from harness_ext.statistics.weighted_items import resample, weighted_critical

FEWEST_ITEMS, MOST_BINS = 30, 8


@dataclass(frozen=True)
class DifficultyBin(Result):
    """Items of neighbouring margins.

    Args:
        low, middle, high: the least, the median and the greatest margin.
        items: in the bin.
        critical: where the score of these items falls.
    """

    low: float
    middle: float
    high: float
    items: int
    critical: Critical


def by_difficulty(
    curves: Sequence[Curve],
    margins: Mapping[str, ArrayLike],
    *,
    drop: float,
    corrected: bool = False,
    families: Mapping[str, Hashable] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    fewest: int = FEWEST_ITEMS,
    most: int = MOST_BINS,
) -> tuple[DifficultyBin, ...]:
    """The critical sparsity of an ability in bins of equally many items, by rising margin.

    Only items that the dense model answers rightly count, so the dense score of a bin is 1. An item counts in its bin as it counts in the
    score of the ability.

    Args:
        curves: of the tasks of the ability, as in ``ability_critical``.
        margins: by the name of the task, as in ``Matching``.
        drop: relative, such as 0.5. With n items of equal weight, a drop below about 4 / n cannot be told from none.
        fewest: items of a bin.
        most: bins.

    Returns:
        The bins; none if there are fewer than ``fewest`` items.

    Raises:
        StatisticsError: bad input.
    """
    drop, level = check_drop(drop), check_level(level)
    check_resamples(resamples, level)
    for name, value in (("fewest", fewest), ("most", most)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise StatisticsError(f"{name}={value!r}: want a whole number of at least 1")
    right = RightItems.of(curves, margins, corrected, families, "ability")
    count = min(most, len(right.margins) // fewest)
    bins = []
    for number, members in enumerate(np.array_split(np.arange(len(right.margins)), count) if count else ()):
        items = right.items(right.weights, corrected, members)
        critical = weighted_critical(items, resample(items, resamples=resamples, seed=seed + number), drop=drop, level=level)
        inside = right.margins[members]
        bins.append(DifficultyBin(float(inside[0]), float(np.median(inside)), float(inside[-1]), len(members), critical))
    return tuple(bins)
