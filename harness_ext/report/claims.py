"""The headline statements of a report, corrected for their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness_ext.statistics import Disparity, ModelsDisparity, holm, p_value
from harness_ext.statistics.multiplicity import p_text

MAIN_DROP = 0.05  # of the headline statements
LEVEL = 0.05  # of the tests


@dataclass(frozen=True)
class Claim:
    """Whether one ability outlasts the other, for one method, at the main drop.

    Args:
        label: of the method.
        found: the disparity, of one model or over several trained models.
        p: the p-value of its test.
        holm: the same, corrected for the number of headline statements (Holm).
        count: of the headline statements.
        least: the smallest p-value that the resamples can give: ``p`` may be smaller where it is equal to it.
    """

    label: str
    found: Disparity | ModelsDisparity
    p: float
    holm: float
    count: int
    least: float

    @property
    def shown(self) -> bool:
        """Whether it is shown with the correction as well."""
        return self.found.shown and self.holm <= LEVEL

    def p_words(self) -> str:
        """``p = 0.012, 0.036 with Holm's correction for 3 statements``."""
        if self.p <= self.least:
            first, second = f"p at most {p_text(self.p)}", f"at most {p_text(self.holm)}"
        else:
            first, second = f"p = {p_text(self.p)}", p_text(self.holm)
        if self.count == 1:
            return first
        lost = "; not shown after the correction" if self.found.shown and not self.shown else ""
        return f"{first}, {second} with Holm's correction for {self.count} statements{lost}"

    def sentence(self) -> str:
        """What was shown and what was not, with both p-values."""
        return f"{self.found.sentence()} ({self.p_words()})"


def claims(made: Sequence[tuple[str, Disparity | ModelsDisparity, Callable[[float], bool]]], resamples: int) -> list[Claim]:
    """The claims, corrected for their number.

    Args:
        made: label, what was found, and whether that is shown at a level.
        resamples: of the intervals.
    """
    p_values = [p_value(shown, resamples=resamples) for _, _, shown in made]
    return [
        Claim(label, found, p, corrected, len(made), 2 / (resamples + 1))
        for (label, found, _), p, corrected in zip(made, p_values, holm(p_values), strict=True)
    ]
