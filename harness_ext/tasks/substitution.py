"""Corpus substitution (Longpre et al., arXiv 2109.05052): replaces literal occurrences of an answer, as whole words, by another answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from harness_ext.tasks.scoring import comparable


def contradicts(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an answer differs from all accepted ones: neither contains the other as words."""
    return bool(contradicting([answer], accepted))


def contradicting(answers: Sequence[str], accepted: Sequence[str]) -> list[str]:
    """Those of the answers that differ from all accepted ones, as ``contradicts`` says."""
    rights = [_words(right) for right in accepted]
    return [
        answer for answer in answers
        if not (words := _words(answer)).isspace() and not any(words in right or right in words for right in rights)
    ]  # fmt: skip


@lru_cache(maxsize=2**16)
def _words(answer: str) -> str:
    """The spelling of an answer between spaces, so that it contains another one only as words."""
    return f" {spelling(answer)} "


spelling = lru_cache(maxsize=2**16)(comparable)


def replace(passage: str, answers: Sequence[str], substitute: str, *, subject: str = "") -> str:
    """Replaces every literal occurrence of an answer in the passage. Of overlapping answers, the longest is replaced.

    An answer inside the subject is kept (Mexico City is in Peru); otherwise the question would be about another subject. If the subject is
    itself an answer, only its last occurrence is replaced (the capital of Singapore is Lima).
    """
    matches = list(_pattern((*answers, *filter(str.strip, [subject]))).finditer(passage))
    kept = [match for match in matches if _same(match[0], subject)]
    if any(_same(answer, subject) for answer in answers):
        kept = kept[:-1]
    for match in reversed(matches):
        if match not in kept:
            passage = passage[: match.start()] + substitute + passage[match.end() :]
    return passage


def states(passage: str, answers: Sequence[str], *, besides: str = "") -> bool:
    """Whether an answer occurs as whole words outside of ``besides``. Upper and lower case, and kinds of white space, do not matter."""
    rest = _pattern((besides,)).sub("\0", passage) if besides.strip() else passage
    return _pattern(tuple(answers)).search(rest) is not None


def _same(text: str, other: str) -> bool:
    return text.casefold().split() == other.casefold().split()


@lru_cache(maxsize=2**14)
def _pattern(answers: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(answers, key=lambda answer: (-len(answer), answer))
    literally = (r"\s+".join(map(re.escape, answer.split())) for answer in longest_first)
    return re.compile(rf"(?<!\w)(?:{'|'.join(literally)})(?!\w)", re.IGNORECASE)
