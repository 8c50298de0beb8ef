"""Computes the statistics of a report. What cannot be computed is listed in ``gaps``, with the reason."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness_ext.report.abilities import ABILITIES, IN_CONTEXT, MIXED, NAMES, RECALL, UNCLASSIFIED, TaskClass, how_to_class
from harness_ext.report.at_chance import AtChance, NotAboveChance, not_above_chance, tasks_at_chance
from harness_ext.report.claims import MAIN_DROP, Claim, claims
from harness_ext.report.curves import Seed, UsedSeeds, curves, new_places, seeds_of
from harness_ext.report.difficulty import Difficulty, difficulty
from harness_ext.report.equal_size import BITS, PARAMETERS, EqualSize, equal_size
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
from harness_ext.statistics.checks import RESAMPLES


@dataclass
class Analysis:
    """Everything that a report shows.

    Args:
        classes: the class of every task, by the name of the task.
        abilities: recall, in-context or mixed, by task. Unclassified tasks are left out.
        families: the family of every task. All families of an ability have the same weight in its mean.
        not_above_chance: the abilities and tasks in which a dense model is not above chance, or is not shown to be.
        used: names of the tasks in a curve, by series label and ability.
        left_out: measured sparsities that are not in a curve, by series label and ability; only where there are any.
        left_out_seeds: calibration seeds that are in no curve, by series label; only where there are any.
        curves: curves by series label and ability.
        critical: critical sparsities by series label, ability, drop, and whether scores are chance-corrected.
        disparities: disparities by series label, drop, and whether scores are chance-corrected.
        over_models: the same over several trained models, by the label of the method.
        difficulty: disparities at equal dense margin, and critical sparsities by margin.
        claims: the headline statements, one for each method; over trained models if there are replicates.
        quantised: series over bits; they are in no statement on sparsities.
        equal_parameters: scores of abilities by the number of nonzero parameters, if there are several dense models.
        equal_bits: the same by the bits of the whole model, if models were quantised.
        gaps: what could not be computed, and why.
    """

    trials: list[LoadedTrial]
    series: list[Series]
    classes: Mapping[str, TaskClass]
    abilities: Mapping[str, str]
    families: Mapping[str, str]
    quantised: list[Series] = field(default_factory=list)
    not_above_chance: list[NotAboveChance] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    used: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    left_out: dict[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)
    left_out_seeds: dict[str, tuple[Seed, ...]] = field(default_factory=dict)
    curves: dict[tuple[str, str], AbilityCurve] = field(default_factory=dict)
    critical: dict[tuple[str, str, float, bool], Critical] = field(default_factory=dict)
    disparities: dict[tuple[str, float, bool], Disparity] = field(default_factory=dict)
    over_models: dict[tuple[str, float, bool], ModelsDisparity] = field(default_factory=dict)
    difficulty: Difficulty = field(default_factory=Difficulty)
    claims: list[Claim] = field(default_factory=list)
    spreads: list[SeedSpread] = field(default_factory=list)
    equal_parameters: EqualSize = field(default_factory=EqualSize)
    equal_bits: EqualSize = field(default_factory=EqualSize)
    gaps: list[str] = field(default_factory=list)

    @property
    def every_series(self) -> list[Series]:
        """Those over sparsities, then those over bits."""
        return [*self.series, *self.quantised]

    @property
    def labels(self) -> dict[int, str]:
        """The label of the series of each trial that is in one, by the ``id`` of the trial."""
        return {id(trial): series.label for series in self.every_series for trial in series.trials}


def analyse(
    trials: Sequence[LoadedTrial],
    classes: Mapping[str, TaskClass],
    *,
    drops: Sequence[float] = DROPS,
    resamples: int = RESAMPLES,
    groups: Sequence[Sequence[str]] = (),
    gaps: Sequence[str] = (),
    axis: str = "sparsity",
) -> Analysis:
    """Computes all statistics of a report.

    Args:
        trials: merged trials, one for each setting.
        classes: the class of every task, by name.
        drops: shares of the dense score whose loss defines a critical sparsity.
        resamples: number of bootstrap resamples.
        groups: names of models that were trained alike with different seeds.
        gaps: gaps that were found while results were read.
        axis: name of the axis of the figures.

    Raises:
        ReportError: the results cannot be put side by side, or a group is wrong.
    """
    check_replicates(groups, trials)
    series, quantised, missing = collect(trials, axis)
    abilities = {task: known.ability for task, known in classes.items() if known.ability is not None}
    families = {task: known.family for task, known in classes.items()}
    analysis = Analysis(list(trials), series, classes, abilities, families, quantised=quantised, gaps=[*gaps, *missing])
    dense = dense_trials(trials)
    _list_special_tasks(analysis, classes)
    analysis.rows, missing = rows(trials, abilities, UNCLASSIFIED, resamples)
    analysis.gaps += missing
    analysis.spreads, missing = spreads(trials, dense, resamples)
    analysis.gaps += missing
    models = dict.fromkeys(each.model for each in series)
    work = _Curves(
        analysis,
        {digest: tasks_at_chance(dense[digest], resamples) for digest in models if digest in dense},
    )
    for digest, low in work.at_chance.items():
        analysis.not_above_chance += not_above_chance(dense[digest], low, abilities)
    with_dense = [each for each in series if each.dense is not None]
    for each in with_dense:
        _analyse_series(work, each, drops, resamples)
    methods, missing = replicates(groups, with_dense, work.of)
    analysis.gaps += missing
    for method in methods:
        _over_models(analysis, method, drops, resamples)
    _claims(work, methods, drops, resamples)
    analysis.difficulty = difficulty(with_dense, methods, work.of, families, drops, resamples, analysis.disparities)
    analysis.gaps += analysis.difficulty.gaps
    analysis.equal_parameters = equal_size(PARAMETERS, trials, series, abilities, families, fewest=2, resamples=resamples)
    if quantised:
        analysis.equal_bits = equal_size(BITS, trials, [*series, *quantised], abilities, families, fewest=1, resamples=resamples)
    analysis.gaps = list(dict.fromkeys([*analysis.gaps, *analysis.equal_parameters.gaps, *analysis.equal_bits.gaps]))
    return analysis


@dataclass
class _Curves:
    """Computes each curve once, and adds what a curve leaves out to the gaps.

    Args:
        at_chance: tasks in which a dense model is not shown to be above chance, by the digest of its weights.
        made: the curves so far, by series label, ability and tasks.
        seeds: the calibration seeds of the curves of each series, by its label.
    """

    analysis: Analysis
    at_chance: Mapping[str, Mapping[str, AtChance]]
    made: dict[tuple[str, str, tuple[str, ...] | None], list[Curve]] = field(default_factory=dict)
    seeds: dict[str, UsedSeeds] = field(default_factory=dict)

    def of(self, series: Series, ability: str, tasks: Sequence[str] | None = None) -> list[Curve]:
        """The curves of an ability in a series, for all its tasks or for the tasks given."""
        key = series.label, ability, None if tasks is None else tuple(tasks)
        if key not in self.made and series.dense is not None:
            ability_tasks = self._tasks(ability) if tasks is None else tasks
            seeds = self._seeds(series, series.dense)
            made = curves(series, series.dense, ability, ability_tasks, self.at_chance[series.model], seeds)
            self.made[key] = made.curves
            self.analysis.gaps += made.gaps
            if tasks is None and made.left_out:
                self.analysis.left_out[series.label, ability] = made.left_out
        return self.made[key]

    def _seeds(self, series: Series, dense: LoadedTrial) -> Sequence[Seed]:
        """The calibration seeds of all curves of a series."""
        if series.label not in self.seeds:
            tasks = {ability: self._tasks(ability) for ability in ABILITIES}
            found = self.seeds[series.label] = seeds_of(series, dense, tasks, self.at_chance[series.model])
            self.analysis.gaps += found.gaps
            if found.left_out:
                self.analysis.left_out_seeds[series.label] = found.left_out
        return self.seeds[series.label].seeds

    def _tasks(self, ability: str) -> list[str]:
        return [task for task, named in self.analysis.abilities.items() if named == ability]


def _list_special_tasks(analysis: Analysis, classes: Mapping[str, TaskClass]) -> None:
    """Adds to the gaps which tasks count in no mean, and which do not declare their chance."""
    scores = [score for trial in analysis.trials for score in trial.tasks.values()]
    if names := sorted({score.task for score in scores if not score.chance_declared}):
        analysis.gaps.append(f"chance is taken to be 0 for tasks that do not declare it: {', '.join(names)}")
    for task, known in classes.items():
        if known.ability is None:
            analysis.gaps.append(f"task {task!r} is unclassified and in no mean: {how_to_class(task)}")
    if mixed := [task for task, known in classes.items() if known.ability == MIXED]:
        analysis.gaps.append(f"in no mean, since they take both recall and the prompt: {', '.join(mixed)}")


def _analyse_series(work: _Curves, series: Series, drops: Sequence[float], resamples: int) -> None:
    """Computes the curves, critical sparsities and disparities of a series."""
    analysis, families = work.analysis, work.analysis.families
    task_curves = {ability: work.of(series, ability) for ability in ABILITIES}
    for ability in [ability for ability in ABILITIES if task_curves[ability]]:
        analysis.used[series.label, ability] = [curve.name for curve in task_curves[ability]]
        try:
            analysis.curves[series.label, ability] = ability_curve(
                task_curves[ability], corrected=True, families=families, resamples=resamples
            )
            for drop, corrected in itertools.product(drops, (True, False)):
                found = ability_critical(task_curves[ability], drop=drop, corrected=corrected, families=families, resamples=resamples)
                analysis.critical[series.label, ability, drop, corrected] = _new_places(analysis, series, ability, found)
        except StatisticsError as error:
            analysis.gaps.append(f"{series.label}: no curve of {NAMES[ability]}: {error}")
    if lacking := [NAMES[ability] for ability in ABILITIES if not task_curves[ability]]:
        analysis.gaps.append(f"{series.label}: no disparity, there is no curve of {' or of '.join(lacking)}")
        return
    for drop, corrected in itertools.product(drops, (True, False)):
        try:
            both = disparity(
                task_curves[RECALL], task_curves[IN_CONTEXT], drop=drop, corrected=corrected, families=families, resamples=resamples
            )
        except StatisticsError as error:
            analysis.gaps.append(f"{series.label}: no disparity: {error}")
            continue
        recall = _new_places(analysis, series, RECALL, both.recall)
        in_context = _new_places(analysis, series, IN_CONTEXT, both.in_context)
        analysis.disparities[series.label, drop, corrected] = replace(
            both, recall=recall, in_context=in_context, add=tuple(sorted({*recall.add, *in_context.add}))
        )


def _new_places(analysis: Analysis, series: Series, ability: str, critical: Critical) -> Critical:
    """A critical sparsity that asks for no new sparsity where a measured one only lacks records."""
    if (left_out := analysis.left_out.get((series.label, ability))) and (curve := analysis.curves.get((series.label, ability))):
        return new_places(critical, curve.sparsities, left_out)
    return critical


def _over_models(analysis: Analysis, method: Replicates, drops: Sequence[float], resamples: int) -> None:
    for drop, corrected in itertools.product(drops, (True, False)):
        try:
            analysis.over_models[method.label, drop, corrected] = method.disparity(drop, corrected, analysis.families, resamples)
        except StatisticsError as error:
            analysis.gaps.append(f"{method.label}: no disparity: {error}")


def _claims(work: _Curves, methods: Sequence[Replicates], drops: Sequence[float], resamples: int) -> None:
    """Makes one claim for each method: over all replicates, or for one model that has no replicates."""
    if MAIN_DROP not in drops:
        return
    analysis, drop = work.analysis, MAIN_DROP
    statements: list[tuple[str, Disparity | ModelsDisparity, functools.partial[bool]]] = []
    replicated = set()
    for method in methods:
        if over_models := analysis.over_models.get((method.label, drop, True)):
            replicated |= set(method.series.values())
            statements.append((method.label, over_models, functools.partial(_models_shown, method, drop, analysis.families, resamples)))
    for series in analysis.series:
        single = analysis.disparities.get((series.label, drop, True))
        if single and series.label not in replicated:
            pair = work.of(series, RECALL), work.of(series, IN_CONTEXT)
            statements.append((series.label, single, functools.partial(_shown, pair, drop, analysis.families, resamples)))
    analysis.claims = claims(statements, resamples)


def _models_shown(method: Replicates, drop: float, families: Mapping[str, str], resamples: int, level: float) -> bool:
    return method.disparity(drop, True, families, resamples, level).shown


def _shown(pair: tuple[list[Curve], list[Curve]], drop: float, families: Mapping[str, str], resamples: int, level: float) -> bool:
    return disparity(*pair, drop=drop, corrected=True, families=families, level=level, resamples=resamples).shown
