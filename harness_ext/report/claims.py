"""The headline statements of a report, with p-values that are corrected for the number of statements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness_ext.statistics import Disparity, ModelsDisparity, holm, p_value
from harness_ext.statistics.multiplicity import p_text

MAIN_DROP = 0.05  # the relative drop of the headline statements
LEVEL = 0.05  # significance level of the tests


@dataclass(frozen=True)
class Claim:
    """Whether one ability outlasts the other, for one method, at the main drop.

    Args:
        label: label of the method.
        found: the disparity of one model, or over several trained models.
        p: the p-value of its test.
        holm: the p-value after Holm's correction for the number of headline statements.
        count: number of headline statements.
        least: the smallest p-value that the resamples can give. If ``p`` equals it, the true value may be smaller.
    """

    label: str
    found: Disparity | ModelsDisparity
    p: float
    holm: float
    count: int
    least: float

    @property
    def shown(self) -> bool:
        """Whether the test is still significant after the correction."""
        return self.found.shown and (self.count == 1 or self.holm <= LEVEL)

    def p_words(self) -> str:
        """``p = 0.012, 0.036 with Holm's correction for 3 statements``."""
        if self.p <= self.least:
            first, second = f"p at most {p_text(self.p)}", f"at most {p_text(self.holm)}"
        else:
            first, second = f"p = {p_text(self.p)}", p_text(self.holm)
        if self.count == 1:
            return first
        return f"{first}, {second} with Holm's correction for {self.count} statements"

    def sentence(self) -> str:
        """The sentence about the disparity, with the verdict after the correction and both p-values."""
        return f"{self.found.sentence(shown=self.shown)} ({self.p_words()})"


def claims(statements: Sequence[tuple[str, Disparity | ModelsDisparity, Callable[[float], bool]]], resamples: int) -> list[Claim]:
    """Makes the claims, with Holm's correction for their number.

    Args:
        statements: for each, the label, the disparity, and a function that tells whether it is significant at a level.
        resamples: number of resamples of the intervals.
    """
    p_values = [p_value(shown, resamples=resamples) for _, _, shown in statements]
    return [
        Claim(label, result, p, adjusted, len(statements), 2 / (resamples + 1))
        for (label, result, _), p, adjusted in zip(statements, p_values, holm(p_values), strict=True)
    ]
