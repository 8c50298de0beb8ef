"""The disparity over several trained models, which are the unit: each was trained with a seed of its own."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student  # type: ignore[import-untyped]

from harness_ext.statistics.checks import RESAMPLES, StatisticsError
from harness_ext.statistics.curves import Curve, over_calibrations
from harness_ext.statistics.disparity import (
    NAMES,
    Disparity,
    Finding,
    difference_words,
    disparity,
    not_after_correction,
    outlasts_words,
    range_words,
)
from harness_ext.statistics.resampling import square_and_add
from harness_ext.statistics.results import Result, bounded, caveat_of_two, percent


@dataclass(frozen=True)
class ModelsDisparity(Result):
    """The mean over trained models of the critical sparsity of in-context abilities minus that of recall.

    Args:
        models: their names.
        disparities: of each model, with its own interval over items and the grid; scores are averaged over calibration seeds.
        difference: the mean of the models' differences; None where a model has a bound and no estimate.
        sd: between models (n - 1), of those differences; None as well where ``difference`` is. It holds the noise of items and seeds.
        low: the lower end of the interval, None where there is none.
        high: the upper end, None where there is none.
        finding: whether the interval lies above or below 0.
        add: sparsities to measure that make the intervals of the models narrower, rising.
        level: of the interval; the test has the level ``1 - level``.
        names: of the two abilities, for sentences: recall's first.
        caveat: what the interval does not hold, or None; with two models there is one.
    """

    models: tuple[str, ...]
    disparities: tuple[Disparity, ...]
    difference: float | None
    sd: float | None
    low: float | None
    high: float | None
    finding: Finding
    add: tuple[float, ...]
    level: float
    names: tuple[str, str]
    caveat: str | None = None

    @property
    def drop(self) -> float:
        """The relative drop."""
        return self.disparities[0].drop

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 0, on either side."""
        return self.finding != "not shown"

    def sentence(self, *, shown: bool | None = None) -> str:
        """What was shown of such models and what was not, and the caveat.

        Args:
            shown: the verdict after a correction for several statements; by default that of this test alone.
        """
        recall, other = self.names
        first = self.disparities[0].recall
        corrected = "chance-corrected " if first.corrected else ""
        start = f"Over {len(self.models)} trained models, at a {percent(first.drop)} relative drop of the {corrected}score"
        interval = f"{percent(self.level)} CI over models"
        caveat = f" Intervals are {self.caveat}." if self.caveat else ""
        if self.shown and shown is False:
            return f"{start}: {not_after_correction(self)} ({interval}).{caveat}"
        if self.finding == "in-context outlasts recall":
            return f"{start} {outlasts_words(self)} ({interval}).{caveat}"
        if self.finding == "recall outlasts in-context":
            return f"{start} the reverse of the claim is shown: {outlasts_words(self)} ({interval}).{caveat}"
        if self.low is None and self.high is None:
            return f"{start} that one outlasts the other is not shown: {difference_words(self)}.{caveat}"
        less = f"{other} less {recall} is {range_words(self.low, self.high)}"
        return f"{start} that one outlasts the other is not shown: {less} ({interval}).{caveat}"


def disparity_over_models(
    models: Mapping[str, tuple[Sequence[Curve], Sequence[Curve]]],
    *,
    drop: float,
    corrected: bool = False,
    families: Mapping[str, Hashable] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    names: tuple[str, str] = NAMES,
) -> ModelsDisparity:
    """The mean disparity of models that differ in their training seed, with Student's t interval over the models.

    Each model's difference lies between two bounds, which its two cells of the grid give. The lower end of the interval is that of
    Student's t over the models' lower bounds. Calibration seeds are nested within models: each model's scores are averaged over its seeds,
    so the spread between models holds what calibration adds. What items add is the mean distance from the lower bounds to the lower ends
    of the models' own intervals. The items are the same for all models, so their part does not shrink with the number of models. The two
    parts add as squares (``resampling.square_and_add``). The upper end is made in the same way.

    Args:
        models: by name, the curves of recall and of the in-context ability; at least two models. Each curve may have calibration seeds.
        drop: relative, such as 0.05.
        corrected: chance-correct each task's score first.
        families: the family of each task of both abilities, as in ``ability_critical``.

    Raises:
        StatisticsError: fewer than two models, or bad input.
    """
    if len(models) < 2:
        raise StatisticsError(f"models: {len(models)}; want at least two trained models, or use disparity for one")
    return over_models({
        name: disparity(
            over_calibrations(recall),
            over_calibrations(in_context),
            drop=drop,
            corrected=corrected,
            families=families,
            level=level,
            resamples=resamples,
            seed=seed,
            names=names,
        )
        for name, (recall, in_context) in models.items()
    })  # fmt: skip


def over_models(disparities: Mapping[str, Disparity]) -> ModelsDisparity:
    """The mean of the disparities of at least two models, by name, as ``disparity_over_models`` describes it."""
    each = list(disparities.values())
    names = each[0].names
    cells = [(one.recall.cell, one.in_context.cell) for one in each]
    lowest = _end([_less(held[0], lost[1]) for lost, held in cells], [one.low for one in each], each[0].level, -1)
    highest = _end([_less(held[1], lost[0]) for lost, held in cells], [one.high for one in each], each[0].level, 1)
    finding: Finding = "in-context outlasts recall" if lowest > 0 else "recall outlasts in-context" if highest < 0 else "not shown"
    differences = [one.difference for one in each if one.kind == "estimate" and one.difference is not None]
    known = len(differences) == len(each)
    return ModelsDisparity(
        models=tuple(disparities),
        disparities=tuple(each),
        difference=float(np.mean(differences)) if known else None,
        sd=float(np.std(differences, ddof=1)) if known else None,
        low=bounded(lowest),
        high=bounded(highest),
        finding=finding,
        add=tuple(sorted({place for one in each for place in one.add})),
        level=each[0].level,
        names=names,
        caveat=caveat_of_two(len(each), "trained models"),
    )


def _less(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _end(bounds: Sequence[float | None], ends: Sequence[float | None], level: float, side: int) -> float:
    """An end of the interval over models.

    Args:
        bounds: of each model's difference, by its cells; None: unbounded.
        ends: of each model's own interval.
        side: -1 for the lower end, 1 for the upper.
    """
    known, own = [bound for bound in bounds if bound is not None], [end for end in ends if end is not None]
    if len(known) < len(bounds) or len(own) < len(ends):
        return side * math.inf
    over_models = float(student.ppf((1 + level) / 2, len(known) - 1)) * float(np.std(known, ddof=1)) / math.sqrt(len(known))
    return float(np.mean(known)) + side * square_and_add(abs(float(np.mean(own) - np.mean(known))), over_models)
