"""A task through lm-eval's own pipeline, filters, metrics and aggregation included: who knows scores 1, who guesses scores chance."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness_ext.testing.built import Built, first_line
from harness_ext.testing.findings import Finding, NotCheckedError

# Scores of right and wrong answers, between 0 and 1; what other metrics give to a perfect answer is theirs to say.
_SHARES = ("acc", "exact_match", "em", "f1", "pass", "memory_match", "memory_acc")
_GUESSED = ("acc", "acc_norm")
FALSE_ALARMS = 1e-4


class _PipelineError(Exception):
    """lm-eval could not score the answers."""


def check_oracle(built: Built) -> list[Finding]:
    """A model that knows every answer scores 1.0, and 0.0 where lower is better.

    Args:
        built: the task.

    Raises:
        NeedsDownloadError: its data cannot be reached.
        NotCheckedError: it has no metric of which that is known.
    """
    from harness_ext.testing.models import OracleLM

    lm = OracleLM(built.task)
    try:
        scores = run(built, lm)
    except _PipelineError as error:
        return [_failed("oracle", built, error)]
    if not scores:
        return [Finding("oracle", built.file, "metric_list", "lm-eval reports no score")]
    shares = {metric: score for metric, score in scores.items() if _is_share(metric)}
    if not shares:
        raise NotCheckedError("none of its metrics is known to be 1.0 for perfect answers")
    better = built.task.higher_is_better()
    findings = []
    for metric, score in shares.items():
        wanted = 0.0 if better.get(metric) is False else 1.0
        if abs(score - wanted) > 1e-9:
            message = f"a model that knows every answer scores {score:.4f}: want {wanted}{_stopped(built)}"
            findings.append(Finding("oracle", built.file, f"metric_list.{metric}", message))
    return findings


def check_random(built: Built, *, limit: int | None = None) -> list[Finding]:
    """A model that guesses scores chance, within what so many documents leave open (one false alarm in ten thousand).

    Args:
        built: the task.
        limit: the number of documents it is asked; None is all of them.

    Raises:
        NeedsDownloadError: its data cannot be reached.
        NotCheckedError: there are no choices to guess among, or no score of which chance is known.
    """
    from harness_ext.testing.models import RandomLM

    asked = built.rendered[:limit]
    if not asked or min(len(one.choices) for one in asked) < 2:
        raise NotCheckedError("it has no choices to guess among: chance is not known")
    chances = [one.chance for one in asked]
    try:
        scores = run(built, RandomLM(built.task), limit=limit)
    except _PipelineError as error:
        return [_failed("random", built, error)]
    guessed = (*_GUESSED, "exact_match") if built.task.OUTPUT_TYPE == "generate_until" else _GUESSED
    scores = {metric: score for metric, score in scores.items() if metric in guessed}
    if not scores:
        raise NotCheckedError(f"it has none of the metrics {', '.join(guessed)}: what a guess should score is not known")
    least, most = guesses(chances)
    chance = sum(chances) / len(chances)
    return [
        Finding(
            "random", built.file, f"metric_list.{metric}", f"a guess scores {score:.4f}: want {chance:.4f}, or {least:.4f} to {most:.4f}"
        )
        for metric, score in scores.items()
        if not least - 1e-9 <= score <= most + 1e-9
    ]


def guesses(chances: Sequence[float], alarms: float = FALSE_ALARMS) -> tuple[float, float]:
    """The least and the greatest share of right guesses that chance leaves open.

    Args:
        chances: how often a guess at each document is right.
        alarms: how often a guesser may be outside, half of it on each side.
    """
    right = np.ones(1)  # the probability of 0, 1, ... right guesses
    for chance in chances:
        right = np.convolve(right, [1 - chance, chance])
    below = np.cumsum(right)  # of at most so many
    least = int(np.searchsorted(below, alarms / 2, side="right"))
    most = int(np.searchsorted(below, 1 - alarms / 2))
    return least / len(chances), most / len(chances)


def run(built: Built, lm: Any, *, limit: int | None = None) -> Mapping[str, float]:
    """The scores that lm-eval reports for a task, by metric; of several filters the last one's, which is the task's own."""
    from lm_eval.evaluator import evaluate

    level = logging.getLogger("lm_eval").level
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        found = evaluate(
            lm=lm,
            task_dict={"tasks": {built.name: built.task}, "groups": {}, "group_map": {}},
            limit=limit,
            bootstrap_iters=0,
            log_samples=False,
        )
    except Exception as error:
        raise _PipelineError(f"lm-eval cannot score the answers: {type(error).__name__}: {first_line(error)}") from error
    finally:
        logging.getLogger("lm_eval").setLevel(level)
    return {
        key.partition(",")[0]: value
        for key, value in found["results"][built.name].items()
        if "," in key and isinstance(value, float) and "_stderr" not in key
    }


def _is_share(metric: str) -> bool:
    return metric != "acc_mutual_info" and any(metric == name or metric.startswith(f"{name}_") for name in _SHARES)


def _failed(check: str, built: Built, error: _PipelineError) -> Finding:
    return Finding(check, built.file, "process_results" if built.task.config.process_results else "metric_list", str(error))


def _stopped(built: Built) -> str:
    """Why the right answer cannot be written, where ``until`` is why."""
    from harness_ext.testing.models import cut

    if built.task.OUTPUT_TYPE != "generate_until":
        return ""
    delimiter, until = built.task.config.target_delimiter, (built.task.config.generation_kwargs or {}).get("until")
    for number, one in enumerate(built.rendered):
        written = delimiter + one.answers[0]
        if cut(written, until) != written:
            return f"; generation_kwargs.until ends {written[:60]!r}, the answer of document {number}, at {cut(written, until)[-30:]!r}"
    return ""
