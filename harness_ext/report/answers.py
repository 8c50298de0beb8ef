"""Reads the answers of a model from lm-eval's per-sample records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Answer = str | int
CHOICE_METRIC = "acc"  # acc_norm divides by the lengths of the choices, which are not in the records
RANK_METRIC = "recall_at_1"  # only tasks that rank all answers have it


def answers(rows: Sequence[Mapping[str, Any]], metric: str, scores: Sequence[float]) -> tuple[list[Answer] | None, list[Answer] | None]:
    """The predictions of a model and the right labels of a task.

    For ``acc``, a prediction is the index of the likeliest choice. Of equally likely choices it is the first, as in lm-eval. For other
    scores, a prediction is the generated text, stripped of white space. A text that was scored as right is replaced by the label, so that
    a difference that the task forgives, such as a full stop, does not make another answer.

    Args:
        rows: samples of one filter, as lm-eval and ``harness-ext sweep`` write them.
        metric: name of the score.
        scores: the score of each row.

    Returns:
        The predictions, or None if a row has no prediction. The labels, or None unless every score is ``prediction == label``.
    """
    predictions = [_prediction(row, metric) for row in rows]
    if not predictions or any(prediction is None for prediction in predictions):
        return None, None
    complete = [prediction for prediction in predictions if prediction is not None]
    labels = [_label(row.get("target"), prediction) for row, prediction in zip(rows, complete, strict=True)]
    complete = [
        label if isinstance(label, str) and score == 1 else prediction
        for prediction, label, score in zip(complete, labels, scores, strict=True)
    ]
    agree = all(float(prediction == label) == score for prediction, label, score in zip(complete, labels, scores, strict=True))
    present = [label for label in labels if label is not None]
    return complete, present if agree and len(present) == len(complete) else None


def chance_of(rows: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> float | None:
    """The score of a guess among the choices: the mean over items of 1 / number of choices.

    None if it is unknown: an item has fewer than two choices or several right ones, or a score is neither 0 nor 1.

    Args:
        rows: samples as for ``answers``. The score is 1 if the likeliest choice is right.
        scores: the score of each row.
    """
    choices = [len(likelihoods(row)) for row in rows]
    one_right = all(score in (0, 1) for score in scores) and not any(isinstance(row.get("target"), list) for row in rows)
    if not choices or min(choices) < 2 or not one_right:
        return None
    return math.fsum(1 / count for count in choices) / len(choices)  # fsum does not depend on the order of the items


def _prediction(row: Mapping[str, Any], metric: str) -> Answer | None:
    if metric == CHOICE_METRIC:
        of_choices = likelihoods(row)
        if len(of_choices) < 2 or any(map(math.isnan, of_choices)):
            return None
        return of_choices.index(max(of_choices))
    responses = row.get("filtered_resps")
    return responses[0].strip() if isinstance(responses, list) and responses and isinstance(responses[0], str) else None


def likelihoods(row: Mapping[str, Any]) -> list[float]:
    """The log-likelihoods of the choices of an item, in their order. Empty if the record has none.

    A task of recall ranks all answers of a relation, with and without one more exemplar: its record does not say which are the choices.
    """
    if RANK_METRIC in row.get("metrics", ()):
        return []
    responses = row.get("filtered_resps")
    of_choices = [value for value in map(_likelihood, responses if isinstance(responses, list) else []) if value is not None]
    if "acc_mutual_info" in row.get("metrics", ()):  # the second half belongs to the choices without the question
        of_choices = of_choices[: len(of_choices) // 2]
    return of_choices


def _likelihood(response: Any) -> float | None:
    """The first entry of ``[log-likelihood, is greedy]``. ``--log_samples`` writes both as strings."""
    if not isinstance(response, list) or len(response) != 2 or str(response[1]) not in ("True", "False"):
        return None
    try:
        return float(response[0])
    except (TypeError, ValueError):
        return None


def _label(target: Any, prediction: Answer) -> Answer | None:
    """The right label, in the type of the prediction."""
    if isinstance(prediction, str):
        return target.strip() if isinstance(target, str) else None
    if isinstance(target, str) and target.isdecimal():
        return int(target)
    return target if isinstance(target, int) and not isinstance(target, bool) else None
