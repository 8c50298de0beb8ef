"""The statistics of a report, each of them computed or put among the gaps with the reason."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness_ext.report.abilities import ABILITIES, IN_CONTEXT, MIXED, NAMES, RECALL, UNCLASSIFIED, TaskClass, how_to_class
from harness_ext.report.at_chance import AtChance, NothingToLose, nothing_to_lose, tasks_at_chance
from harness_ext.report.claims import MAIN_DROP, Claim, claims
from harness_ext.report.curves import curves
from harness_ext.report.ladder import Rung, ladder
from harness_ext.report.replicates import Replicates, check_replicates, replicates
from harness_ext.report.rows import Row, rows
from harness_ext.report.series import Series, collect, dense_trials
from harness_ext.report.spread import SeedSpread, spreads
from harness_ext.report.trials import LoadedTrial
from harness_ext.statistics import (
    DROPS,
    AbilityCurve,
    Critical,
    Curve,
    Disparity,
    ModelsDisparity,
    StatisticsError,
    ability_critical,
    ability_curve,
    disparity,
)

__all__ = ["Analysis", "Row", "Rung", "analyse"]


@dataclass
class Analysis:
    """All that a report shows.

    Args:
        classes: of all tasks, by name.
        abilities: recall, in-context or mixed, by task; unclassified tasks are not in it.
        families: of tasks; families have equal weights in the mean of an ability.
        nothing_to_lose: where a dense model that was pruned is not above chance; first in a summary.
        curves, critical, disparities: by the label of the series; critical sparsities also by ability, drop and whether chance-corrected.
        over_models: the disparities over trained models, by label, drop and whether chance-corrected.
        claims: the headline statements: one for each method, over trained models where these are given.
        gaps: what could not be computed and why.
    """

    trials: list[LoadedTrial]
    series: list[Series]
    classes: Mapping[str, TaskClass]
    abilities: Mapping[str, str]
    families: Mapping[str, str]
    nothing_to_lose: list[NothingToLose] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    used: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    curves: dict[tuple[str, str], AbilityCurve] = field(default_factory=dict)
    critical: dict[tuple[str, str, float, bool], Critical] = field(default_factory=dict)
    disparities: dict[tuple[str, float, bool], Disparity] = field(default_factory=dict)
    over_models: dict[tuple[str, float, bool], ModelsDisparity] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    spreads: list[SeedSpread] = field(default_factory=list)
    rungs: list[Rung] = field(default_factory=list)
    ladder_tasks: dict[str, list[str]] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)


def analyse(
    trials: Sequence[LoadedTrial],
    classes: Mapping[str, TaskClass],
    *,
    drops: Sequence[float] = DROPS,
    resamples: int = 2000,
    groups: Sequence[Sequence[str]] = (),
    gaps: Sequence[str] = (),
) -> Analysis:
    """Computes everything.

    Args:
        trials: merged.
        classes: of all tasks, by name.
        resamples: of the bootstrap.
        groups: names of models that are replicates, trained alike with different seeds.
        gaps: from reading.

    Raises:
        ReportError: mixed results, or a group that is none.
    """
    check_replicates(groups, trials)
    series, missing = collect(trials)
    abilities = {task: known.ability for task, known in classes.items() if known.ability is not None}
    families = {task: known.family for task, known in classes.items()}
    done = Analysis(list(trials), series, classes, abilities, families, gaps=[*gaps, *missing])
    dense = dense_trials(trials)
    _unlike_others(done, classes)
    done.rows, missing = rows(trials, abilities, UNCLASSIFIED, resamples)
    done.gaps += missing
    done.spreads, missing = spreads(trials, dense, resamples)
    done.gaps += missing
    work = _Curves(
        done,
        {digest: tasks_at_chance(dense[digest], resamples) for digest in dict.fromkeys(one.model for one in series) if digest in dense},
    )
    for digest, low in work.at_chance.items():
        done.nothing_to_lose += nothing_to_lose(dense[digest], low, abilities)
    for one in series:
        if one.dense is not None:
            _series(work, one, drops, resamples)
    together, missing = replicates(groups, [one for one in series if one.dense is not None], work.of)
    done.gaps += missing
    for method in together:
        _over_models(done, method, drops, resamples)
    _claims(work, together, drops, resamples)
    steps = ladder(trials, series, abilities, families)
    done.rungs, done.ladder_tasks = steps.rungs, steps.tasks
    done.gaps = list(dict.fromkeys([*done.gaps, *steps.gaps]))
    return done


@dataclass
class _Curves:
    """Makes curves once, and puts what is not in them among the gaps.

    Args:
        at_chance: tasks in which a dense model is not above chance, by the digest of its weights.
    """

    done: Analysis
    at_chance: Mapping[str, Mapping[str, AtChance]]
    made: dict[tuple[str, str, tuple[str, ...] | None], list[Curve]] = field(default_factory=dict)

    def of(self, series: Series, ability: str, tasks: Sequence[str] | None = None) -> list[Curve]:
        """Of an ability of a series: of all its tasks, or of some."""
        key = series.label, ability, None if tasks is None else tuple(tasks)
        if key not in self.made and series.dense is not None:
            own = [task for task, named in self.done.abilities.items() if named == ability] if tasks is None else tasks
            self.made[key], gaps = curves(series, series.dense, ability, own, self.at_chance[series.model])
            self.done.gaps += gaps
        return self.made[key]


def _unlike_others(done: Analysis, classes: Mapping[str, TaskClass]) -> None:
    """Says which tasks are in no mean, and for which the chance is not known."""
    scores = [score for trial in done.trials for score in trial.tasks.values()]
    if names := sorted({score.task for score in scores if not score.chance_declared}):
        done.gaps.append(f"chance is taken to be 0 for tasks that do not declare it: {', '.join(names)}")
    for task, known in classes.items():
        if known.ability is None:
            done.gaps.append(f"task {task!r} is unclassified and in no mean: {how_to_class(task)}")
    if mixed := [task for task, known in classes.items() if known.ability == MIXED]:
        done.gaps.append(f"in no mean, since they take both recall and the prompt: {', '.join(mixed)}")


def _series(work: _Curves, series: Series, drops: Sequence[float], resamples: int) -> None:
    """The curves, critical sparsities and disparities of a series."""
    done = work.done
    found = {ability: work.of(series, ability) for ability in ABILITIES}
    for ability in [ability for ability in ABILITIES if found[ability]]:
        done.used[series.label, ability] = [curve.name for curve in found[ability]]
        try:
            done.curves[series.label, ability] = ability_curve(found[ability], corrected=True, families=done.families, resamples=resamples)
            for drop in drops:
                for corrected in (True, False):
                    done.critical[series.label, ability, drop, corrected] = ability_critical(
                        found[ability], drop=drop, corrected=corrected, families=done.families, resamples=resamples
                    )
        except StatisticsError as error:
            done.gaps.append(f"{series.label}: no curve of {NAMES[ability]}: {error}")
    if lacking := [NAMES[ability] for ability in ABILITIES if not found[ability]]:
        done.gaps.append(f"{series.label}: no disparity, there is no curve of {' or of '.join(lacking)}")
        return
    for drop in drops:
        for corrected in (True, False):
            try:
                done.disparities[series.label, drop, corrected] = disparity(
                    found[RECALL], found[IN_CONTEXT], drop=drop, corrected=corrected, families=done.families, resamples=resamples
                )
            except StatisticsError as error:
                done.gaps.append(f"{series.label}: no disparity: {error}")


def _over_models(done: Analysis, method: Replicates, drops: Sequence[float], resamples: int) -> None:
    for drop in drops:
        for corrected in (True, False):
            try:
                done.over_models[method.label, drop, corrected] = method.disparity(drop, corrected, done.families, resamples)
            except StatisticsError as error:
                done.gaps.append(f"{method.label}: no disparity: {error}")


def _claims(work: _Curves, together: Sequence[Replicates], drops: Sequence[float], resamples: int) -> None:
    """One for each method: over models, and of one model where it is no replicate."""
    if MAIN_DROP not in drops:
        return
    done, drop = work.done, MAIN_DROP
    made: list[tuple[str, Disparity | ModelsDisparity, functools.partial[bool]]] = []
    replicated = set()
    for method in together:
        if found := done.over_models.get((method.label, drop, True)):
            replicated |= set(method.series.values())
            made.append((method.label, found, functools.partial(_models_shown, method, drop, done.families, resamples)))
    for one in done.series:
        told = done.disparities.get((one.label, drop, True))
        if told and one.label not in replicated:
            pair = work.of(one, RECALL), work.of(one, IN_CONTEXT)
            made.append((one.label, told, functools.partial(_shown, pair, drop, done.families, resamples)))
    done.claims = claims(made, resamples)


def _models_shown(method: Replicates, drop: float, families: Mapping[str, str], resamples: int, level: float) -> bool:
    return method.disparity(drop, True, families, resamples, level).shown


def _shown(pair: tuple[list[Curve], list[Curve]], drop: float, families: Mapping[str, str], resamples: int, level: float) -> bool:
    return disparity(*pair, drop=drop, corrected=True, families=families, level=level, resamples=resamples).shown
