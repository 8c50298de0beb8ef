"""The difficulty of an item: how far the dense model puts the right answer ahead of the best wrong one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness_ext.report.answers import likelihoods

UNITS = {"acc": "nats", "acc_norm": "nats per character"}
"""The unit of a margin, by the score of the task. lm-eval's acc compares log-likelihoods, and acc_norm divides them by characters first."""


@dataclass(frozen=True)
class Margins:
    """The margins of the items of a task.

    Args:
        values: log-likelihood of the likeliest right choice less that of the likeliest wrong one, by item id; above 0 where the model is
            right. NaN for wrong answers of which the record does not say which choice is right. Empty if there are none.
        unit: of the values.
        why_not: why there are none, or None.
    """

    values: Mapping[str, float]
    unit: str = "nats"
    why_not: str | None = None


def margins_of(
    ids: Sequence[str], rows: Sequence[Mapping[str, Any]], metric: str, scores: Sequence[float], delimiter: str = " "
) -> Margins:
    """The margins of a task, from the records of the dense model.

    Margins are those that decide the score: natural logarithms, not normalised by length for ``acc``, and divided by the number of
    characters of each choice for ``acc_norm``.

    Args:
        ids: of the rows.
        rows: samples of one filter, as for ``answers``.
        metric: name of the score.
        scores: the score of each row.
        delimiter: what the task puts between prompt and choice.
    """
    if metric not in UNITS:
        return Margins({}, why_not=f"its score {metric} compares no choices")
    values = []
    for row, score in zip(rows, scores, strict=True):
        choices = _comparable(row, metric, delimiter)
        if isinstance(choices, str):
            return Margins({}, why_not=choices)
        margin = _margin(choices, _right(row), score)
        if margin is None:
            return Margins({}, why_not="its score is not that of the likeliest choice")
        values.append(margin)
    return Margins(dict(zip(ids, values, strict=True)), UNITS[metric])


def _comparable(row: Mapping[str, Any], metric: str, delimiter: str) -> list[float] | str:
    """What the score compares, for each choice; or why it is unknown."""
    of_choices = likelihoods(row)
    if len(of_choices) < 2 or not all(map(math.isfinite, of_choices)):
        return "its per-sample records have no log-likelihoods of choices"
    if metric == "acc":
        return of_choices
    texts = _texts(row)
    if len(texts) < len(of_choices):
        return "acc_norm divides by the lengths of the choices, which the per-sample records do not hold"
    lengths = [len(text.removeprefix(delimiter)) for text in texts[: len(of_choices)]]
    if 0 in lengths:
        return "a choice has no characters to divide by"
    return [value / length for value, length in zip(of_choices, lengths, strict=True)]


def _margin(choices: Sequence[float], right: set[int], score: float) -> float | None:
    """The margin; None if the score contradicts it."""
    if score not in (0, 1):
        return None
    likeliest = choices.index(max(choices))
    if not right <= set(range(len(choices))) or not right:
        if score == 0:
            return math.nan
        right = {likeliest}
    wrong = [value for index, value in enumerate(choices) if index not in right]
    if not wrong or (likeliest in right) != (score == 1):
        return None
    return max(choices[index] for index in right) - max(wrong)


def _right(row: Mapping[str, Any]) -> set[int]:
    """The indices of the right choices; empty where the record does not tell them."""
    target = row.get("target")
    targets = target if isinstance(target, list) else [target]
    texts = [text.strip() for text in _texts(row)]
    right = set()
    for one in targets:
        if isinstance(one, int) and not isinstance(one, bool):
            right.add(one)
        elif isinstance(one, str) and texts.count(one.strip()) == 1:
            right.add(texts.index(one.strip()))
        elif isinstance(one, str) and one.isdecimal():
            right.add(int(one))
        else:
            return set()
    return right


def _texts(row: Mapping[str, Any]) -> list[str]:
    """The texts of the choices with what stands before them, as ``--log_samples`` writes them; empty if the record has none."""
    arguments = row.get("arguments")
    parts = list(arguments.values()) if isinstance(arguments, Mapping) else arguments if isinstance(arguments, list) else []
    texts = [
        part.get("arg_1") if isinstance(part, Mapping) else part[1] if isinstance(part, list) and len(part) == 2 else None for part in parts
    ]
    return [text for text in texts if isinstance(text, str)]
