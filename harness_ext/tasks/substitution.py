"""Corpus substitution after Longpre et al. (arXiv 2109.05052): an answer in a text, literally and as whole words, gives way to another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from harness_ext.tasks.scoring import comparable


def contradicts(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an answer is another one than those accepted: neither holds the other as words."""
    words = f" {spelling(answer)} "
    return bool(words.strip()) and not any(words in (other := f" {spelling(right)} ") or other in words for right in accepted)


spelling = lru_cache(maxsize=2**16)(comparable)


def replace(passage: str, answers: Sequence[str], substitute: str, *, subject: str = "") -> str:
    """The passage with every literal occurrence of an answer replaced; of overlapping answers the longest counts.

    An answer inside the subject stays (Mexico City is in Peru), or the question would ask for somebody else. A subject that is an answer
    itself stays but for the last time (the capital of Singapore is Lima).
    """
    found = list(_pattern((*answers, *filter(str.strip, [subject]))).finditer(passage))
    kept = [match for match in found if _same(match[0], subject)]
    if any(_same(answer, subject) for answer in answers):
        kept = kept[:-1]
    for match in reversed(found):
        if match not in kept:
            passage = passage[: match.start()] + substitute + passage[match.end() :]
    return passage


def states(passage: str, answers: Sequence[str], *, besides: str = "") -> bool:
    """Whether an answer occurs literally, as whole words in any case and with any white space between them; not inside ``besides``."""
    rest = _pattern((besides,)).sub("\0", passage) if besides.strip() else passage
    return _pattern(tuple(answers)).search(rest) is not None


def _same(text: str, other: str) -> bool:
    return text.casefold().split() == other.casefold().split()


@lru_cache(maxsize=2**14)
def _pattern(answers: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(answers, key=lambda answer: (-len(answer), answer))
    literally = (r"\s+".join(map(re.escape, answer.split())) for answer in longest_first)
    return re.compile(rf"(?<!\w)(?:{'|'.join(literally)})(?!\w)", re.IGNORECASE)
