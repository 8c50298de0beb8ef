"""The table of all scores: a row for each method and sparsity, and a column for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from harness_ext.report.analysis import Analysis
from harness_ext.report.rows import Row
from harness_ext.report.series import Series, label
from harness_ext.report.trials import LoadedTrial
from harness_ext.report.words import name_of, tasks_by_ability


@dataclass(frozen=True)
class Cell:
    """One score.

    Args:
        text: the score, averaged over calibration seeds.
        lost: percentage of the dense score above chance that is lost, 0 to 100. None without a comparison.
        said: text that a browser shows under the pointer.
    """

    text: str
    lost: int | None
    said: str


@dataclass
class Group:
    """The rows of one method. Each row has a name, which is the sparsity or the bits, and a cell or None for each task."""

    title: str
    rows: list[tuple[str, list[Cell | None]]] = field(default_factory=list)


@dataclass(frozen=True)
class Matrix:
    """All scores.

    Args:
        heads: each ability with the number of its tasks.
        tasks: names of the tasks, in the order of the columns.
    """

    heads: Sequence[tuple[str, int]]
    tasks: Sequence[str]
    groups: Sequence[Group]


def matrix(analysis: Analysis) -> Matrix:
    """The table of all trials, including those that are in no curve."""
    by_ability = tasks_by_ability(analysis)
    tasks = [task for group in by_ability.values() for task in group]
    rows = {(id(row.trial), row.score.task): row for row in analysis.rows}
    labels = analysis.labels
    several = len({trial.pretrained for trial in analysis.trials}) > 1
    loose = _in_no_curve([trial for trial in analysis.trials if not trial.is_dense and id(trial) not in labels], several)
    groups: dict[str, Group] = {}
    together: dict[tuple[str, str], list[LoadedTrial]] = {}
    for trial in sorted(analysis.trials, key=lambda trial: not trial.is_dense):
        if trial.is_dense:
            title, name = "nothing removed", trial.pretrained if several else "0"
        else:
            title = labels.get(id(trial)) or loose[id(trial)]
            name = trial.sparsity if trial.pattern or id(trial) in loose else f"{round(trial.achieved, 3):g}"
            name = name if trial.weight_bits is None else f"{trial.weight_bits} bits"
        together.setdefault((title, name), []).append(trial)
    for title, name in sorted(together, key=lambda key: _order(key, analysis)):
        cells = [_cell([rows[id(trial), task] for trial in together[title, name] if (id(trial), task) in rows]) for task in tasks]
        groups.setdefault(title, Group(title)).rows.append((name, cells))
    return Matrix([(name_of(ability), len(group)) for ability, group in by_ability.items()], tasks, list(groups.values()))


def _in_no_curve(trials: Sequence[LoadedTrial], several: bool) -> dict[int, str]:
    """A title for each setting of trials that are in no curve, by the ``id`` of the trial."""
    by_setting: dict[str, Series] = {}
    of_trial = {}
    for trial in trials:
        key = repr((trial.dense_digest, sorted(trial.settings.items())))
        of_trial[id(trial)] = by_setting.setdefault(key, Series(trial.dense_digest, trial.pretrained, trial.settings, None))
    label(list(by_setting.values()), several=several)
    return {trial: f"{series.label} (in no curve)" for trial, series in of_trial.items()}


def _order(key: tuple[str, str], analysis: Analysis) -> tuple[int, float]:
    """Sort key: dense models, then methods in the order of the series, then trials in no curve; sparsities and bits rise."""
    title, name = key
    labels = [series.label for series in analysis.every_series]
    place = -1 if title == "nothing removed" else labels.index(title) if title in labels else len(labels)
    return place, float(name.removesuffix(" bits")) if place >= 0 and ":" not in name else 0.0


def _cell(rows: Sequence[Row]) -> Cell | None:
    if not rows:
        return None
    score, first = float(np.mean([row.score.value for row in rows])), rows[0]
    fractions = [row.found.retained for row in rows if row.found]
    hover = f"{first.score.task}: {first.score.metric} {score:.4f}, chance {first.score.chance:g}"
    hover += f", mean of {len(rows)} seeds" if len(rows) > 1 else f", {first.score.count} items" if first.score.count else ""
    if first.trial.is_dense:
        return Cell(f"{score:.2f}", 0, hover)
    if not fractions:
        return Cell(f"{score:.2f}", None, f"{hover}; no share of the dense score: {first.why_not}")
    retained = float(np.mean([fraction.value for fraction in fractions]))
    hover += f"; retained {retained:.3f}"
    if len(fractions) == 1 and fractions[0].low is not None and fractions[0].high is not None:
        hover += f" ({fractions[0].low:.3f} to {fractions[0].high:.3f})"
    return Cell(f"{score:.2f}", round(100 * (1 - min(max(retained, 0.0), 1.0))), hover)
