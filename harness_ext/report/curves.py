"""Makes the curves of the tasks of an ability, at the sparsities and calibration seeds at which every task has records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness_ext.report.abilities import NAMES
from harness_ext.report.at_chance import AtChance
from harness_ext.report.series import Series
from harness_ext.report.trials import LoadedTrial, TaskScore
from harness_ext.statistics import Critical, Curve, StatisticsError

Seed = int | None  # None for a method that reads no calibration text


@dataclass(frozen=True)
class MadeCurves:
    """The curves of one ability in a series.

    Args:
        curves: one for each usable task.
        gaps: what the curves leave out, and why.
        left_out: sparsities of the series that are not in the curves, rising.
    """

    curves: list[Curve]
    gaps: list[str]
    left_out: tuple[float, ...] = ()


@dataclass(frozen=True)
class UsedSeeds:
    """The calibration seeds of the curves of a series.

    Args:
        seeds: the seeds, the same for all curves of the series.
        left_out: seeds that are in no curve.
        gaps: why.
    """

    seeds: tuple[Seed, ...]
    left_out: tuple[Seed, ...] = ()
    gaps: tuple[str, ...] = ()


def seeds_of(series: Series, dense: LoadedTrial, tasks: Mapping[str, Sequence[str]], at_chance: Mapping[str, AtChance]) -> UsedSeeds:
    """Chooses the seeds that keep the most trials in the curves of all abilities; of several such choices, the one with the most points.

    Args:
        tasks: names of the tasks of each ability.
        at_chance: as in ``curves``.
    """
    complete: dict[tuple[str, float], frozenset[Seed]] = {}
    for ability, names in tasks.items():
        usable = [task for task in names if _occurs(series, dense, task) and _why_not(series, dense, task, at_chance) is None]
        for sparsity in series.points if usable else ():
            complete[ability, sparsity] = frozenset(seed for seed in series.seeds if not _lacking(series, sparsity, usable, [seed]))
    choices: set[frozenset[Seed]] = set()
    for seeds in dict.fromkeys(complete.values()):
        choices |= {seeds, *(seeds & others for others in choices)}
    choices.discard(frozenset())
    if not choices:
        return UsedSeeds(tuple(series.seeds))
    points = {choice: {point for point, seeds in complete.items() if choice <= seeds} for choice in choices}
    most = max(
        choices,
        key=lambda choice: (len(points[choice]) * len(choice), len(points[choice]), [-(seed or 0) for seed in _sorted(choice)]),
    )
    measured = {sparsity for (_, sparsity), seeds in complete.items() if seeds}
    if len(measured) > 1 and len({sparsity for _, sparsity in points[most]}) == 1 and not _at_two_sparsities(complete):
        where = "; ".join(f"{sparsity:g}: seed {', '.join(map(str, series.points[sparsity]))}" for sparsity in sorted(measured))
        reason = f"no calibration seed has complete records at two sparsities ({where}): run one seed at all of them"
        return UsedSeeds((), tuple(series.seeds), (f"{series.label}: there is no curve, {reason}",))
    left_out = [seed for seed in series.seeds if seed not in most]
    gaps = []
    for seed in left_out:
        lacks = sorted({sparsity for (ability, sparsity) in points[most] if seed not in complete[ability, sparsity]})
        listed = ", ".join(f"{sparsity:g}" for sparsity in lacks)
        gaps.append(f"{series.label}: seed {seed} is in no curve, its records at {listed} are missing: run the missing trials")
    return UsedSeeds(tuple(seed for seed in series.seeds if seed in most), tuple(left_out), tuple(gaps))


def _sorted(seeds: Iterable[Seed]) -> list[Seed]:
    return sorted(seeds, key=lambda seed: (seed is not None, seed or 0))


def _at_two_sparsities(complete: Mapping[tuple[str, float], frozenset[Seed]]) -> bool:
    """Whether a seed is complete at two sparsities."""
    places = {(seed, sparsity) for (_, sparsity), seeds in complete.items() for seed in seeds}
    return len(places) > len({seed for seed, _ in places})


def curves(
    series: Series, dense: LoadedTrial, ability: str, tasks: Iterable[str], at_chance: Mapping[str, AtChance], seeds: Sequence[Seed]
) -> MadeCurves:
    """The curves of the tasks of an ability, at the sparsities at which every task and every one of the seeds has records.

    Args:
        tasks: names of the tasks of the ability.
        at_chance: tasks in which the dense model is not shown to be above chance, by name.
        seeds: calibration seeds, see ``seeds_of``; without any, there is no curve.
    """
    label = f"{series.label}: "
    of_ability = f"not in the curve of {NAMES[ability]}"
    gaps, usable = [], []
    for task in tasks:
        if not _occurs(series, dense, task):
            continue
        reason = _why_not(series, dense, task, at_chance)
        if reason is None:
            usable.append(task)
        else:
            gaps.append(f"{label}{task} is {of_ability}, {reason}")
    grid, left_out = [], []
    for sparsity in sorted(series.points) if usable and seeds else ():
        if missing_tasks := _lacking(series, sparsity, usable, seeds):
            reason = f"per-sample records are missing: {', '.join(missing_tasks)}; run the missing trials, with --log_samples"
            gaps.append(f"{label}the sparsity {sparsity:g} is {of_ability}, {reason}")
            left_out.append(sparsity)
        else:
            grid.append(sparsity)
    task_curves = []
    for task in usable if grid else ():
        try:
            task_curves.append(_curve(series, dense, task, grid, seeds))
        except StatisticsError as error:
            gaps.append(f"{label}{task} is {of_ability}: {error}")
    return MadeCurves(task_curves, gaps, tuple(left_out))


def new_places(critical: Critical, grid: Sequence[float], left_out: Sequence[float]) -> Critical:
    """Takes from the sparsities to add those beside a sparsity that was measured and left out: there, records are missing.

    Args:
        grid: the sparsities of the curve.
        left_out: sparsities that were measured and are not in the curve.
    """

    def is_new(place: float) -> bool:
        below, above = max(at for at in grid if at < place), min((at for at in grid if at > place), default=1.0)
        return not any(below < at < above for at in left_out)

    return replace(critical, add=tuple(filter(is_new, critical.add)))


def _occurs(series: Series, dense: LoadedTrial, task: str) -> bool:
    return any(task in trial.tasks for trial in [dense, *series.trials])


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


def _lacking(series: Series, sparsity: float, tasks: Sequence[str], seeds: Sequence[Seed]) -> list[str]:
    """The tasks without per-sample records at a sparsity, with the calibration seed."""
    by_seed = series.points[sparsity]
    return [
        f"{task}{'' if seed is None else f' of seed {seed}'}"
        for seed in seeds
        for task in tasks
        if seed not in by_seed or not _recorded(by_seed[seed].tasks.get(task))
    ]


def _recorded(score: TaskScore | None) -> bool:
    return score is not None and score.scores is not None


def _curve(series: Series, dense: LoadedTrial, task: str, grid: Sequence[float], seeds: Sequence[Seed]) -> Curve:
    """The curve of one task. Its values are [seed, sparsity, item], and the first sparsity is the dense model.

    Raises:
        StatisticsError: the scores do not make a curve.
    """
    dense_score = dense.tasks[task]
    ids = sorted(dense_score.scores or ())
    values = [
        [dense_score.in_order(ids), *(series.points[sparsity][seed].tasks[task].in_order(ids) for sparsity in grid)] for seed in seeds
    ]
    return Curve(task, [0.0, *grid], np.array(values), ids, dense_score.chance)
