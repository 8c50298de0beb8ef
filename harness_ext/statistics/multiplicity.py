"""Corrections of p-values for the number of tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness_ext.statistics.checks import StatisticsError


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
