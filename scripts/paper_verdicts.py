"""What counts as shown, as not shown, and as the reverse. These rules stood before the data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

Outcome = Literal["shown", "not shown", "the reverse", "not measured"]
SHOWN: Outcome = "shown"
NOT_SHOWN: Outcome = "not shown"
REVERSE: Outcome = "the reverse"
NOT_MEASURED: Outcome = "not measured"


def above(low: float | None, high: float | None, bound: float = 0.0) -> Outcome:
    """A claim that a number is above ``bound``, by its interval; an end that is None is unbounded."""
    if (-math.inf if low is None else low) > bound:
        return SHOWN
    return REVERSE if (math.inf if high is None else high) < bound else NOT_SHOWN


def below(low: float | None, high: float | None, bound: float = 0.0) -> Outcome:
    """A claim that a number is below ``bound``."""
    return above(None if high is None else -high, None if low is None else -low, -bound)


def near(low: float | None, high: float | None, margin: float) -> Outcome:
    """A claim that a number is about 0: the interval is within the margin (shown) or wholly outside (the reverse)."""
    least, greatest = (-math.inf if low is None else low), (math.inf if high is None else high)
    if -margin < least and greatest < margin:
        return SHOWN
    return REVERSE if least > margin or greatest < -margin else NOT_SHOWN


def every(outcomes: Iterable[Outcome]) -> Outcome:
    """A claim that holds if all of its parts hold. The reverse is shown if it is of some part and no part holds."""
    found = list(outcomes)
    if REVERSE in found:
        return NOT_SHOWN if SHOWN in found else REVERSE
    for outcome in (NOT_MEASURED, NOT_SHOWN):
        if outcome in found:
            return outcome
    return SHOWN if found else NOT_MEASURED


def some(p_values: Sequence[float], differences: Sequence[float], highest: Sequence[float], least: float) -> tuple[Outcome, list[int]]:
    """A claim that at least one of many cells is above 0.

    Args:
        p_values: two-sided, one a cell, without correction: Holm's is made here, at 5 % over all cells.
        differences: the estimates.
        highest: simultaneous upper ends; if all are below ``least`` the reverse is shown.

    Returns:
        the outcome, and the cells that are above 0.
    """
    if not p_values:
        return NOT_MEASURED, []
    rejected = holm(p_values)
    risen = [index for index, yes in enumerate(rejected) if yes and differences[index] > 0]
    if risen:
        return SHOWN, risen
    return (REVERSE if max(highest) < least else NOT_SHOWN), []


def holm(p_values: Sequence[float]) -> list[bool]:
    """Which of the tests reject at a family-wise level of 5 %."""
    from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

    return [bool(yes) for yes in multipletests(list(p_values), alpha=0.05, method="holm")[0]] if len(p_values) else []
