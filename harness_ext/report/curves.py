"""Makes the curves of the tasks of an ability, at the sparsities at which every task and calibration seed has records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from harness_ext.report.abilities import NAMES
from harness_ext.report.at_chance import AtChance
from harness_ext.report.series import Series
from harness_ext.report.trials import LoadedTrial, TaskScore
from harness_ext.statistics import Curve, StatisticsError


def curves(
    series: Series, dense: LoadedTrial, ability: str, tasks: Iterable[str], at_chance: Mapping[str, AtChance]
) -> tuple[list[Curve], list[str]]:
    """The curves of the tasks of an ability, and the gaps: what the curves leave out.

    Args:
        tasks: names of the tasks of the ability.
        at_chance: tasks in which the dense model is not shown to be above chance, by name.
    """
    label = f"{series.label}: "
    of_ability = f"not in the curve of {NAMES[ability]}"
    gaps, usable = [], []
    for task in tasks:
        if not any(task in trial.tasks for trial in [dense, *series.trials]):
            continue
        reason = _why_not(series, dense, task, at_chance)
        if reason is None:
            usable.append(task)
        else:
            gaps.append(f"{label}{task} is {of_ability}, {reason}")
    grid = []
    for sparsity in sorted(series.points) if usable else ():
        if missing_tasks := _lacking(series, sparsity, usable):
            reason = f"per-sample records are missing: {', '.join(missing_tasks)}"
            gaps.append(f"{label}the sparsity {sparsity:g} is {of_ability}, {reason}")
        else:
            grid.append(sparsity)
    task_curves = []
    for task in usable if grid else ():
        try:
            task_curves.append(_curve(series, dense, task, grid))
        except StatisticsError as error:
            gaps.append(f"{label}{task} is {of_ability}: {error}")
    return task_curves, gaps


def _why_not(series: Series, dense: LoadedTrial, task: str, at_chance: Mapping[str, AtChance]) -> str | None:
    """The reason why a task has no curve; None if it has one."""
    score = dense.tasks.get(task)
    if score is None:
        return "the dense model has no result of it"
    if score.scores is None:
        return "the dense model has no per-sample records of it"
    if task in at_chance:
        return at_chance[task].reason()
    if not any(_recorded(trial.tasks.get(task)) for trial in series.trials):
        return "no pruned model has per-sample records of it"
    return None


def _lacking(series: Series, sparsity: float, tasks: Sequence[str]) -> list[str]:
    """The tasks without per-sample records at a sparsity, with the calibration seed."""
    by_seed = series.points[sparsity]
    return [
        f"{task}{'' if seed is None else f' of seed {seed}'}"
        for seed in series.seeds
        for task in tasks
        if seed not in by_seed or not _recorded(by_seed[seed].tasks.get(task))
    ]


def _recorded(score: TaskScore | None) -> bool:
    return score is not None and score.scores is not None


def _curve(series: Series, dense: LoadedTrial, task: str, grid: Sequence[float]) -> Curve:
    """The curve of one task. Its values are [seed, sparsity, item], and the first sparsity is the dense model.

    Raises:
        StatisticsError: the scores do not make a curve.
    """
    dense_score = dense.tasks[task]
    ids = sorted(dense_score.scores or ())
    values = [
        [dense_score.in_order(ids), *(series.points[sparsity][seed].tasks[task].in_order(ids) for sparsity in grid)]
        for seed in series.seeds
    ]
    return Curve(task, [0.0, *grid], np.array(values), ids, dense_score.chance)
