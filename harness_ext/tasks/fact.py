"""A fact, from which items are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One fact, and how to ask for it.

    Attributes:
        id: Unique in its source, and the same in all conditions.
        relation: Name of the relation. Its facts have answers of one type, and share distractors, choices and substitutes.
        subject: What the fact is about.
        question: The closed-book prompt up to the answer. The answer follows after a space.
        question_form: The prompt as a question, if ``question`` is the beginning of a sentence.
        answers: All accepted answers. The first is the one that ``evidence`` states.
        evidence: A text that states the answer: a sentence, or a passage if ``whole``.
        whole: Whether the evidence is a complete passage, which needs no distractors.
        objects: Answers of the relation, if they are not those of the other facts.
        extra: More columns of the row, such as the popularity of the subject.
    """

    id: str
    relation: str
    subject: str
    question: str
    question_form: str = ""
    answers: tuple[str, ...]
    evidence: str = ""
    whole: bool = False
    objects: tuple[str, ...] = ()
    extra: Mapping[str, Any] | None = None
