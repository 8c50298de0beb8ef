"""Scores of one item: the exact match of a short answer, and the likeliest of several choices.

The exact match follows SQuAD (Rajpurkar et al., arXiv 1606.05250, and its evaluation script).
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLAUSE_END = re.compile(r"[.,;:!?()]")


def normalise(text: str) -> str:
    """The text in lower case, without ASCII punctuation and the articles a, an, the, and with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def comparable(text: str) -> str:
    """The normalised text. If normalisation leaves nothing (the blood type A+), the text in lower case with single spaces."""
    return normalise(text) or " ".join(text.lower().split())


def distinct(answers: Iterable[str]) -> tuple[str, ...]:
    """The answers without surrounding white space. Of answers with the same spelling, the first is kept; empty answers are left out."""
    by_spelling: dict[str, str] = {}
    for answer in answers:
        if spelling := comparable(answer):
            by_spelling.setdefault(spelling, answer.strip())
    return tuple(by_spelling.values())


def matches(completion: str, answers: Iterable[str]) -> bool:
    """Whether a completion gives one of the answers.

    A base model continues after its answer, and an answer may contain a full stop (``St. Louis``). Every beginning of the first line that
    ends where a clause may end is therefore compared, and the whole first line.
    """
    wanted = {text for answer in answers if (text := comparable(answer))}
    return any(comparable(cut) in wanted for cut in _cuts(completion))


def _cuts(completion: str) -> Iterator[str]:
    line = completion.lstrip().split("\n", 1)[0]
    yield line
    for end in _CLAUSE_END.finditer(line):
        yield line[: end.start()]


def likeliest(ranked: Sequence[tuple[float, bool]]) -> int:
    """Index of the choice with the highest log-likelihood, or the first of equally likely choices."""
    return max(range(len(ranked)), key=lambda index: ranked[index][0])


def above_chance(score: float, choices: int) -> float:
    """(score - 1/K) / (1 - 1/K). A random guess among K choices has 0 on average, and a right answer has 1."""
    return (score - 1 / choices) / (1 - 1 / choices)


def score_choices(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Scores one item from the results of its choices: the log-likelihood, and whether the choice is the greedy completion.

    Returns:
        ``acc``, ``acc_norm_chance`` = (acc - 1/K) / (1 - 1/K), and ``exact_match`` of the greedy completion.
    """
    right = float(likeliest(results) == doc["target"])
    return {"acc": right, "acc_norm_chance": above_chance(right, len(results)), "exact_match": float(results[doc["target"]][1])}
