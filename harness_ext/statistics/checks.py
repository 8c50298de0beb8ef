"""What is asked of scores, ids, sparsities and levels before anything is computed from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness_ext.errors import HarnessExtError, shown

Array = NDArray[np.float64]

RESAMPLES = 2000
"""The usual number of weightings of the items."""


class StatisticsError(HarnessExtError, ValueError):
    """Scores, ids, sparsities or levels from which the statistic asked for cannot be computed."""


def scores_array(values: ArrayLike, what: str, dimensions: tuple[int, ...] = (1,)) -> Array:
    """Scores as float64, checked to be numbers in [0, 1], at least one, in an array of one of the ``dimensions``."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise StatisticsError(f"{what}: want an array of numbers, every row of the same length") from None
    if array.ndim not in dimensions:
        raise StatisticsError(f"{what}: an array of {array.ndim} dimensions; want {' or '.join(map(str, dimensions))}")
    if array.size == 0:
        raise StatisticsError(f"{what}: empty; want at least one item")
    if not np.isfinite(array).all():
        raise StatisticsError(f"{what}: {int((~np.isfinite(array)).sum())} of {array.size} scores are NaN or infinite")
    if array.min() < 0 or array.max() > 1:
        worst = array.min() if array.min() < 0 else array.max()
        raise StatisticsError(f"{what}: a score of {worst:g}; want scores between 0 and 1 (divide percentages by 100)")
    return array


def check_ids(ids: Sequence[Hashable], count: int, what: str) -> tuple[Hashable, ...]:
    """The ids as a tuple, checked to be as many as the items and no two of them equal."""
    ids = tuple(ids)
    if len(ids) != count:
        raise StatisticsError(f"{what}: {len(ids)} ids for {count} scores")
    if len(set(ids)) < count:
        repeated, times = Counter(ids).most_common(1)[0]
        raise StatisticsError(f"{what}: the id {repeated!r} occurs {times} times; every item wants an id of its own")
    return ids


def check_aligned(one: Sequence[Hashable], other: Sequence[Hashable], names: tuple[str, str]) -> None:
    """Refuses two lists of ids that are not the same items in the same order."""
    if tuple(one) == tuple(other):
        return
    left, right = set(one), set(other)
    if left == right:
        raise StatisticsError(f"{names[0]} and {names[1]}: the same items in another order; use Scores.reordered")
    odd = next(iter([key for key in one if key not in right] + [key for key in other if key not in left]))
    where = names[0] if odd in left else names[1]
    raise StatisticsError(f"{names[0]} and {names[1]}: {len(left ^ right)} items are in one alone, such as {odd!r} in {where}")


def check_level(level: float) -> float:
    """A confidence level, such as 0.95."""
    return number_in("level", level, lambda value: 0.5 <= value < 1, "a confidence level in [0.5, 1), such as 0.95")


def check_resamples(resamples: int, level: float) -> int:
    """How many weightings of the items to draw: enough to have one outside of an interval of that level at either end."""
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 100:
        raise StatisticsError(f"resamples={shown(resamples)}: want a whole number of at least 100, such as {RESAMPLES}")
    least = math.ceil(round(2 / (1 - level), 6)) - 1
    if resamples < least:
        raise StatisticsError(f"resamples={resamples}: too few for level={level:g}; want at least {least}")
    return resamples


def check_width(width: float) -> float:
    """The width of an interval of sparsities."""
    return number_in("width", width, lambda value: 0 < value <= 1, "a width in (0, 1], such as 0.05")


def check_chance(chance: float) -> float:
    """The score of a guess."""
    return number_in("chance", chance, lambda value: 0 <= value < 1, "the score of a guess, in [0, 1), such as 0.25 for four choices")


def check_above_chance(dense: float, chance: float, what: str) -> None:
    """Refuses a dense model that has nothing to lose."""
    if dense <= chance:
        raise StatisticsError(f"{what}: the dense score {dense:.4g} is not above chance {chance:.4g}: there is nothing to lose")


def check_drop(drop: float) -> float:
    """A relative drop, such as 0.05."""
    return number_in("drop", drop, lambda value: 0 < value < 1, "a relative drop in (0, 1), such as 0.05 for 5 %")


def check_sparsities(sparsities: ArrayLike, what: str) -> Array:
    """The grid as float64, checked to hold 0 and at least one other, all in [0, 1) and different; any order."""
    try:
        grid = np.asarray(sparsities, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise StatisticsError(f"{what}: sparsities={shown(sparsities)}: want numbers in [0, 1)") from None
    listed = ", ".join(f"{value:g}" for value in grid)
    if len(grid) < 2:
        raise StatisticsError(f"{what}: sparsities [{listed}]: want at least two, 0 (the dense model) among them")
    if not np.isfinite(grid).all() or grid.min() < 0 or grid.max() >= 1:
        raise StatisticsError(f"{what}: sparsities [{listed}]: want ratios in [0, 1)")
    if len(np.unique(grid)) < len(grid):
        twice = next(value for value in grid if (grid == value).sum() > 1)
        raise StatisticsError(f"{what}: the sparsity {twice:g} is there twice; want every sparsity once")
    if 0 not in grid:
        raise StatisticsError(f"{what}: sparsities [{listed}]: the dense model (0) is missing, and drops are relative to it")
    return grid


def number_in(name: str, value: Any, allowed: Callable[[float], bool], want: str) -> float:
    """The value of the argument ``name`` as a float, checked to be a number that is ``allowed``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not allowed(value):
        raise StatisticsError(f"{name}={shown(value)}: want {want}")
    return float(value)


def plain(value: Any) -> Any:
    """Numbers, tuples and mappings of numpy as those of Python, which ``json`` writes."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
