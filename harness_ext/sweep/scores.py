"""The scores of a sweep at a glance: one row a trial, one column a task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness_ext.sweep.records import TrialRecord

METRICS = ("acc", "exact_match", "acc_norm", "contains", "em", "f1")
"""The score of a task is the first of these metrics that it has."""


def headline(scores: dict[str, Any], metrics: Iterable[str] = METRICS) -> str | None:
    """The name of the score that stands for a task, such as ``acc,none``: of ``metrics``, or else the first that there is."""
    names = [name for name, value in scores.items() if "," in name and not _is_error(name) and is_number(value)]
    chosen = (name for metric in metrics for name in names if name.partition(",")[0] == metric)
    return next(chosen, names[0] if names else None)


def columns(records: Iterable[TrialRecord]) -> list[str]:
    """Tasks and groups with a score, without the tasks of a group that has a score itself."""
    tasks: dict[str, None] = {}
    for record in records:
        results = record.results["results"]
        scored = [task for task, scores in results.items() if headline(scores)]
        groups = record.results.get("group_subtasks", {})
        covered = {task for group in scored for task in groups.get(group, [])}
        tasks |= dict.fromkeys(task for task in scored if task not in covered)
    return list(tasks)


def score(record: TrialRecord, task: str) -> float | None:
    """The score of a trial in a task; None if there is none."""
    scores = record.results["results"].get(task, {})
    name = headline(scores)
    return None if name is None else float(scores[name])


def _is_error(name: str) -> bool:
    return name.partition(",")[0].endswith("_stderr")


def is_number(value: Any) -> bool:
    """Whether a value of the results is a number: true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
