"""The scores of one item: the exact match of a short answer, and which of several choices is the likeliest.

The exact match is that of SQuAD (Rajpurkar et al., arXiv 1606.05250, and its evaluation script).
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
    """Lower case, without ASCII punctuation and the articles a, an, the; any white space becomes one space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def comparable(text: str) -> str:
    """The text as :func:`normalise` leaves it, or where nothing is left (the blood type A+) in lower case with single spaces."""
    return normalise(text) or " ".join(text.lower().split())


def matches(completion: str, answers: Iterable[str]) -> bool:
    """Whether a completion gives one of the answers.

    A base model goes on writing after its answer, and an answer may hold a full stop itself (``St. Louis``), so not one cut of the
    completion is compared but each that ends where a clause may end, and the whole first line.
    """
    wanted = {text for answer in answers if (text := comparable(answer))}
    return any(comparable(cut) in wanted for cut in _cuts(completion))


def _cuts(completion: str) -> Iterator[str]:
    line = completion.lstrip().split("\n", 1)[0]
    yield line
    for end in _CLAUSE_END.finditer(line):
        yield line[: end.start()]


def likeliest(ranked: Sequence[tuple[float, bool]]) -> int:
    """The index of the choice with the highest log-likelihood; of equally likely ones the first."""
    return max(range(len(ranked)), key=lambda index: ranked[index][0])


def above_chance(score: float, choices: int) -> float:
    """(score - 1/K) / (1 - 1/K): 0 is a random guess among K choices, 1 is all right."""
    return (score - 1 / choices) / (1 - 1 / choices)


def score_choices(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Scores one item from the log-likelihood of every choice and whether it is the greedy completion.

    Returns:
        ``acc``, ``acc_norm_chance`` = (acc - 1/K) / (1 - 1/K), and ``exact_match`` of the greedy completion.
    """
    right = float(likeliest(results) == doc["target"])
    return {"acc": right, "acc_norm_chance": above_chance(right, len(results)), "exact_match": float(results[doc["target"]][1])}
