"""Sorts tasks by the ability that they measure, and by family."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from harness_ext.errors import did_you_mean, shown
from harness_ext.report.trials import LoadedTrial, ReportError

RECALL, IN_CONTEXT = "recall", "in-context"
MIXED = "mixed"  # needs both abilities, or reasoning; counts in no mean
UNCLASSIFIED = "unclassified"  # counts in no mean either
ABILITIES = (RECALL, IN_CONTEXT)
NAMES = {RECALL: "recall", IN_CONTEXT: "in-context ability", MIXED: MIXED, UNCLASSIFIED: UNCLASSIFIED}
DECLARED = (*ABILITIES, MIXED)
KEY, FAMILY_KEY = "ability", "family"  # keys in the metadata of a task


@dataclass(frozen=True)
class TaskClass:
    """The ability and the family of a task.

    Args:
        ability: recall, in-context or mixed; None if it is unknown.
        family: name of the group of tasks that measure the same thing. All families of an ability have the same weight in its mean.
    """

    ability: str | None
    family: str


def classify(trials: Sequence[LoadedTrial], recall: Sequence[str] = (), in_context: Sequence[str] = ()) -> dict[str, TaskClass]:
    """The class of every task that has a score, by the name of the task.

    The ability comes from the options, else from ``ability`` in the metadata of the task, else from our table of lm-eval's tasks.

    Args:
        trials: the trials, with their scores.
        recall: names or patterns of the tasks that measure recall.
        in_context: names or patterns of the tasks that measure in-context ability.

    Raises:
        ReportError: no task matches a name or pattern, a task matches both options, or the metadata name an unknown ability.
    """
    tasks = sorted({task for trial in trials for task in trial.tasks})
    options = {RECALL: recall, IN_CONTEXT: in_context}
    for ability, patterns in options.items():
        for pattern in patterns:
            if not fnmatch.filter(tasks, pattern):
                raise ReportError(f"--{ability} {pattern}: no such task in the results.{did_you_mean(pattern, tasks)}")
    abilities, families = _declared(trials, KEY), _declared(trials, FAMILY_KEY)
    return {task: _class_of(task, abilities.get(task), families.get(task), options) for task in tasks}


def _class_of(task: str, declared: Any, family: Any, options: Mapping[str, Sequence[str]]) -> TaskClass:
    by_option = [ability for ability, patterns in options.items() if any(fnmatch.fnmatchcase(task, pattern) for pattern in patterns)]
    if len(by_option) > 1:
        raise ReportError(f"task {shown(task)} is named by both --recall and --in-context")
    if declared is not None and declared not in DECLARED:
        near = did_you_mean(declared, DECLARED) if isinstance(declared, str) else ""
        raise ReportError(f"task {shown(task)}: {KEY} {shown(declared)} in its metadata; want {', '.join(DECLARED[:-1])} or {MIXED}.{near}")
    known = known_task(task)
    ability = by_option[0] if by_option else declared or (known.ability if known else None)
    if isinstance(family, str) and family:
        return TaskClass(ability, family)
    return TaskClass(ability, known.family if known else task)


def _declared(trials: Iterable[LoadedTrial], key: str) -> dict[str, Any]:
    """The value of a key in the metadata of each task. Tasks without the key are left out.

    Raises:
        ReportError: two trials have different values for one task.
    """
    declared: dict[str, Any] = {}
    first_trials: dict[str, LoadedTrial] = {}
    for trial in trials:
        for task, score in trial.tasks.items():
            value = score.metadata.get(key)
            if value is None:
                continue
            if task in declared and declared[task] != value:
                both = f"{first_trials[task].name} and {trial.name}"
                raise ReportError(f"task {shown(task)}: {key} {shown(declared[task])} and {shown(value)} in its metadata: {both}")
            declared.setdefault(task, value)
            first_trials.setdefault(task, trial)
    return declared


def known_task(task: str) -> TaskClass | None:
    """The class of a task in our table of lm-eval's tasks; None if the table does not have the task."""
    return next((task_class for pattern, task_class in known_patterns() if fnmatch.fnmatchcase(task, pattern)), None)


@functools.cache
def known_patterns() -> tuple[tuple[str, TaskClass], ...]:
    """The names and patterns in the table, each with the class of the tasks that match it."""
    import yaml  # type: ignore[import-untyped]

    table = yaml.safe_load(resources.files("harness_ext.report").joinpath("known_tasks.yaml").read_text(encoding="utf-8"))
    return tuple(
        (pattern, TaskClass(ability, family))
        for ability, families in table.items()
        for family, patterns in families.items()
        for pattern in patterns
    )


def how_to_class(task: str) -> str:
    """Advice for a task without an ability."""
    return f"class it with --recall {task} or --in-context {task}, or with {KEY}: {RECALL} or {IN_CONTEXT} in the metadata of the task"
