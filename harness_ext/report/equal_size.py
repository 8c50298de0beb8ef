"""Puts smaller, pruned and quantised models beside dense ones of the same size, on tasks that all dense models have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness_ext.report.abilities import ABILITIES, NAMES
from harness_ext.report.axis import AXES, Axis
from harness_ext.report.series import Series, dense_trials
from harness_ext.report.trials import LoadedTrial, same_items
from harness_ext.statistics import Curve, StatisticsError, ability_curve, family_mean
from harness_ext.statistics.checks import RESAMPLES

PARAMETERS, BITS = AXES["size"], AXES["bits"]
UNITS = {PARAMETERS.name: "parameters", BITS.name: "bits"}


@dataclass
class SizedScore:
    """The mean chance-corrected score of an ability, for a dense model or for one point of a series.

    Args:
        series: label of the series; None for a dense model.
        amount: the sparsity, or the bits of a quantised weight, as a text.
        sparsity: of the pruned layers, as a number.
        size: of the whole model: nonzero parameters, or bits.
        low, high: the 95 % interval over items and calibration seeds; None without per-sample records, and where a task is not above
            chance in the dense model.
        dense_at_equal: the score of a dense model of this size. It is interpolated between the two nearest dense models, linearly in the
            logarithm of the size. Dense models of one size count with their mean. None if there is no dense model on both sides.
    """

    pretrained: str
    series: str | None
    amount: str
    sparsity: float
    ability: str
    size: float
    score: float
    low: float | None = None
    high: float | None = None
    dense_at_equal: float | None = None


@dataclass
class EqualSize:
    """The scores, the tasks behind them by ability, and what could not be computed."""

    scores: list[SizedScore] = field(default_factory=list)
    tasks: dict[str, list[str]] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)

    @property
    def dense(self) -> list[SizedScore]:
        """Those of dense models."""
        return [entry for entry in self.scores if entry.series is None]


def equal_size(
    axis: Axis,
    trials: Sequence[LoadedTrial],
    series: Sequence[Series],
    abilities: Mapping[str, str],
    families: Mapping[str, str],
    *,
    fewest: int,
    resamples: int = RESAMPLES,
) -> EqualSize:
    """Computes the scores of dense models, and of pruned or quantised models beside them.

    Args:
        axis: what size is: ``PARAMETERS`` or ``BITS``.
        abilities, families: the ability and the family of each task, by name.
        fewest: how many dense models there must be.
        resamples: those of intervals that have no closed form.
    """
    result, unit = EqualSize(), UNITS[axis.name]
    found = list(dense_trials(trials).values())
    if len(found) < fewest:
        result.gaps.append(f"no comparison at equal {unit}: there is {'one' if found else 'no'} dense model, and {fewest} are needed")
        return result
    if unknown := [trial.name for trial in trials if axis.size and axis.size(trial) is None]:
        result.gaps.append(f"no comparison at equal {unit}: the results do not say how many {unit} there are in {unknown[0]}")
        return result
    dense = sorted(found, key=axis.of)
    for ability in ABILITIES:
        tasks = shared_tasks(dense, [task for task, task_ability in abilities.items() if task_ability == ability], unit, result.gaps)
        if not tasks:
            result.gaps.append(f"no comparison at equal {unit} for {NAMES[ability]}: there is no task of it that all dense models have")
            continue
        result.tasks[ability] = tasks
        steps = [(axis.of(trial), mean_of([trial], tasks, families)) for trial in dense]
        for trial, (size, score) in zip(dense, steps, strict=True):
            low, high = interval_of(trial, [trial], tasks, families, resamples)
            result.scores.append(SizedScore(trial.pretrained, None, "0", 0.0, ability, size, score, low, high, score))
        for each in series:
            for by_seed in [each.points[place] for place in sorted(each.points)]:
                changed = list(by_seed.values())
                name, amount = changed[0].name, changed[0].amount
                if not all(task in trial.tasks for trial in changed for task in tasks):
                    result.gaps.append(f"{name} is not compared at equal {unit} for {NAMES[ability]}: a task is missing")
                    continue
                size, score = float(np.mean([axis.of(trial) for trial in changed])), mean_of(changed, tasks, families)
                low, high = interval_of(each.dense, changed, tasks, families, resamples)
                equal, sparsity = between(size, steps), round(changed[0].achieved, 3)
                result.scores.append(SizedScore(each.pretrained, each.label, amount, sparsity, ability, size, score, low, high, equal))
    return result


def shared_tasks(dense: Sequence[LoadedTrial], tasks: Sequence[str], unit: str, gaps: list[str]) -> list[str]:
    """The tasks for which every dense model has a result on the same items.

    Args:
        unit: of the sizes, for the reasons.
        gaps: gets the other tasks, with the reason.
    """
    usable = []
    for task in tasks:
        scores = [trial.tasks.get(task) for trial in dense]
        if any(score is None for score in scores):
            gaps.append(f"{task} is not compared at equal {unit}: not every dense model has a result of it")
        elif not all(same_items(scores[0], score) for score in scores if scores[0] and score):
            gaps.append(f"{task} is not compared at equal {unit}: its items are not the same for every model")
        else:
            usable.append(task)
    return usable


def mean_of(trials: Sequence[LoadedTrial], tasks: Sequence[str], families: Mapping[str, str]) -> float:
    """The mean chance-corrected score of an ability, over its families of tasks."""
    return family_mean({task: float(np.mean([trial.tasks[task].corrected for trial in trials])) for task in tasks}, families)


def interval_of(
    dense: LoadedTrial | None, changed: Sequence[LoadedTrial], tasks: Sequence[str], families: Mapping[str, str], resamples: int
) -> tuple[float | None, float | None]:
    """The 95 % interval of ``mean_of`` over items and calibration seeds, for trials of one model that differ in the calibration seed.

    Two times None without per-sample records, and where the dense model is not above chance in a task.
    """
    if dense is None:
        return None, None
    curves = []
    for task in tasks:
        recorded = [trial.tasks[task].scores for trial in (dense, *changed)]
        if any(scores is None for scores in recorded):
            return None, None
        ids = sorted(recorded[0] or {})
        of_dense, *of_changed = [[(scores or {})[item] for item in ids] for scores in recorded]
        try:
            curves.append(Curve(task, [0.0, 0.5], [[of_dense, scores] for scores in of_changed], ids, dense.tasks[task].chance))
        except StatisticsError:
            return None, None
    found = ability_curve(curves, corrected=True, families=families, resamples=resamples).scores[1]
    return found.low, found.high


def between(size_wanted: float, steps: Sequence[tuple[float, float]]) -> float | None:
    """The score at a size, between dense models; None outside of their sizes.

    Models of one size, such as replicates, count with their mean.

    Args:
        steps: size and score of each dense model.
    """
    by_size: dict[float, list[float]] = {}
    for size, score in sorted(steps):
        by_size.setdefault(size, []).append(score)
    sizes = list(by_size)
    if not sizes[0] <= size_wanted <= sizes[-1]:
        return None
    return float(np.interp(np.log(size_wanted), np.log(sizes), [np.mean(scores) for scores in by_size.values()]))
