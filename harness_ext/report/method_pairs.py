"""Two methods side by side: their differences on the same items, task by task and over the tasks of an ability."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness_ext.report.abilities import ABILITIES, NAMES, TaskClass
from harness_ext.report.analysis import Analysis
from harness_ext.report.trials import LoadedTrial, ReportError, TaskScore, check_same
from harness_ext.statistics import MethodDifference, PairedScores, ability_difference, task_difference

By = dict["int | None", LoadedTrial]  # trials of one setting and sparsity, by calibration seed
FAR_APART = 0.01  # of achieved sparsities
MOST = 200  # comparisons of two methods at one sparsity, in a report: a second takes about 30 of them


@dataclass(frozen=True)
class MethodPair:
    """Two methods at one sparsity, or at two sparsities that were chosen.

    Args:
        first, second: what they are called.
        sparsities: that were asked for, of the first and of the second.
        seeds: of the calibration, over which both are averaged; empty where neither method reads text.
        tasks: the differences, second - first, of raw scores.
        abilities: the differences of chance-corrected scores, over the tasks of an ability.
        notes: what is not compared and why, and in what else the two differ.
    """

    first: str
    second: str
    sparsities: tuple[str, str]
    seeds: tuple[int, ...]
    tasks: tuple[MethodDifference, ...]
    abilities: tuple[MethodDifference, ...]
    notes: tuple[str, ...]


def pair(
    names: tuple[str, str], first: By, second: By, classes: Mapping[str, TaskClass], *, resamples: int = 2000, strict: bool = True
) -> MethodPair:
    """The differences of two methods, on the tasks that both have.

    A trial without a calibration seed stands beside every seed of the other method.

    Args:
        names: of the methods.
        first, second: at one sparsity each.
        classes: of the tasks, by name.
        resamples: of the bootstrap.
        strict: raise where results are of different items; else say so among the notes.

    Raises:
        ReportError: no seed or no task with samples in common, or results of different items or versions.
    """
    sides, seeds, notes = _sides(names, first, second)
    kept: list[PairedScores] = []
    tasks = [list(dict.fromkeys(task for trial in side for task in trial.tasks)) for side in sides]
    for task in dict.fromkeys(itertools.chain(*tasks)):
        if lacking := [name for name, of in zip(names, tasks, strict=True) if task not in of]:
            notes.append(f"task {task!r} is not compared: {lacking[0]} has no result of it")
            continue
        try:
            found = _paired(task, sides)
        except ReportError as error:
            if strict:
                raise
            notes.append(str(error))
            continue
        if isinstance(found, str):
            notes.append(found)
        else:
            kept.append(found)
    if not kept:
        both = " and ".join(f"{name} ({', '.join(of) or 'no task'})" for name, of in zip(names, tasks, strict=True))
        shared = set(tasks[0]) & set(tasks[1])
        raise ReportError(f"no task to compare: {notes[-1]}" if shared else f"no task in common: {both}")
    differences = [task_difference(scores, resamples=resamples) for scores in kept]
    over = []
    for ability in ABILITIES:
        members = [scores for scores in kept if classes[scores.name].ability == ability]
        if members:
            families = {scores.name: classes[scores.name].family for scores in members}
            over.append(ability_difference(NAMES[ability], members, families=families, resamples=resamples))
    sparsities = ("0" if sides[0][0].is_dense else sides[0][0].sparsity, "0" if sides[1][0].is_dense else sides[1][0].sparsity)
    return MethodPair(*names, sparsities, seeds, tuple(differences), tuple(over), tuple(dict.fromkeys(notes)))


def every_pair(done: Analysis, resamples: int = 2000) -> tuple[list[MethodPair], list[str]]:
    """Every two series of one model, at every sparsity that both were asked for; and what cannot be compared.

    Args:
        done: the analysis of a report.
        resamples: of the bootstrap.
    """
    pairs, gaps = [], []
    both = [(one, other) for one, other in itertools.combinations(done.series, 2) if one.model == other.model]
    points = {one.label: by_sparsity(one.trials) for one in done.series}
    common = {(one.label, other.label): [s for s in points[one.label] if s in points[other.label]] for one, other in both}
    if (count := sum(map(len, common.values()))) > MOST:
        return [], [f"methods are not compared with each other, that would be {count} tables: harness-ext compare sets two side by side"]
    for one, other in both:
        first, second = points[one.label], points[other.label]
        for sparsity in common[one.label, other.label]:
            try:
                found = pair((one.label, other.label), first[sparsity], second[sparsity], done.classes, resamples=resamples, strict=False)
            except ReportError as error:
                gaps.append(f"{one.label} and {other.label} at {sparsity} are not compared: {error}")
                continue
            pairs.append(found)
            gaps += [f"{one.label} and {other.label} at {sparsity}: {note}" for note in found.notes]
    return pairs, gaps


def by_sparsity(trials: Sequence[LoadedTrial]) -> dict[str, By]:
    """Trials of one setting by the sparsity that was asked for, rising, and by their calibration seed."""
    found: dict[str, By] = {}
    for trial in sorted(trials, key=lambda trial: (trial.ratio, trial.sparsity, trial.seed is not None, trial.seed or 0)):
        asked = trial.sparsity if trial.pattern else f"{trial.ratio:g}"
        found.setdefault(asked, {})[trial.seed] = trial
    return found


def _sides(names: tuple[str, str], first: By, second: By) -> tuple[list[list[LoadedTrial]], tuple[int, ...], list[str]]:
    """The trials of both sides, one for each seed that both have; the seeds; and notes on what else is not the same.

    Raises:
        ReportError: no seed in common.
    """
    notes = []
    if None in first or None in second:
        seeds = list(second if None in first else first)
        sides = [[by_seed[seed if seed in by_seed else None] for seed in seeds] for by_seed in (first, second)]
    elif seeds := [seed for seed in first if seed in second]:
        sides = [[by_seed[seed] for seed in seeds] for by_seed in (first, second)]
        for name, by_seed in zip(names, (first, second), strict=True):
            if left := [str(seed) for seed in by_seed if seed not in seeds]:
                notes.append(f"seed {', '.join(left)} of {name} is not compared: the other has no result of it")
    elif len(first) == len(second) == 1:
        seeds, sides = list(first), [list(first.values()), list(second.values())]
        notes.append(f"the calibration seeds differ: {sides[0][0].seed} and {sides[1][0].seed}")
    else:
        lists = [", ".join(map(str, by_seed)) for by_seed in (first, second)]
        raise ReportError(f"no calibration seed in common: {names[0]} has {lists[0]}, and {names[1]} has {lists[1]}")
    one, other = (float(np.mean([0.0 if trial.is_dense else trial.achieved for trial in side])) for side in sides)
    if sides[0][0].ratio == sides[1][0].ratio and abs(one - other) > FAR_APART:
        notes.append(f"{names[0]} removed {one:.3f} of the selected weights and {names[1]} {other:.3f}: the same sparsity was asked for")
    return sides, tuple(seed for seed in seeds if seed is not None), notes


def _paired(task: str, sides: Sequence[Sequence[LoadedTrial]]) -> PairedScores | str:
    """The scores of both methods on a task, by seed; or why there are none.

    Raises:
        ReportError: results of different items, or of different versions of the task.
    """
    every = [trial for side in sides for trial in side]
    if absent := [trial.name for trial in every if task not in trial.tasks]:
        return f"task {task!r} is not compared: {absent[0]} has no result of it"
    scores = [trial.tasks[task] for trial in every]
    for trial, score in zip(every[1:], scores[1:], strict=True):
        check_same(every[0], scores[0], trial, score)
    if absent := [trial.name for trial, score in zip(every, scores, strict=True) if score.scores is None]:
        return f"task {task!r} is not compared: there are no per-sample records (lm_eval --log_samples writes them) of {absent[0]}"
    ids = sorted(scores[0].scores or ())
    rows = [[_by_id(trial.tasks[task])[one] for one in ids] for trial in every]
    half = len(sides[0])
    return PairedScores(task, ids, np.array(rows[:half]), np.array(rows[half:]), scores[0].chance)


def _by_id(score: TaskScore) -> Mapping[str, float]:
    return score.scores or {}
