"""The curves of an ability's tasks, at the sparsities that all of them have, for every calibration seed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from harness_ext.report.abilities import NAMES
from harness_ext.report.series import Series
from harness_ext.report.trials import LoadedTrial, TaskScore
from harness_ext.statistics import Curve, StatisticsError


def curves(
    series: Series, dense: LoadedTrial, ability: str, tasks: Iterable[str], at_chance: Collection[str]
) -> tuple[list[Curve], list[str]]:
    """The curves of the tasks of an ability, and what is not in them.

    Args:
        tasks: of the ability.
        at_chance: tasks in which the dense model is not above chance.
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
        if lacking := _lacking(series, sparsity, usable):
            missing = f"per-sample records are missing: {', '.join(lacking)}"
            gaps.append(f"{label}the sparsity {sparsity:g} is {of_ability}, {missing}")
        else:
            grid.append(sparsity)
    made = []
    for task in usable if grid else ():
        try:
            made.append(_curve(series, dense, task, grid))
        except StatisticsError as error:
            gaps.append(f"{label}{task} is {of_ability}: {error}")
    return made, gaps


def _why_not(series: Series, dense: LoadedTrial, task: str, at_chance: Collection[str]) -> str | None:
    """Why a task has no curve; None if it has one."""
    before = dense.tasks.get(task)
    if before is None:
        return "the dense model has no result of it"
    if before.scores is None:
        return "the dense model has no per-sample records of it"
    if task in at_chance:
        return f"the dense score {before.value:.4g} is not above chance {before.chance:.4g}: there is nothing to lose"
    if not any(_recorded(trial.tasks.get(task)) for trial in series.trials):
        return "no pruned model has per-sample records of it"
    return None


def _lacking(series: Series, sparsity: float, tasks: Sequence[str]) -> list[str]:
    """The tasks, with the seed, that have no per-sample records at a sparsity."""
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
    """Scores [seed, sparsity, item], the dense ones first.

    Raises:
        StatisticsError: they make no curve.
    """
    before = dense.tasks[task].scores or {}
    ids = sorted(before)
    values = [
        [_in_order(before, ids), *(_in_order(series.points[sparsity][seed].tasks[task].scores or {}, ids) for sparsity in grid)]
        for seed in series.seeds
    ]
    return Curve(task, [0.0, *grid], np.array(values), ids, dense.tasks[task].chance)


def _in_order(scores: Mapping[str, float], ids: Sequence[str]) -> list[float]:
    return [scores[key] for key in ids]
