"""Whether in-context ability outlasts recall: the difference of two critical sparsities."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from harness_ext.statistics.checks import RESAMPLES, StatisticsError
from harness_ext.statistics.critical import Critical, ability_critical
from harness_ext.statistics.curves import Curve, check_ability
from harness_ext.statistics.results import Result, percent

Kind = Literal["estimate", "at least", "at most", "unknown"]
Finding = Literal["in-context outlasts recall", "recall outlasts in-context", "not shown"]
NAMES = ("recall", "in-context ability")


@dataclass(frozen=True)
class Disparity(Result):
    """The critical sparsity of in-context abilities minus that of recall, of one trained model.

    Args:
        recall: its critical sparsity.
        in_context: that of the in-context ability.
        kind: what ``difference`` is: an ``estimate``, or a bound where one of the two lies beyond the grid (``at least``: recall fails and
            in-context ability does not; ``at most``: the reverse), or ``unknown`` (None) where both do.
        difference: in sparsity, with curves that are straight between the measured sparsities.
        low: the lower end of the interval, None where there is none.
        high: the upper end, None where there is none.
        finding: which ability outlasts the other: there is a measured sparsity at which one is lost and the other is not. The interval then
            lies on one side of 0; an end of 0 means that both may fail right there, one just before and one just after.
        told_apart_at: that sparsity, None where nothing is shown.
        add: sparsities to measure that make the interval narrower, rising.
        level: of the interval; the test has the level ``1 - level``.
        names: of the two abilities, for sentences: recall's first.
        caveat: what the interval does not hold, or None; with two calibration seeds there is one.
    """

    recall: Critical
    in_context: Critical
    kind: Kind
    difference: float | None
    low: float | None
    high: float | None
    finding: Finding
    told_apart_at: float | None
    add: tuple[float, ...]
    level: float
    names: tuple[str, str]
    caveat: str | None = None

    @property
    def drop(self) -> float:
        """The relative drop."""
        return self.recall.drop

    @property
    def shown(self) -> bool:
        """Whether one ability outlasts the other, on either side."""
        return self.finding != "not shown"

    def sentence(self, *, shown: bool | None = None) -> str:
        """What was shown of this model and what was not, which sparsities to add, and the caveat.

        Args:
            shown: the verdict after a correction for several statements; by default that of this test alone.
        """
        more = f" To narrow this, add the sparsities {', '.join(f'{place:g}' for place in self.add)}." if self.add else ""
        caveat = f" Intervals are {self.caveat}." if self.caveat else ""
        return f"{self._claim(shown is False)}{more}{caveat}"

    def _claim(self, corrected_away: bool) -> str:
        recall, other = self.names
        corrected = "chance-corrected " if self.recall.corrected else ""
        at = f"At a {percent(self.recall.drop)} relative drop of the {corrected}score"
        if self.recall.censored and self.in_context.censored:
            return (
                f"{at} neither {recall} ({percent(self.level)} CI {self.recall.interval_words()}) nor {other} "
                f"({self.in_context.interval_words()}) of this model fails within the sparsities measured: "
                f"which of the two fails first is not shown."
            )
        measured = f"{at} {recall} of this model {self.recall.phrase()} and {other} {self.in_context.phrase(short=True)}"
        if self.shown and corrected_away:
            return f"{measured}. A{not_after_correction(self)[1:]}."
        if self.finding == "in-context outlasts recall":
            return f"{measured}. {self._at(recall, other)}: {outlasts_words(self)}."
        if self.finding == "recall outlasts in-context":
            return f"{measured}. {self._at(other, recall)}: the reverse of the claim is shown, {outlasts_words(self)}."
        return f"{measured}. That one outlasts the other is not shown: {difference_words(self)}."

    def _at(self, lost: str, held: str) -> str:
        return f"At {self.told_apart_at or 0.0:g} {lost} is lost and {held} is not"


def range_words(low: float | None, high: float | None) -> str:
    """``0.1 to 0.3``, ``0.1 or more``: the ends rounded outwards to thousandths."""
    if low is None:
        return "unknown" if high is None else f"{_outwards(high, math.ceil)} or less"
    return f"{_outwards(low, math.floor)} {'or more' if high is None else f'to {_outwards(high, math.ceil)}'}"


def _outwards(end: float, rounded: Callable[[float], int]) -> str:
    return f"{rounded(round(1000 * end, 6)) / 1000:g}"  # 0.3 is stored as a little less or more


class Compared(Protocol):
    """A disparity of one model, or over several."""

    @property
    def finding(self) -> Finding: ...
    @property
    def drop(self) -> float: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def names(self) -> tuple[str, str]: ...


def difference_words(compared: Compared) -> str:
    """``in-context ability less recall is -0.1 to 0.3, an interval that includes 0``; of a disparity that is not shown."""
    recall, other = compared.names
    if compared.low is None and compared.high is None:
        return f"nothing is known of the difference between {recall} and {other}"
    return f"{other} less {recall} is {range_words(compared.low, compared.high)}, an interval that includes 0"


def not_after_correction(compared: Compared) -> str:
    """Words for a disparity that is shown by its own test, and not after a correction for several statements."""
    return f"after the correction for the number of statements, it is not shown that {outlasts_words(compared)}"


def outlasts_words(compared: Compared) -> str:
    """``in-context ability outlasts recall by 0.1 to 0.3``, or the reverse; of a disparity that is shown."""
    low, high, (lost, held) = compared.low, compared.high, compared.names
    if compared.finding == "recall outlasts in-context":
        low, high, lost, held = (None if high is None else -high), (None if low is None else -low), held, lost
    amount = range_words(low, high) if low else "more than 0" if high is None else f"up to {_outwards(high, math.ceil)}"
    return f"{held} outlasts {lost} by {amount}"


def disparity(
    recall: Sequence[Curve],
    in_context: Sequence[Curve],
    *,
    drop: float,
    corrected: bool = False,
    families: Mapping[str, Hashable] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    names: tuple[str, str] = NAMES,
) -> Disparity:
    """The critical sparsity of in-context abilities minus that of recall, of one trained model.

    The interval reaches from the lower end of one critical sparsity less the upper end of the other to the reverse. It covers every pair of
    monotone curves through the measured scores. Each of the four ends is missed with probability ``(1 - level) / 2`` at most. Two of them
    make the lower end of the difference and two the upper one. Whatever the place of the two truths in their cells, a miss by one step of
    only two of the four takes the truth out of the interval, so the interval has the level of the critical sparsities.

    Args:
        recall: the curves of its tasks, with the same sparsities; the two abilities may differ in theirs.
        in_context: the same of the in-context ability.
        drop: relative, such as 0.05.
        corrected: chance-correct each task's score first.
        families: the family of each task of both abilities, as in ``ability_critical``.

    Raises:
        StatisticsError: bad input.
    """
    check_ability(recall, names[0])
    check_ability(in_context, names[1])
    if recall[0].seeds != in_context[0].seeds:
        raise StatisticsError(f"{names[0]} has {recall[0].seeds} calibration seeds, {names[1]} {in_context[0].seeds}; want the same ones")
    first, second = (
        ability_critical(curves, drop=drop, corrected=corrected, families=families, level=level, resamples=resamples, seed=seed)
        for curves in (recall, in_context)
    )
    return from_criticals(first, second, names)


def from_criticals(first: Critical, second: Critical, names: tuple[str, str]) -> Disparity:
    """The disparity of two critical sparsities, recall's first, with the same drop and level."""
    kind, difference = _estimate(first, second)
    finding: Finding = "not shown"
    told_apart_at = None
    if first.high is not None and first.high <= second.low:
        finding, told_apart_at = "in-context outlasts recall", first.high
    elif second.high is not None and second.high <= first.low:
        finding, told_apart_at = "recall outlasts in-context", second.high
    return Disparity(
        recall=first,
        in_context=second,
        kind=kind,
        difference=difference,
        low=None if first.high is None else second.low - first.high,
        high=None if second.high is None else second.high - first.low,
        finding=finding,
        told_apart_at=told_apart_at,
        add=tuple(sorted({*first.add, *second.add})),
        level=first.level,
        names=names,
        caveat=first.caveat,
    )


def _estimate(recall: Critical, in_context: Critical) -> tuple[Kind, float | None]:
    """The kind of the difference and its value; what never fails within the grid counts with the last sparsity."""
    if recall.sparsity is None:
        return ("unknown", None) if in_context.sparsity is None else ("at most", in_context.sparsity - recall.last)
    if in_context.sparsity is None:
        return "at least", in_context.last - recall.sparsity
    return "estimate", in_context.sparsity - recall.sparsity
