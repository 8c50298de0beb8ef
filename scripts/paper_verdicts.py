"""Rules by which a claim is shown, not shown, reversed or not testable.

Two rules were changed after data had been seen, and docs/results.md prints the verdicts by the first rules as well:

- ``every``: changed after a trial run on 32 to 48 items. Before, one reversed part was enough for the reverse (``one_reversed_part``).
- ``NOT_TESTABLE``: added after the full run. Before, a model that never learned an ability was counted as one that had lost it.

All other rules were written before the full run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness_ext import statistics

Outcome = Literal["shown", "not shown", "the reverse", "not testable", "not measured"]
SHOWN: Outcome = "shown"
NOT_SHOWN: Outcome = "not shown"
REVERSE: Outcome = "the reverse"
NOT_TESTABLE: Outcome = "not testable"
NOT_MEASURED: Outcome = "not measured"


def above(low: float | None, high: float | None, bound: float = 0.0) -> Outcome:
    """Judges the claim that a number is above ``bound``, by its interval. An end that is None is unbounded."""
    if (-math.inf if low is None else low) > bound:
        return SHOWN
    return REVERSE if (math.inf if high is None else high) < bound else NOT_SHOWN


def below(low: float | None, high: float | None, bound: float = 0.0) -> Outcome:
    """Judges the claim that a number is below ``bound``."""
    return above(None if high is None else -high, None if low is None else -low, -bound)


def near(low: float | None, high: float | None, margin: float) -> Outcome:
    """Judges the claim that a number is about 0. Shown: the interval is within the margin. The reverse: it is wholly outside."""
    least, greatest = (-math.inf if low is None else low), (math.inf if high is None else high)
    if -margin < least and greatest < margin:
        return SHOWN
    return REVERSE if least > margin or greatest < -margin else NOT_SHOWN


def every(outcomes: Iterable[Outcome]) -> Outcome:
    """Judges a claim of several parts, all of which must hold. The reverse: at least one part is reversed and no part is shown."""
    found = list(outcomes)
    if REVERSE in found:
        return NOT_SHOWN if SHOWN in found else REVERSE
    for outcome in (NOT_MEASURED, NOT_SHOWN):
        if outcome in found:
            return outcome
    return SHOWN if found else NOT_MEASURED


def one_reversed_part(outcomes: Iterable[Outcome]) -> Outcome:
    """Judges a claim of several parts by the first rule, under which one reversed part was enough for the reverse."""
    found = list(outcomes)
    return REVERSE if REVERSE in found else every(found)


def some(p_values: Sequence[float], differences: Sequence[float], highest: Sequence[float], least: float) -> tuple[Outcome, list[int]]:
    """Judges the claim that at least one of many cells is above 0.

    Args:
        p_values: two-sided, one per cell, not corrected. Holm's correction at 5 % over all cells is applied here.
        differences: the estimates, one per cell.
        highest: simultaneous upper ends, one per cell. The reverse: all are below ``least``.

    Returns:
        the outcome, and the indices of the cells that are above 0.
    """
    if not p_values:
        return NOT_MEASURED, []
    rejected = holm(p_values)
    risen = [index for index, yes in enumerate(rejected) if yes and differences[index] > 0]
    if risen:
        return SHOWN, risen
    return (REVERSE if max(highest) < least else NOT_SHOWN), []


def holm(p_values: Sequence[float]) -> list[bool]:
    """Says which of the tests reject at a family-wise level of 5 %."""
    return [p_value <= 0.05 for p_value in statistics.holm(p_values)]


@dataclass(frozen=True)
class Line:
    """One measurement and its verdict."""

    what: str
    figure: str
    outcome: Outcome


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, or a question of our own.

    Args:
        name: the claim in one short sentence.
        paper: what the paper reports, marked by how we know it (P: from its abstract or a review that quotes it; N: from others' notes).
        rule: how the claim is judged here.
        lines: the measurements.
        deciding: the lines that decide the verdict.
        given: the verdict, where the deciding lines alone do not decide it.
        note: what a reader must know beside the verdict.
        ours: the paper does not make this claim.
    """

    name: str
    paper: str
    rule: str
    lines: list[Line]
    deciding: list[Line]
    given: Outcome | None = None
    note: str = ""
    ours: bool = False

    @property
    def outcome(self) -> Outcome:
        return every(one.outcome for one in self.deciding) if self.given is None else self.given

    @property
    def first_outcome(self) -> Outcome:
        """The verdict by the rules as they were before any data were seen."""
        return one_reversed_part(one.outcome for one in self.deciding) if self.deciding else self.outcome

    @property
    def parts(self) -> str:
        """The deciding lines, where they differ in outcome."""
        if len({one.outcome for one in self.deciding}) < 2:
            return ""
        return "; ".join(f"{one.what}: {one.outcome}" for one in self.deciding)
