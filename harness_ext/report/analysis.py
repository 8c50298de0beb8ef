"""The statistics of a report, each of them computed or put among the gaps with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness_ext.report.abilities import ABILITIES, IN_CONTEXT, NAMES, RECALL
from harness_ext.report.series import Series, collect, dense_trials
from harness_ext.report.spread import SeedSpread, spreads
from harness_ext.report.trials import LoadedTrial, TaskScore, same_items
from harness_ext.statistics import (
    DROPS,
    AbilityCurve,
    Comparison,
    Critical,
    Curve,
    Disparity,
    Labels,
    Scores,
    StatisticsError,
    ability_critical,
    ability_curve,
    compare,
    disparity,
    label_use,
)


@dataclass
class Row:
    """One trial on one task, with the comparison to the dense model where it can be made, or why not.

    ``labels`` is how the answers are spread over the labels, None where the records have no answers.
    """

    trial: LoadedTrial
    score: TaskScore
    ability: str | None
    found: Comparison | None
    why_not: str | None
    labels: Labels | None


@dataclass
class Rung:
    """The mean chance-corrected score of an ability of one trial, or of a series at one sparsity.

    Args:
        series: its label; None for a dense model.
        nonzero: parameters.
        dense_at_equal: of dense models, linear in the logarithm of parameters between the two nearest; None outside of the ladder.
    """

    pretrained: str
    series: str | None
    sparsity: float
    ability: str
    nonzero: float
    score: float
    dense_at_equal: float | None = None


@dataclass
class Analysis:
    """All that a report shows.

    Args:
        curves, critical, disparities: by the label of the series; critical sparsities also by ability, drop and whether chance-corrected.
        gaps: what could not be computed and why.
    """

    trials: list[LoadedTrial]
    series: list[Series]
    abilities: Mapping[str, str]
    rows: list[Row] = field(default_factory=list)
    used: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    curves: dict[tuple[str, str], AbilityCurve] = field(default_factory=dict)
    critical: dict[tuple[str, str, float, bool], Critical] = field(default_factory=dict)
    disparities: dict[tuple[str, float, bool], Disparity] = field(default_factory=dict)
    spreads: list[SeedSpread] = field(default_factory=list)
    rungs: list[Rung] = field(default_factory=list)
    ladder_tasks: dict[str, list[str]] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)


def analyse(
    trials: Sequence[LoadedTrial],
    abilities: Mapping[str, str],
    *,
    drops: Sequence[float] = DROPS,
    resamples: int = 2000,
    gaps: Sequence[str] = (),
) -> Analysis:
    """Computes everything.

    Args:
        trials: merged.
        abilities: of the tasks, by name.
        resamples: of the bootstrap.
        gaps: from reading.

    Raises:
        ReportError: mixed results.
    """
    series, missing = collect(trials)
    done = Analysis(list(trials), series, abilities, gaps=[*gaps, *missing])
    _undeclared(done)
    _rows(done, resamples)
    done.spreads, missing = spreads(trials, dense_trials(trials), resamples)
    done.gaps += missing
    for one in series:
        if one.dense is not None:
            _series(done, one, one.dense, drops, resamples)
    _ladder(done)
    done.gaps = list(dict.fromkeys(done.gaps))
    return done


def _undeclared(done: Analysis) -> None:
    scores = [score for trial in done.trials for score in trial.tasks.values()]
    names = sorted({score.task for score in scores if not score.chance_declared})
    if names:
        done.gaps.append(f"chance is taken to be 0 for tasks that do not declare it: {', '.join(names)}")
    for name in sorted({score.task for score in scores} - set(done.abilities)):
        done.gaps.append(f"task {name!r}: in the table only, it is named neither as recall nor as in-context")


def _rows(done: Analysis, resamples: int) -> None:
    dense = dense_trials(done.trials)
    none: dict[str, list[str]] = {}
    unanswered: dict[str, list[str]] = {}
    for trial in done.trials:
        for task, score in trial.tasks.items():
            against = dense.get(trial.dense_digest)
            before = against.tasks.get(task) if against else None
            found, why = None, None
            if score.scores is None:
                why = "there are no per-sample records"
                none.setdefault(task, []).append(trial.name)
            elif trial.is_dense:
                why = "dense"
            elif before is None:
                why = "there is no dense result"
            elif before.scores is None:
                why = "there are no per-sample records of the dense model"
            else:
                ids = sorted(before.scores)
                try:
                    found = compare(
                        Scores(ids, [before.scores[one] for one in ids]), Scores(ids, [score.scores[one] for one in ids]),
                        chance=score.chance, resamples=resamples,
                    )  # fmt: skip
                except StatisticsError as error:
                    why = str(error)
                    done.gaps.append(f"task {task!r}: nothing is compared with the dense {trial.pretrained}: {error}")
            if why == "there is no dense result" and against is not None:
                done.gaps.append(f"task {task!r}: the dense {trial.pretrained} has no result, so nothing can be compared with it")
            labels = label_use(score.predictions, score.labels) if score.predictions else None
            if labels is None and score.scores is not None:
                unanswered.setdefault(task, []).append(trial.name)
            done.rows.append(Row(trial, score, done.abilities.get(task), found, why, labels))
    for task, names in none.items():
        done.gaps.append(
            f"task {task!r}: no paired statistics and no use of labels, the per-sample records are missing (lm_eval --log_samples writes "
            f"them) of {_few(names)}"
        )
    for task, names in unanswered.items():
        done.gaps.append(f"task {task!r}: no use of labels, the per-sample records do not say which answer its score is of ({_few(names)})")


def _few(names: Sequence[str]) -> str:
    return f"{'; '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def _series(done: Analysis, series: Series, dense: LoadedTrial, drops: Sequence[float], resamples: int) -> None:
    curves = {ability: _curves(done, series, dense, ability) for ability in ABILITIES}
    for ability, found in curves.items():
        if not found:
            continue
        done.used[series.label, ability] = [curve.name for curve in found]
        try:
            done.curves[series.label, ability] = ability_curve(found, corrected=True, resamples=resamples)
            for drop in drops:
                for corrected in (True, False):
                    done.critical[series.label, ability, drop, corrected] = ability_critical(
                        found, drop=drop, corrected=corrected, resamples=resamples
                    )
        except StatisticsError as error:
            done.gaps.append(f"{series.label}: no curve of {NAMES[ability]}: {error}")
    if lacking := [NAMES[ability] for ability, found in curves.items() if not found]:
        done.gaps.append(f"{series.label}: no disparity, there is no curve of {' or of '.join(lacking)}")
        return
    for drop in drops:
        for corrected in (True, False):
            try:
                done.disparities[series.label, drop, corrected] = disparity(
                    curves[RECALL], curves[IN_CONTEXT], drop=drop, corrected=corrected, resamples=resamples
                )
            except StatisticsError as error:
                done.gaps.append(f"{series.label}: no disparity: {error}")


def _curves(done: Analysis, series: Series, dense: LoadedTrial, ability: str) -> list[Curve]:
    """The curves of an ability's tasks at the sparsities that all of them have, for every seed; what is dropped is put among the gaps."""
    tasks = [task for task, of in done.abilities.items() if of == ability]
    here = [task for task in tasks if any(task in trial.tasks for trial in [dense, *series.trials])]
    usable = []
    for task in here:
        before = dense.tasks.get(task)
        if before is None or before.scores is None:
            what = "no result" if before is None else "no per-sample records"
            done.gaps.append(f"{series.label}: {task} is not in the curve of {NAMES[ability]}, the dense model has {what} of it")
        elif before.value <= before.chance:
            done.gaps.append(
                f"{series.label}: {task} is not in the curve of {NAMES[ability]}, the dense score {before.value:.4g} is not above chance "
                f"{before.chance:.4g}: there is nothing to lose"
            )
        elif not any(task in trial.tasks and trial.tasks[task].scores is not None for trial in series.trials):
            done.gaps.append(
                f"{series.label}: {task} is not in the curve of {NAMES[ability]}, no pruned model has per-sample records of it"
            )
        else:
            usable.append(task)
    grid = []
    for sparsity, by_seed in sorted(series.points.items()):
        lacking = [
            f"{task}{'' if seed is None else f' of seed {seed}'}"
            for seed in series.seeds for task in usable
            if seed not in by_seed or task not in by_seed[seed].tasks or by_seed[seed].tasks[task].scores is None
        ]  # fmt: skip
        if lacking:
            done.gaps.append(
                f"{series.label}: the sparsity {sparsity:g} is not in the curve of {NAMES[ability]}, per-sample records are missing: "
                f"{', '.join(lacking)}"
            )
        elif usable:
            grid.append(sparsity)
    if not grid:
        return []
    found = []
    for task in usable:
        of_dense = dense.tasks[task].scores or {}
        ids = sorted(of_dense)
        values = np.array([
            [[of_dense[one] for one in ids]]
            + [[(series.points[sparsity][seed].tasks[task].scores or {})[one] for one in ids] for sparsity in grid]
            for seed in series.seeds
        ])  # fmt: skip
        try:
            found.append(Curve(task, [0.0, *grid], values, ids, dense.tasks[task].chance))
        except StatisticsError as error:
            done.gaps.append(f"{series.label}: {task} is not in the curve of {NAMES[ability]}: {error}")
    return found


