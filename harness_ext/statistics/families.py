"""The weights of tasks in an ability: every family of tasks counts the same, whatever the number of its tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from harness_ext.errors import did_you_mean, shown
from harness_ext.statistics.checks import StatisticsError


def family_weights(tasks: Sequence[str], families: Mapping[str, Hashable] | None = None) -> tuple[float, ...]:
    """The weight of each task in the mean over an ability; the weights add up to 1.

    Every family has the same weight, and so has every task within a family. With four tasks of one passage set and one of key lookup, the
    key lookup has a weight of 1/2 and each other task one of 1/8.

    Args:
        tasks: names, all different, at least one.
        families: the family of each task, by name; may hold other tasks as well. None: every task is a family of its own.

    Raises:
        StatisticsError: no task, a task twice, or a task without a family.
    """
    if not tasks:
        raise StatisticsError("tasks: empty; want at least one")
    if families is None:
        return (1 / len(tasks),) * len(tasks)
    repeated, times = Counter(tasks).most_common(1)[0]
    if times > 1:
        raise StatisticsError(f"tasks: {repeated!r} is there {times} times; want every task once")
    for task in tasks:
        if task not in families:
            raise StatisticsError(f"families: no family for the task {shown(task)}.{did_you_mean(task, list(families))}")
    sizes = Counter(families[task] for task in tasks)
    return tuple(1 / len(sizes) / sizes[families[task]] for task in tasks)


def family_mean(scores: Mapping[str, float], families: Mapping[str, Hashable] | None = None) -> float:
    """The mean score of an ability, weighted as in ``family_weights``.

    Args:
        scores: by task.
        families: the family of each task, by name.

    Raises:
        StatisticsError: no task, or a task without a family.
    """
    weights = family_weights(list(scores), families)
    return sum(weight * score for weight, score in zip(weights, scores.values(), strict=True))
