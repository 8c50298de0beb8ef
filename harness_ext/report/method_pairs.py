"""Compares two methods on the same items, for each task and over the tasks of an ability."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness_ext.report.abilities import ABILITIES, NAMES, TaskClass
from harness_ext.report.analysis import Analysis
from harness_ext.report.trials import LoadedTrial, ReportError, check_same
from harness_ext.statistics import MethodDifference, PairedScores, ability_difference, holm, task_difference
from harness_ext.statistics.checks import RESAMPLES

By = dict["int | None", LoadedTrial]  # the trials of one setting and sparsity, by calibration seed
FAR_APART = 0.01  # a difference of achieved sparsities that is reported
MOST = 200  # largest number of comparisons in a report; 30 of them take about a second


@dataclass(frozen=True)
class MethodPair:
    """Two methods compared at one sparsity, or at two sparsities that were chosen.

    Args:
        first, second: names of the methods.
        sparsities: the requested sparsity of the first and of the second method.
        seeds: calibration seeds, over which scores are averaged. Empty if neither method reads calibration text.
        tasks: differences of raw scores on each task, second - first.
        abilities: differences of chance-corrected scores over the tasks of each ability, second - first.
        notes: what is not compared and why, and other differences between the two.
    """

    first: str
    second: str
    sparsities: tuple[str, str]
    seeds: tuple[int, ...]
    tasks: tuple[MethodDifference, ...]
    abilities: tuple[MethodDifference, ...]
    notes: tuple[str, ...]


def compare_methods(
    names: tuple[str, str], first: By, second: By, classes: Mapping[str, TaskClass], *, resamples: int = RESAMPLES, strict: bool = True
) -> MethodPair:
    """Compares two methods on the tasks that both have.

    A trial without a calibration seed is compared with every seed of the other method.

    Args:
        names: names of the methods.
        first, second: trials of each method at one sparsity.
        classes: the class of each task, by name.
        resamples: number of bootstrap resamples.
        strict: raise an error if results are of different items. Otherwise add a note.

    Raises:
        ReportError: no seed or no task with samples in common, or results of different items or versions.
    """
    sides, seeds, notes = _sides(names, first, second)
    kept: list[PairedScores] = []
    tasks = [list(dict.fromkeys(task for trial in side for task in trial.tasks)) for side in sides]
    for task in dict.fromkeys(itertools.chain(*tasks)):
        if lacking := [name for name, names_of_tasks in zip(names, tasks, strict=True) if task not in names_of_tasks]:
            notes.append(f"task {task!r} is not compared: {lacking[0]} has no result of it")
            continue
        try:
            scores = _paired(task, sides)
        except ReportError as error:
            if strict:
                raise
            notes.append(str(error))
            continue
        if isinstance(scores, str):
            notes.append(scores)
        else:
            kept.append(scores)
    if not kept:
        both = " and ".join(f"{name} ({', '.join(names_of_tasks) or 'no task'})" for name, names_of_tasks in zip(names, tasks, strict=True))
        shared = set(tasks[0]) & set(tasks[1])
        raise ReportError(f"no task to compare: {notes[-1]}" if shared else f"no task in common: {both}")
    differences = [task_difference(scores, resamples=resamples) for scores in kept]
    ability_differences = []
    for ability in ABILITIES:
        members = [scores for scores in kept if classes[scores.name].ability == ability]
        if members:
            families = {scores.name: classes[scores.name].family for scores in members}
            ability_differences.append(ability_difference(NAMES[ability], members, families=families, resamples=resamples))
    sparsities = sides[0][0].sparsity, sides[1][0].sparsity
    return MethodPair(*names, sparsities, seeds, tuple(differences), tuple(ability_differences), tuple(dict.fromkeys(notes)))


def every_pair(analysis: Analysis, resamples: int = RESAMPLES) -> tuple[list[MethodPair], list[str]]:
    """Compares all pairs of series of the same model, at every sparsity that both have. Also returns what cannot be compared.

    Args:
        analysis: the analysis of a report.
        resamples: number of bootstrap resamples.
    """
    pairs, gaps = [], []
    label_pairs = [(one.label, other.label) for one, other in itertools.combinations(analysis.series, 2) if one.model == other.model]
    by_label = {series.label: by_sparsity(series.trials) for series in analysis.series}
    points = [(*labels, sparsity) for labels in label_pairs for sparsity in by_label[labels[0]] if sparsity in by_label[labels[1]]]
    if len(points) > MOST:
        tables = f"{len(points)} tables"
        return [], [f"methods are not compared with each other, that would be {tables}: harness-ext compare sets two side by side"]
    for first, second, sparsity in points:
        trials = by_label[first][sparsity], by_label[second][sparsity]
        try:
            compared = compare_methods((first, second), *trials, analysis.classes, resamples=resamples, strict=False)
        except ReportError as error:
            gaps.append(f"{first} and {second} at {sparsity} are not compared: {error}")
            continue
        pairs.append(compared)
        gaps += [f"{first} and {second} at {sparsity}: {note}" for note in compared.notes]
    return pairs, gaps


def corrected(pairs: Sequence[MethodPair]) -> list[tuple[MethodPair, list[tuple[MethodDifference, list[float]]]]]:
    """Each pair with its differences on tasks and abilities, and for each of these the p-values of its tests after Holm's correction.

    The correction is for all tests of all pairs (:func:`tests_of`).
    """
    tests = tests_of(pairs)
    p_values = iter(holm([p for of_tasks in tests.values() for p in of_tasks]))
    adjusted = {tasks: list(itertools.islice(p_values, len(of_tasks))) for tasks, of_tasks in tests.items()}
    return [
        (pair, [(compared, adjusted[number, compared.tasks]) for compared in (*pair.tasks, *pair.abilities)])
        for number, pair in enumerate(pairs)
    ]


def tests_of(pairs: Sequence[MethodPair]) -> dict[tuple[int, tuple[str, ...]], list[float]]:
    """The p-values of all tests, by the index of the pair and the tasks. An ability of one task has the test of that task."""
    return {
        (number, compared.tasks): [test.p_value for test in compared.mcnemar]
        for number, pair in enumerate(pairs)
        for compared in (*pair.tasks, *pair.abilities)
    }


def pair_rows(pairs: Sequence[MethodPair]) -> list[dict[str, Any]]:
    """Rows of the table ``methods``: one for each task and ability, and with several seeds also one for the test of each seed."""
    return [
        row
        for pair, tests in corrected(pairs)
        for index, (compared, p_holm) in enumerate(tests)
        for row in _rows(pair, "task" if index < len(pair.tasks) else "ability", compared, p_holm)
    ]


def _rows(pair: MethodPair, kind: str, compared: MethodDifference, p_holm: Sequence[float]) -> list[dict[str, Any]]:
    estimate = compared.difference
    row = {
        "first": pair.first, "second": pair.second, "first_sparsity": pair.sparsities[0], "second_sparsity": pair.sparsities[1],
        "seeds": " ".join(map(str, pair.seeds)), "kind": kind, "name": compared.name, "tasks": " ".join(compared.tasks),
        "items": compared.items, "first_score": compared.first, "second_score": compared.second, "difference": estimate.value,
        "low": estimate.low, "high": estimate.high, "level": estimate.level, "method": estimate.method, "caveat": estimate.caveat,
        "seed": None, "mcnemar_p": None, "mcnemar_p_holm": None, "only_first_right": None, "only_second_right": None,
    }  # fmt: skip
    seeds = pair.seeds or (None,)
    tests = [
        {
            "seed": seed, "mcnemar_p": test.p_value, "mcnemar_p_holm": p, "only_first_right": test.right_to_wrong,
            "only_second_right": test.wrong_to_right,
        }
        for seed, test, p in zip(seeds, compared.mcnemar, p_holm, strict=bool(compared.mcnemar))
    ]  # fmt: skip
    if len(tests) < 2:
        return [row | (tests[0] if tests else {})]
    return [row] + [row | {"kind": f"{kind}, one seed"} | test for test in tests]


def by_sparsity(trials: Sequence[LoadedTrial]) -> dict[str, By]:
    """The trials of one setting by requested sparsity, in rising order, and by calibration seed."""
    by_value: dict[str, By] = {}
    for trial in sorted(trials, key=lambda trial: (trial.ratio, trial.sparsity, trial.seed is not None, trial.seed or 0)):
        asked = trial.sparsity if trial.pattern else f"{trial.ratio:g}"
        by_value.setdefault(asked, {})[trial.seed] = trial
    return by_value


def _sides(names: tuple[str, str], first: By, second: By) -> tuple[list[list[LoadedTrial]], tuple[int, ...], list[str]]:
    """The trials of both sides, one for each shared seed; the seeds; and notes on other differences.

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
    """The scores of both methods on a task, by seed; or the reason why they are missing.

    Raises:
        ReportError: results of different items, or of different versions of the task.
    """
    trials = [trial for side in sides for trial in side]
    if absent := [trial.name for trial in trials if task not in trial.tasks]:
        return f"task {task!r} is not compared: {absent[0]} has no result of it"
    scores = [trial.tasks[task] for trial in trials]
    for trial, score in zip(trials[1:], scores[1:], strict=True):
        check_same(trials[0], scores[0], trial, score)
    if absent := [trial.name for trial, score in zip(trials, scores, strict=True) if score.scores is None]:
        return f"task {task!r} is not compared: there are no per-sample records (lm_eval --log_samples writes them) of {absent[0]}"
    ids = sorted(scores[0].scores or ())
    rows = [score.in_order(ids) for score in scores]
    half = len(sides[0])
    return PairedScores(task, ids, np.array(rows[:half]), np.array(rows[half:]), scores[0].chance)
