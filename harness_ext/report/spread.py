"""The same pruning with several calibration seeds: mean and spread of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness_ext.report.trials import LoadedTrial, TaskScore
from harness_ext.statistics import OverSeeds, Scores, over_seeds


@dataclass(frozen=True)
class SeedSpread:
    """One task over the calibration seeds of one setting.

    Args:
        trial: of one of the seeds; all that it says but the seed is true of all.
    """

    trial: LoadedTrial
    task: str
    found: OverSeeds


def spreads(trials: Sequence[LoadedTrial], dense: Mapping[str, LoadedTrial], resamples: int) -> tuple[list[SeedSpread], list[str]]:
    """Mean and spread where a setting has results with two seeds or more, and what could not be computed.

    Args:
        trials: merged.
        dense: by the digest of their weights.
        resamples: of the bootstrap.
    """
    groups: dict[tuple[str, str, str], list[LoadedTrial]] = {}
    for trial in trials:
        if trial.seed is not None:
            groups.setdefault((trial.dense_digest, repr(sorted(trial.settings.items())), trial.sparsity), []).append(trial)
    found, gaps = [], []
    for group in groups.values():
        group.sort(key=lambda trial: trial.seed or 0)
        for task in dict.fromkeys(task for trial in group for task in trial.tasks):
            of = [trial.tasks[task] for trial in group if task in trial.tasks]
            if len(of) < 2:
                continue
            if any(score.scores is None for score in of):
                gaps.append(f"task {task!r}: no mean and spread over the seeds of {group[0].name}, per-sample records are missing")
                continue
            ids = sorted(of[0].scores or {})
            found.append(SeedSpread(group[0], task, over_seeds(
                [_scores(score, ids) for score in of], dense=_usable(dense.get(group[0].dense_digest), task, ids), chance=of[0].chance,
                resamples=resamples,
            )))  # fmt: skip
    if not found and not gaps:
        gaps.append("no mean and spread over calibration seeds: no setting has results with two seeds")
    return found, gaps


def _usable(dense: LoadedTrial | None, task: str, ids: Sequence[str]) -> Scores | None:
    """The dense scores where there is something to retain."""
    score = dense.tasks.get(task) if dense else None
    if score is None or score.scores is None:
        return None
    found = _scores(score, ids)
    return found if float(found.array.mean()) > score.chance else None


def _scores(score: TaskScore, ids: Sequence[str]) -> Scores:
    given = score.scores or {}
    return Scores(ids, [given[one] for one in ids])
