"""Compares every trial with the dense model on every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness_ext.report.series import dense_trials
from harness_ext.report.trials import LoadedTrial, TaskScore
from harness_ext.statistics import Comparison, Labels, Scores, StatisticsError, compare, label_use

NO_DENSE_RESULT = "there is no dense result"
NO_RECORDS = "there are no per-sample records"


@dataclass
class Row:
    """One trial on one task.

    Args:
        ability: one of ``abilities.NAMES``.
        found: the comparison with the dense model; None if there is none.
        why_not: the reason why there is no comparison.
        labels: how the answers are spread over the labels; None if the records have no answers.
    """

    trial: LoadedTrial
    score: TaskScore
    ability: str
    found: Comparison | None
    why_not: str | None
    labels: Labels | None


def rows(trials: Sequence[LoadedTrial], abilities: Mapping[str, str], otherwise: str, resamples: int) -> tuple[list[Row], list[str]]:
    """The rows, and what could not be compared.

    Args:
        abilities: the ability of each task, by name.
        otherwise: the ability of all other tasks.
        resamples: number of bootstrap resamples.
    """
    dense = dense_trials(trials)
    task_rows: list[Row] = []
    gaps: list[str] = []
    unrecorded: dict[str, list[str]] = {}
    unanswered: dict[str, list[str]] = {}
    for trial in trials:
        for task, score in trial.tasks.items():
            dense_trial = dense.get(trial.dense_digest)
            dense_score = dense_trial.tasks.get(task) if dense_trial else None
            comparison, why_not = _compared(trial, score, dense_score, resamples, gaps)
            if why_not == NO_DENSE_RESULT and dense_trial is not None:
                gaps.append(f"task {task!r}: the dense {trial.pretrained} has no result, so nothing can be compared with it")
            labels = label_use(score.predictions, score.labels) if score.predictions else None
            if score.scores is None:
                unrecorded.setdefault(task, []).append(trial.name)
            elif labels is None:
                unanswered.setdefault(task, []).append(trial.name)
            task_rows.append(Row(trial, score, abilities.get(task, otherwise), comparison, why_not, labels))
    for task, names in unrecorded.items():
        gaps.append(
            f"task {task!r}: no paired statistics and no use of labels, the per-sample records are missing (lm_eval --log_samples writes "
            f"them) of {_few(names)}"
        )
    for task, names in unanswered.items():
        gaps.append(f"task {task!r}: no use of labels, the per-sample records do not say which answer its score is of ({_few(names)})")
    return task_rows, gaps


def _compared(
    trial: LoadedTrial, score: TaskScore, dense_score: TaskScore | None, resamples: int, gaps: list[str]
) -> tuple[Comparison | None, str | None]:
    """The comparison with the dense model, or the reason why there is none."""
    if score.scores is None:
        return None, NO_RECORDS
    if trial.is_dense:
        return None, "dense"
    if dense_score is None:
        return None, NO_DENSE_RESULT
    if dense_score.scores is None:
        return None, f"{NO_RECORDS} of the dense model"
    ids = sorted(dense_score.scores)
    dense, pruned = (Scores(ids, either.in_order(ids)) for either in (dense_score, score))
    try:
        return compare(dense, pruned, chance=score.chance, resamples=resamples), None
    except StatisticsError as error:
        gaps.append(f"task {score.task!r}: nothing is compared with the dense {trial.pretrained}: {error}")
        return None, str(error)


def _few(names: Sequence[str]) -> str:
    return f"{'; '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
