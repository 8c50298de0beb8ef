"""Abilities at equal difficulty: the disparity between items of equal dense margin, and critical sparsities by margin."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness_ext.report.abilities import ABILITIES, IN_CONTEXT, NAMES, RECALL
from harness_ext.report.replicates import Replicates
from harness_ext.report.series import Series
from harness_ext.statistics import (
    Curve,
    DifficultyBin,
    Disparity,
    MatchedDisparity,
    MatchedModels,
    Matching,
    ModelsDisparity,
    StatisticsError,
    by_difficulty,
    disparity,
    disparity_over_models,
    matched_over_models,
)
from harness_ext.statistics.difficulty import FEWEST_ITEMS
from harness_ext.statistics.matched_models import matched_models_sentence
from harness_ext.statistics.matching import matched_sentence

HALF = 0.5  # a bin of 30 items cannot show a drop of 5 %
CurvesOf = Callable[[Series, str], list[Curve]]


@dataclass(frozen=True)
class Matched:
    """The disparity of one method at one drop, of all items and between items of equal dense margin.

    Args:
        raw: without matching, of the same tasks.
        found: at equal dense margin.
    """

    raw: Disparity | ModelsDisparity
    found: MatchedDisparity | MatchedModels


@dataclass
class Difficulty:
    """What a report says about difficulty. All scores are chance-corrected.

    Args:
        matched: by label of the series, or of the method over models, and drop.
        bins: critical sparsities at a drop of a half, by series label and ability, by rising margin.
        tasks: names of the tasks in the bins, by series label and ability.
        unit: of the margins.
        gaps: what could not be computed, and why.
    """

    matched: dict[tuple[str, float], Matched] = field(default_factory=dict)
    bins: dict[tuple[str, str], tuple[DifficultyBin, ...]] = field(default_factory=dict)
    tasks: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    unit: str = "nats"
    gaps: list[str] = field(default_factory=list)

    def sentence(self, label: str | None, main: float, *, caveat: bool = True) -> str | None:
        """What was shown of a method at equal dense margin, at the main drop and at a half; None if nothing was computed.

        Args:
            caveat: whether to add the caveat of the intervals.
        """
        found = [self.matched[label, drop].found for drop in (main, HALF) if label is not None and (label, drop) in self.matched]
        if models := [one for one in found if isinstance(one, MatchedModels)]:
            return matched_models_sentence(models, caveat=caveat)
        single = [one for one in found if isinstance(one, MatchedDisparity)]
        return matched_sentence(single, caveat=caveat) if single else None


@dataclass(frozen=True)
class _Task:
    """A curve with the margin of each of its items."""

    curve: Curve
    margins: list[float]
    unit: str


def difficulty(
    series: Sequence[Series],
    methods: Sequence[Replicates],
    curves_of: CurvesOf,
    families: Mapping[str, str],
    drops: Sequence[float],
    resamples: int,
    known: Mapping[tuple[str, float, bool], Disparity],
) -> Difficulty:
    """Computes what a report says about difficulty.

    Args:
        series: those with a dense trial.
        methods: replicates.
        curves_of: gives the curves of an ability in a series.
        drops: of the disparities; a half is added.
        known: disparities of all items, as in ``Analysis.disparities``.
    """
    result = Difficulty()
    of_series = {each.label: {ability: _tasks(result, each, curves_of(each, ability)) for ability in ABILITIES} for each in series}
    units = {task.unit: task.curve.name for by_ability in of_series.values() for tasks in by_ability.values() for task in tasks}
    if len(units) > 1:
        named = " and ".join(f"those of {name} in {unit}" for unit, name in units.items())
        result.gaps.append(f"nothing at equal dense margin: margins of one scale are needed, and {named}; --metric acc gives one scale")
        return result
    result.unit = next(iter(units), result.unit)
    for each in series:
        by_ability, used = of_series[each.label], [curves_of(each, ability) for ability in ABILITIES]
        _bins(result, each.label, by_ability, families, resamples)
        if all(used):
            whole = sum(map(len, by_ability.values())) == sum(map(len, used))
            _single(result, each.label, by_ability, families, [*drops, HALF], resamples, known if whole else {})
    for method in methods:
        _over_models(result, method, of_series, families, [*drops, HALF], resamples)
    return result


def _tasks(result: Difficulty, series: Series, curves: Sequence[Curve]) -> list[_Task]:
    """The curves that have margins. Adds the others to the gaps."""
    tasks = []
    for curve in curves:
        margins = series.dense.tasks[curve.name].margins if series.dense else None
        if margins is None or margins.why_not is not None:
            why = margins.why_not if margins else "there are no per-sample records of the dense model"
            result.gaps.append(f"task {curve.name!r}: its items have no difficulty and are not matched, {why}")
            continue
        tasks.append(_Task(curve, [margins.values[str(key)] for key in curve.ids or ()], margins.unit))
    return tasks


def _bins(result: Difficulty, label: str, by_ability: Mapping[str, Sequence[_Task]], families: Mapping[str, str], resamples: int) -> None:
    for ability, tasks in by_ability.items():
        if not tasks:
            continue
        try:
            bins = by_difficulty(
                [task.curve for task in tasks], _margins(tasks), drop=HALF, corrected=True, families=families, resamples=resamples
            )
        except StatisticsError as error:
            result.gaps.append(f"{label}: no critical sparsity of {NAMES[ability]} against difficulty: {error}")
            continue
        if bins:
            result.bins[label, ability] = bins
            result.tasks[label, ability] = [task.curve.name for task in tasks]
        else:
            why = f"the dense model answers fewer than {FEWEST_ITEMS} items rightly"
            result.gaps.append(f"{label}: no critical sparsity of {NAMES[ability]} against difficulty, {why}")


def _single(
    result: Difficulty,
    label: str,
    by_ability: Mapping[str, Sequence[_Task]],
    families: Mapping[str, str],
    drops: Sequence[float],
    resamples: int,
    known: Mapping[tuple[str, float, bool], Disparity],
) -> None:
    if lacking := [NAMES[ability] for ability in ABILITIES if not by_ability[ability]]:
        result.gaps.append(f"{label}: no disparity at equal dense margin, no task of {' or of '.join(lacking)} has margins")
        return
    recall, in_context = ([task.curve for task in by_ability[ability]] for ability in (RECALL, IN_CONTEXT))
    try:
        matching = Matching(recall, in_context, _margins(itertools.chain(*by_ability.values())), True, families, resamples)
        for drop in drops:
            raw = known.get((label, drop, True))
            raw = raw or disparity(recall, in_context, drop=drop, corrected=True, families=families, resamples=resamples)
            result.matched[label, drop] = Matched(raw, matching.disparity(drop))
    except StatisticsError as error:
        result.gaps.append(f"{label}: no disparity at equal dense margin: {error}")


def _over_models(
    result: Difficulty,
    method: Replicates,
    of_series: Mapping[str, Mapping[str, Sequence[_Task]]],
    families: Mapping[str, str],
    drops: Sequence[float],
    resamples: int,
) -> None:
    """Of the tasks that have margins in all models."""
    models = {name: of_series[label] for name, label in method.series.items()}
    pairs, margins = {}, {}
    for name, by_ability in models.items():
        margins[name] = _margins(itertools.chain(*by_ability.values()))
        common = {task for task in margins[name] if all(task in _margins(itertools.chain(*other.values())) for other in models.values())}
        recall, in_context = ([curve for curve in curves if curve.name in common] for curves in method.curves[name])
        pairs[name] = recall, in_context
    if not all(recall and in_context for recall, in_context in pairs.values()):
        result.gaps.append(f"{method.label}: no disparity at equal dense margin, an ability has no task with margins in all models")
        return
    try:
        matchings = {name: Matching(*pair, margins[name], True, families, resamples) for name, pair in pairs.items()}
        for drop in drops:
            raw = disparity_over_models(pairs, drop=drop, corrected=True, families=families, resamples=resamples)
            result.matched[method.label, drop] = Matched(raw, matched_over_models(matchings, drop=drop))
    except StatisticsError as error:
        result.gaps.append(f"{method.label}: no disparity at equal dense margin: {error}")


def _margins(tasks: Iterable[_Task]) -> dict[str, list[float]]:
    return {task.curve.name: task.margins for task in tasks}
