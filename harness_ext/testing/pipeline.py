"""Runs a task through lm-eval's pipeline. A model that knows all answers must score 1, and a model that guesses must score chance."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness_ext.testing.built import Built, first_line
from harness_ext.testing.findings import Finding, NotCheckedError

# Metrics that give 1 to a perfect answer. The score of a perfect answer is not known for other metrics.
_SHARES = ("acc", "exact_match", "em", "f1", "pass", "memory_match", "memory_acc")
_GUESSED = ("acc", "acc_norm")
FALSE_ALARMS = 1e-4


class _PipelineError(Exception):
    """lm-eval could not score the answers."""


def check_oracle(built: Built) -> list[Finding]:
    """Checks that a model that knows all answers scores 1.0, or 0.0 if lower is better.

    Raises:
        NeedsDownloadError: the data of the task cannot be reached.
        NotCheckedError: the score of perfect answers is not known for any of its metrics.
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
    """Checks that a model that guesses scores chance, within sampling error (one false alarm in ten thousand).

    Args:
        built: the task.
        limit: number of documents; None for all.

    Raises:
        NeedsDownloadError: the data of the task cannot be reached.
        NotCheckedError: the task has no choices, or no score with a known chance.
    """
    from harness_ext.testing.models import RandomLM

    documents = built.rendered[:limit]
    if not documents or min(len(document.choices) for document in documents) < 2:
        raise NotCheckedError("it has no choices to guess among: chance is not known")
    chances = [document.chance for document in documents]
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
    """The smallest and the largest plausible share of right guesses.

    Args:
        chances: probability of a right guess, for each document.
        alarms: probability that a guesser is outside of the range, half of it on each side.
    """
    right = np.ones(1)  # probabilities of 0, 1, ... right guesses
    for chance in chances:
        right = np.convolve(right, [1 - chance, chance])
    below = np.cumsum(right)  # probabilities of at most 0, 1, ... right guesses
    least = int(np.searchsorted(below, alarms / 2, side="right"))
    most = int(np.searchsorted(below, 1 - alarms / 2))
    return least / len(chances), most / len(chances)


def run(built: Built, lm: Any, *, limit: int | None = None) -> Mapping[str, float]:
    """The scores that lm-eval reports for a task, by metric. With several filters, the last one counts, which is the task's own."""
    from lm_eval.evaluator import evaluate

    level = logging.getLogger("lm_eval").level
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        results = evaluate(
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
        for key, value in results["results"][built.name].items()
        if "," in key and isinstance(value, float) and "_stderr" not in key
    }


def _is_share(metric: str) -> bool:
    return metric != "acc_mutual_info" and any(metric == name or metric.startswith(f"{name}_") for name in _SHARES)


def _failed(check: str, built: Built, error: _PipelineError) -> Finding:
    return Finding(check, built.file, "process_results" if built.task.config.process_results else "metric_list", str(error))


def _stopped(built: Built) -> str:
    """The reason why the right answer cannot be generated, if ``until`` is the reason."""
    from harness_ext.testing.models import cut

    if built.task.OUTPUT_TYPE != "generate_until":
        return ""
    delimiter, until = built.task.config.target_delimiter, (built.task.config.generation_kwargs or {}).get("until")
    for number, document in enumerate(built.rendered):
        text = delimiter + document.answers[0]
        if cut(text, until) != text:
            return f"; generation_kwargs.until ends {text[:60]!r}, the answer of document {number}, at {cut(text, until)[-30:]!r}"
    return ""
