"""P-values of tests that are known by their intervals, and their correction for the number of tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from harness_ext.statistics.checks import RESAMPLES, StatisticsError, check_resamples


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values (Scandinavian Journal of Statistics 6, 1979, 65-70), in the order of ``p_values``.

    The i-th smallest of m p-values is multiplied by m - i + 1. An adjusted p-value is at least that of every smaller p-value, and at most
    1. To reject where the adjusted value is at most 0.05 keeps the probability of any false rejection at 5 %, whatever the dependence.

    Args:
        p_values: of the tests, in [0, 1]; may be empty.

    Raises:
        StatisticsError: a value outside of [0, 1], or NaN.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1:
        raise StatisticsError(f"p_values: an array of {values.ndim} dimensions; want a list of numbers")
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        raise StatisticsError(f"p_values: {values[wrong][0]:g} is not a p-value; want numbers in [0, 1]")
    order = np.argsort(values, kind="stable")
    multiplied = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(multiplied), 1.0)
    return tuple(adjusted.tolist())


def p_text(value: float) -> str:
    """A p-value in two significant digits: ``0.10``, ``0.00050``."""
    return f"{value:#.2g}"


def p_value(shown: Callable[[float], bool], *, resamples: int = RESAMPLES) -> float:
    """The p-value of a test that is known by its intervals: the smallest ``1 - level`` at which it shows something.

    ``p_value(lambda level: disparity(recall, in_context, drop=0.05, level=level).shown)`` is that of a disparity, for ``holm``.

    Args:
        shown: whether the test shows something at a level; what is shown at a level must be shown at every lower one.
        resamples: those of the intervals, which bound the levels that they have.

    Returns:
        the p-value, at most 1 % too large; ``2 / (resamples + 1)`` stands for all that are smaller, 1 for all above 0.5.
    """
    low, high = 2 / (check_resamples(resamples, 0.95) + 1), 0.5
    if not shown(1 - high):
        return 1.0
    if shown(1 - low):
        return low
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if shown(1 - middle) else (middle, high)
    return high
