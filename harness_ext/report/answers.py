"""What a model answered, from lm-eval's per-sample records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Answer = str | int
CHOICE_METRIC = "acc"  # acc_norm divides by the lengths of the choices, which are not in the records


def answers(rows: Sequence[Mapping[str, Any]], metric: str, scores: Sequence[float]) -> tuple[list[Answer] | None, list[Answer] | None]:
    """The predictions and the right labels of a task.

    A prediction is the number of the likeliest choice where the score is ``acc`` (of equally likely ones the first, as lm-eval has it), and
    the text that was generated, without white space around it, for other scores. A text that was scored as right is taken to be the label:
    what a task forgives, such as a full stop, makes no other answer.

    Args:
        rows: samples as lm-eval and ``harness-ext sweep`` write them, of one filter.
        metric: which score it is.
        scores: of each row.

    Returns:
        the predictions, None where a row has none; the labels, None unless ``prediction == label`` is what was scored in every row.
    """
    predictions = [_prediction(row, metric) for row in rows]
    if not predictions or any(one is None for one in predictions):
        return None, None
    known = [one for one in predictions if one is not None]
    labels = [_label(row.get("target"), one) for row, one in zip(rows, known, strict=True)]
    known = [label if isinstance(label, str) and score == 1 else one for one, label, score in zip(known, labels, scores, strict=True)]
    agree = all(float(one == label) == score for one, label, score in zip(known, labels, scores, strict=True))
    given = [label for label in labels if label is not None]
    return known, given if agree and len(given) == len(known) else None


def chance_of(rows: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> float | None:
    """The score of a guess among the choices: the mean over items of 1/number of choices.

    None where that is not known: an item without two choices or more, with several right ones, or with a graded score.

    Args:
        rows: samples, as for ``answers``, of a score that is 1 where the likeliest choice is right.
        scores: of each row.
    """
    choices = [len(_likelihoods(row)) for row in rows]
    one_right = all(score in (0, 1) for score in scores) and not any(isinstance(row.get("target"), list) for row in rows)
    if not choices or min(choices) < 2 or not one_right:
        return None
    return math.fsum(1 / count for count in choices) / len(choices)  # exact, so that the order of the items does not matter


def _prediction(row: Mapping[str, Any], metric: str) -> Answer | None:
    if metric == CHOICE_METRIC:
        likelihoods = _likelihoods(row)
        if len(likelihoods) < 2 or any(map(math.isnan, likelihoods)):
            return None
        return likelihoods.index(max(likelihoods))
    responses = row.get("filtered_resps")
    return responses[0].strip() if isinstance(responses, list) and responses and isinstance(responses[0], str) else None


def _likelihoods(row: Mapping[str, Any]) -> list[float]:
    """Of the choices of an item, in order."""
    responses = row.get("filtered_resps")
    likelihoods = [one for one in map(_likelihood, responses if isinstance(responses, list) else []) if one is not None]
    if "acc_mutual_info" in row.get("metrics", ()):  # the second half is of the choices without the question
        likelihoods = likelihoods[: len(likelihoods) // 2]
    return likelihoods


def _likelihood(given: Any) -> float | None:
    """Of ``[log-likelihood, whether it is greedy]``, which ``--log_samples`` writes as two strings."""
    if not isinstance(given, list) or len(given) != 2 or str(given[1]) not in ("True", "False"):
        return None
    try:
        return float(given[0])
    except (TypeError, ValueError):
        return None


def _label(target: Any, prediction: Answer) -> Answer | None:
    """What is right, as the kind of thing that the prediction is."""
    if isinstance(prediction, str):
        return target.strip() if isinstance(target, str) else None
    if isinstance(target, str) and target.isdecimal():
        return int(target)
    return target if isinstance(target, int) and not isinstance(target, bool) else None
