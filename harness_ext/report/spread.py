"""Mean and spread of each task over calibration seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness_ext.report.trials import LoadedTrial
from harness_ext.statistics import OverSeeds, Scores, over_seeds


@dataclass(frozen=True)
class SeedSpread:
    """One task over the calibration seeds of one setting.

    Args:
        trial: the trial of one seed. The others differ from it in the seed only.
    """

    trial: LoadedTrial
    task: str
    found: OverSeeds


def spreads(trials: Sequence[LoadedTrial], dense: Mapping[str, LoadedTrial], resamples: int) -> tuple[list[SeedSpread], list[str]]:
    """Mean and spread of each setting with at least two seeds. Also returns what could not be computed.

    Args:
        trials: merged trials.
        dense: dense trials, by the digest of their weights.
        resamples: number of bootstrap resamples.
    """
    groups: dict[tuple[str, str, str], list[LoadedTrial]] = {}
    for trial in trials:
        if trial.seed is not None:
            groups.setdefault((trial.dense_digest, repr(sorted(trial.settings.items())), trial.sparsity), []).append(trial)
    computed, gaps = [], []
    for group in groups.values():
        group.sort(key=lambda trial: trial.seed or 0)
        for task in dict.fromkeys(task for trial in group for task in trial.tasks):
            scores = [trial.tasks[task] for trial in group if task in trial.tasks]
            if len(scores) < 2:
                continue
            if any(score.scores is None for score in scores):
                gaps.append(f"task {task!r}: no mean and spread over the seeds of {group[0].name}, per-sample records are missing")
                continue
            ids = sorted(scores[0].scores or {})
            computed.append(SeedSpread(group[0], task, over_seeds(
                [Scores(ids, score.in_order(ids)) for score in scores], dense=_usable(dense.get(group[0].dense_digest), task, ids),
                chance=scores[0].chance, resamples=resamples,
            )))  # fmt: skip
    if not computed and not gaps:
        gaps.append("no mean and spread over calibration seeds: no setting has results with two seeds")
    return computed, gaps


def _usable(dense: LoadedTrial | None, task: str, ids: Sequence[str]) -> Scores | None:
    """The dense scores; None if they are missing or not above chance."""
    score = dense.tasks.get(task) if dense else None
    if score is None or score.scores is None:
        return None
    scores = Scores(ids, score.in_order(ids))
    return scores if float(scores.array.mean()) > score.chance else None
