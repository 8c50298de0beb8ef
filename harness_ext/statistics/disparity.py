"""Whether in-context ability outlasts recall: the difference of two critical sparsities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness_ext.statistics.checks import Array, StatisticsError, check_drop, check_level, check_resamples
from harness_ext.statistics.critical import Critical, critical, sample_of
from harness_ext.statistics.curves import Crossing, Curve, check_ability
from harness_ext.statistics.resampling import Bounds, interval
from harness_ext.statistics.results import Result, bounded, percent

Kind = Literal["estimate", "at least", "at most", "unknown"]
Finding = Literal["in-context outlasts recall", "recall outlasts in-context", "not shown"]


@dataclass(frozen=True)
class _Difference:
    """In-context critical sparsity minus recall's, as bounds: one that lies beyond the grid may be anything from the last sparsity up."""

    recall: Crossing
    in_context: Crossing

    def __call__(self, means: Array) -> Bounds:
        (recall_low, recall_high), (low, high) = self.recall(means), self.in_context(means)
        return low - recall_high, high - recall_low

    def contrast(self, means: Array) -> Array:
        weights = self.in_context.contrast(means, per_fall=True) - self.recall.contrast(means, per_fall=True)
        return weights if weights.any() else self.in_context.contrast(means) - self.recall.contrast(means)


@dataclass(frozen=True)
class Disparity(Result):
    """The critical sparsity of in-context abilities minus that of recall.

    Args:
        recall: its critical sparsity.
        in_context: that of the in-context ability.
        kind: what ``difference`` is: an ``estimate``, or a bound where one of the two lies beyond the grid (``at least``: recall fails and
            in-context ability does not; ``at most``: the reverse), or ``unknown`` (None) where both do.
        difference: in sparsity.
        low: the lower end of the interval, None where there is none.
        high: the upper end, None where there is none.
        finding: whether the interval excludes 0, and on which side it lies.
        level: of the interval; the test has the level ``1 - level``.
        names: of the two abilities, for sentences: recall's first.
    """

    recall: Critical
    in_context: Critical
    kind: Kind
    difference: float | None
    low: float | None
    high: float | None
    finding: Finding
    level: float
    names: tuple[str, str]

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 0, on either side."""
        return self.finding != "not shown"

    def sentence(self) -> str:
        """What was shown and what was not, in one sentence."""
        recall, other = self.names
        corrected = "chance-corrected " if self.recall.corrected else ""
        at = f"At a {percent(self.recall.drop)} relative drop of the {corrected}score"
        if self.recall.censored and self.in_context.censored:
            return (
                f"{at} neither {recall} ({percent(self.level)} CI {self.recall.interval_words()}) nor {other} "
                f"({self.in_context.interval_words()}) fails within the sparsities measured: which of the two fails first is not shown."
            )
        said = f"{at} {recall} {self.recall.phrase()} "
        said += f"and {other} {self.in_context.phrase(short=True)}: "
        if self.finding == "in-context outlasts recall":
            return f"{said}{other} outlasts {recall} by {self._by()}."
        if self.finding == "recall outlasts in-context":
            return f"{said}the reverse of the claim is shown, {recall} outlasts {other} by {self._by(-1)}."
        return f"{said}that one outlasts the other is not shown, {other} less {recall} is {self._by()}, an interval that includes 0."

    def _by(self, sign: int = 1) -> str:
        low, high = (self.low, self.high) if sign > 0 else tuple(None if end is None else -end for end in (self.high, self.low))
        kind = {"at least": "at most", "at most": "at least"}.get(self.kind, self.kind) if sign < 0 else self.kind
        value = f"{'' if kind == 'estimate' else kind + ' '}{sign * (self.difference or 0.0) + 0.0:.2f}"
        if low is None:
            return f"{value} (no lower end" + (f", at most {high:.2f})" if high is not None else " and no upper end)")
        return f"{value} ({f'{low:.2f} to {high:.2f}' if high is not None else f'{low:.2f} or more'})"


def disparity(
    recall: Sequence[Curve],
    in_context: Sequence[Curve],
    *,
    drop: float,
    corrected: bool = False,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    names: tuple[str, str] = ("recall", "in-context ability"),
) -> Disparity:
    """The critical sparsity of in-context abilities minus that of recall, with a bootstrap interval.

    Items of the same id are resampled together, in whatever task they are, and so are calibration seeds.

    Args:
        recall: the curves of its tasks, with the same sparsities; the two abilities may differ in theirs.
        in_context: the same of the in-context ability.
        drop: relative, such as 0.05.
        corrected: chance-correct each task's score first.

    Raises:
        StatisticsError: bad input.
    """
    check_ability(recall, names[0])
    check_ability(in_context, names[1])
    if recall[0].seeds != in_context[0].seeds:
        raise StatisticsError(f"{names[0]} has {recall[0].seeds} calibration seeds, {names[1]} {in_context[0].seeds}; want the same ones")
    drop, level, resamples = check_drop(drop), check_level(level), check_resamples(resamples)
    sample = sample_of([*recall, *in_context])
    one = Crossing.of(recall, drop, corrected)
    other = Crossing.of(in_context, drop, corrected, first_column=one.columns.size)
    both = _Difference(one, other)
    low, high = interval(sample, both, both.contrast(sample.means), level=level, resamples=resamples, seed=seed, cautious=True)
    least, greatest = (float(bound[0]) for bound in both(sample.means[None]))
    kind: Kind = "unknown"
    if np.isfinite(least):
        kind = "estimate" if np.isfinite(greatest) else "at least"
    elif np.isfinite(greatest):
        kind = "at most"
    finding: Finding = "in-context outlasts recall" if low > 0 else "recall outlasts in-context" if high < 0 else "not shown"
    return Disparity(
        recall=critical(one, sample_of(recall), level, resamples, seed),
        in_context=critical(Crossing.of(in_context, drop, corrected), sample_of(in_context), level, resamples, seed),
        kind=kind,
        difference={"estimate": least, "at least": least, "at most": greatest, "unknown": None}[kind],
        low=bounded(low),
        high=bounded(high),
        finding=finding,
        level=level,
        names=names,
    )
