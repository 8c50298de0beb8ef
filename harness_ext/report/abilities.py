"""Which ability a task is about."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from harness_ext.errors import did_you_mean, shown
from harness_ext.report.trials import ReportError

RECALL, IN_CONTEXT = "recall", "in-context"
ABILITIES = (RECALL, IN_CONTEXT)
NAMES = {RECALL: "recall", IN_CONTEXT: "in-context ability"}
RECALL_PATTERNS = ("*_closed",)  # the tasks of the group fact_recall, and all closed-book tasks


def abilities(tasks: Iterable[str], recall: Sequence[str] = (), in_context: Sequence[str] = ()) -> dict[str, str]:
    """The ability of each task, for those that are about one of the two.

    Args:
        tasks: their names.
        recall: names or patterns; by default ``*_closed``.
        in_context: names or patterns; by default all tasks that are not recall.

    Raises:
        ReportError: a name or pattern that no task matches, or a task that matches both.
    """
    tasks = list(dict.fromkeys(tasks))
    for option, patterns in (("--recall", recall), ("--in-context", in_context)):
        for pattern in patterns:
            if not fnmatch.filter(tasks, pattern):
                raise ReportError(f"{option} {pattern}: no such task in the results.{did_you_mean(pattern, tasks)}")
    found = {}
    for task in tasks:
        named = [_matches(task, recall), _matches(task, in_context)]
        if all(named):
            raise ReportError(f"task {shown(task)} is named by both --recall and --in-context")
        if named[0] or (not recall and not named[1] and _matches(task, RECALL_PATTERNS)):
            found[task] = RECALL
        elif named[1] or not in_context:
            found[task] = IN_CONTEXT
    return found


def _matches(task: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(task, pattern) for pattern in patterns)
