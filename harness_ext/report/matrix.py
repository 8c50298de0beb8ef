"""The matrix of scores: a row for each sparsity, a column for each task, methods one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from harness_ext.report.analysis import Analysis, Row
from harness_ext.report.trials import LoadedTrial
from harness_ext.report.words import name_of, tasks_by_ability


@dataclass(frozen=True)
class Cell:
    """One score.

    Args:
        text: the score, the mean over calibration seeds.
        lost: the percentage of the dense score above chance that is lost, from 0 to 100; None where there is nothing to compare with.
        said: the values, for the pointer.
    """

    text: str
    lost: int | None
    said: str


@dataclass
class Group:
    """The rows of one method: what names them (the sparsity), and a cell for each task or None."""

    title: str
    rows: list[tuple[str, list[Cell | None]]] = field(default_factory=list)


@dataclass(frozen=True)
class Matrix:
    """All scores.

    Args:
        heads: the abilities with the number of their tasks.
        tasks: in the order of the columns.
    """

    heads: Sequence[tuple[str, int]]
    tasks: Sequence[str]
    groups: Sequence[Group]


def matrix(done: Analysis) -> Matrix:
    """The matrix of all trials, those that are in no curve too."""
    by_ability = tasks_by_ability(done)
    tasks = [task for group in by_ability.values() for task in group]
    rows = {(id(row.trial), row.score.task): row for row in done.rows}
    labels = {id(trial): one.label for one in done.series for trial in one.trials}
    several = len({trial.pretrained for trial in done.trials}) > 1
    groups: dict[str, Group] = {}
    together: dict[tuple[str, str], list[LoadedTrial]] = {}
    for trial in sorted(done.trials, key=lambda one: not one.is_dense):
        if trial.is_dense:
            title, name = "nothing removed", trial.pretrained if several else "0"
        else:
            method = f"{trial.pretrained}, {trial.plan['pruner']}" if several else str(trial.plan["pruner"])
            title = labels.get(id(trial), f"{method} (in no curve)")
            name = trial.sparsity if trial.pattern else f"{round(trial.achieved, 3):g}"
        together.setdefault((title, name), []).append(trial)
    for title, name in sorted(together, key=lambda key: _order(key, done)):
        cells = [_cell([rows[id(one), task] for one in together[title, name] if (id(one), task) in rows]) for task in tasks]
        groups.setdefault(title, Group(title)).rows.append((name, cells))
    return Matrix([(name_of(ability), len(group)) for ability, group in by_ability.items()], tasks, list(groups.values()))


def _order(key: tuple[str, str], done: Analysis) -> tuple[int, float]:
    """What was not pruned first, then the methods as everywhere, then what is in no curve; sparsities rising."""
    title, name = key
    labels = [one.label for one in done.series]
    place = -1 if title == "nothing removed" else labels.index(title) if title in labels else len(labels)
    return place, float(name) if place >= 0 and ":" not in name else 0.0


def _cell(rows: Sequence[Row]) -> Cell | None:
    if not rows:
        return None
    score, first = float(np.mean([row.score.value for row in rows])), rows[0]
    found = [row.found.retained for row in rows if row.found]
    said = f"{first.score.task}: {first.score.metric} {score:.4f}, chance {first.score.chance:g}"
    said += f", mean of {len(rows)} seeds" if len(rows) > 1 else f", {first.score.count} items" if first.score.count else ""
    if first.trial.is_dense:
        return Cell(f"{score:.2f}", 0, said)
    if not found:
        return Cell(f"{score:.2f}", None, f"{said}; no share of the dense score: {first.why_not}")
    retained = float(np.mean([one.value for one in found]))
    said += f"; retained {retained:.3f}"
    if len(found) == 1 and found[0].low is not None and found[0].high is not None:
        said += f" ({found[0].low:.3f} to {found[0].high:.3f})"
    return Cell(f"{score:.2f}", round(100 * (1 - min(max(retained, 0.0), 1.0))), said)