def _ladder(done: Analysis) -> None:
    """Dense and pruned models by parameters, on the tasks that all of them have."""
    dense = sorted(dense_trials(done.trials).values(), key=lambda trial: trial.nonzero or 0)
    if len(dense) < 2:
        done.gaps.append(f"no ladder of dense models beside the pruned ones: there {'is one dense model' if dense else 'are none'}")
        return
    if unknown := [trial.name for trial in done.trials if trial.nonzero is None]:
        done.gaps.append(f"no ladder of dense models: the results do not say how many parameters there are in {unknown[0]}")
        return
    for ability in ABILITIES:
        tasks = []
        for task in [task for task, of in done.abilities.items() if of == ability]:
            scores = [trial.tasks.get(task) for trial in dense]
            if any(score is None for score in scores):
                done.gaps.append(f"{task} is not in the ladder: not every dense model has a result of it")
            elif not all(same_items(scores[0], score) for score in scores if scores[0] and score):
                done.gaps.append(f"{task} is not in the ladder: its items are not the same for every model")
            else:
                tasks.append(task)
        if not tasks:
            done.gaps.append(f"no ladder for {NAMES[ability]}: there is no task of it that all dense models have")
            continue
        done.ladder_tasks[ability] = tasks
        steps = [(float(trial.nonzero or 0), _mean([trial], tasks)) for trial in dense]
        done.rungs += [
            Rung(trial.pretrained, None, 0.0, ability, step[0], step[1], step[1]) for trial, step in zip(dense, steps, strict=True)
        ]
        for series in done.series:
            for sparsity, by_seed in sorted(series.points.items()):
                trials = list(by_seed.values())
                if not all(task in trial.tasks for trial in trials for task in tasks):
                    done.gaps.append(f"{series.label} at {sparsity:g} is not in the ladder for {NAMES[ability]}: a task is missing")
                    continue
                nonzero = float(np.mean([trial.nonzero or 0 for trial in trials]))
                equal = _between(nonzero, steps)
                done.rungs.append(Rung(series.pretrained, series.label, sparsity, ability, nonzero, _mean(trials, tasks), equal))


def _mean(trials: Sequence[LoadedTrial], tasks: Sequence[str]) -> float:
    return float(np.mean([trial.tasks[task].corrected for trial in trials for task in tasks]))


def _between(nonzero: float, steps: Sequence[tuple[float, float]]) -> float | None:
    sizes = [size for size, _ in steps]
    if not sizes[0] <= nonzero <= sizes[-1]:
        return None
    return float(np.interp(np.log(nonzero), np.log(sizes), [score for _, score in steps]))
