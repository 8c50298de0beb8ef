"""Facts as items of three tasks: asked closed-book, after a passage that states them, after a passage that states something else.

The items of the three conditions are the same facts in the same order, so that differences between conditions, and between a dense and
a pruned model, are paired. The passage of the third condition is made by corpus substitution after Longpre et al. (arXiv 2109.05052):
every literal occurrence of the answer gives way to another answer of the same relation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from harness_ext.errors import BadOptionError, HarnessExtError, UnknownNameError, did_you_mean, shown
from harness_ext.tasks.options import LARGEST_SEED, TaskOptions, check_whole, checked, whole
from harness_ext.tasks.scoring import comparable

CONDITIONS = ("closed", "open", "override")


class FactError(HarnessExtError):
    """A fact, or a file of facts, that no item can be made of."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One fact and how to ask for it.

    Attributes:
        id: Unique in its source; the same in all conditions.
        relation: Facts of one relation have answers of one type: distractors, choices and substitutes come from the same relation.
        subject: What the fact is about.
        question: The closed-book prompt up to the answer, which follows after a space.
        answers: All accepted answers; the first is the one that ``evidence`` states.
        evidence: A text that states the answer: a sentence, or a passage if ``whole``.
        whole: The evidence is a passage of its own and needs no distractors around it.
        objects: The accepted answers of the relation where they are not those of the other facts.
        extra: More columns of the row, e.g. the popularity of the subject.
    """

    id: str
    relation: str
    subject: str
    question: str
    answers: tuple[str, ...]
    evidence: str = ""
    whole: bool = False
    objects: tuple[str, ...] = ()
    extra: Mapping[str, Any] | None = None


def _check_known(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise BadOptionError(f"{name}={shown(value)}: want the path of a file that harness-ext known-facts wrote")


def _check_choices(name: str, value: Any) -> None:
    check_whole(name, value, 0, 10**5)
    if value == 1:
        raise BadOptionError(f"{name}=1: want 0 (no ranking) or at least 2")


class Options(TaskOptions):
    """The options of the fact tasks, with the prefix ``facts_``.

    Attributes:
        items: How many facts, drawn with the seed; 0 is all.
        choices: How many answers of the relation are ranked at most, the right one and the substitute included; 0 is no ranking.
        distractors: Sentences around the one that states the fact: others about the subject, up to half, and others of the relation.
        seed: Other facts, passages, substitutes and choices.
        known: A file written by ``harness-ext known-facts``; of the facts drawn, the others are left out.
    """

    prefix: ClassVar[str] = "facts_"
    items: int = whole(0, 0, 10**7)
    choices: int = checked(16, _check_choices)
    distractors: int = whole(5, 0, 1000)
    seed: int = whole(0, 0, LARGEST_SEED)
    known: str | None = checked(None, _check_known)


OPTION_NAMES = Options.names()
check_options = Options.check_metadata


def options_of(metadata: Mapping[str, Any]) -> Options:
    """The options among a task's metadata; names without the prefix are somebody else's. A list of known facts is read.

    Raises:
        BadOptionError: an unknown or impossible option.
    """
    options = Options.from_metadata(metadata)
    if options.known is not None:
        known_ids(options.known)
    return options


def check_condition(condition: str) -> str:
    """The condition, if it is one."""
    if condition not in CONDITIONS:
        raise UnknownNameError(
            f"no condition named {shown(condition)}.{did_you_mean(condition, CONDITIONS)} Conditions: {', '.join(CONDITIONS)}"
        )
    return condition


def rows(facts: Sequence[Fact], condition: str, options: Options) -> list[dict[str, Any]]:
    """The items of one condition.

    Returns:
        For each fact: ``id``, ``relation``, ``subject``, ``condition``, ``prompt``, ``answers`` (what the prompt asks for: of an override
        item the substitute), ``memory`` (of an override item what was replaced, else empty), ``choices`` and in them the indices
        ``target`` and ``memory_target`` (-1 where there are none), ``leaks`` (the subject states an answer: Mexico City is in Mexico), and
        the fact's extra columns.

    Raises:
        FactError: no facts, two with one id, an empty answer, evidence that does not state the
            answer, or no possible substitute.
        UnknownNameError: an unknown condition.
        BadOptionError: a list of known facts that is not one, or not of these facts.
    """
    check_condition(condition)
    _check_unique(facts)
    chosen = _chosen(facts, options)
    source = _Source(facts)
    return [_row(source, index, condition, options) for index in chosen]


class _Source:
    """Facts, looked up by relation and by subject."""

    def __init__(self, facts: Sequence[Fact]):
        self.facts = facts
        relations: dict[str, list[int]] = {}
        self.sentences: dict[str, list[int]] = {}
        self.subjects: dict[str, list[int]] = {}
        for index, fact in enumerate(facts):
            relations.setdefault(fact.relation, []).append(index)
            if fact.evidence and not fact.whole:
                self.sentences.setdefault(fact.relation, []).append(index)
                self.subjects.setdefault(fact.subject, []).append(index)
        self.objects = {name: _objects([facts[i] for i in members]) for name, members in relations.items()}


def _row(source: _Source, index: int, condition: str, options: Options) -> dict[str, Any]:
    fact = source.facts[index]
    rng = np.random.RandomState([options.seed, 0xFAC7, index])
    objects = source.objects[fact.relation]
    order = rng.permutation(len(objects))
    substitute = _substitute(fact, (objects[i] for i in order), needed=condition == "override")
    seeds = rng.randint(2**32, size=2, dtype=np.uint32)
    answers, memory, evidence = list(fact.answers), [], fact.evidence
    if condition != "closed" and not states(evidence, fact.answers):
        raise FactError(f"{fact.id}: the evidence does not state {shown(fact.answers[0])}")
    if condition == "override":
        evidence = replace(evidence, fact.answers, substitute, subject=fact.subject)
        if states(evidence, fact.answers, besides=fact.subject):  # words of the substitute and of the text beside it
            raise FactError(
                f"{fact.id}: with {shown(substitute)} in its place the evidence still states one of {', '.join(map(repr, answers))}"
            )
        answers, memory = [substitute], answers
    passage = _passage(source, index, evidence, substitute, options, np.random.RandomState(seeds[:1])) if condition != "closed" else ""
    choices = _choices(fact, substitute, (objects[i] for i in order), options, np.random.RandomState(seeds[1:]))
    return {
        "id": fact.id,
        "relation": fact.relation,
        "subject": fact.subject,
        "condition": condition,
        "prompt": join(passage, fact.question),
        "answers": answers,
        "memory": memory,
        "choices": choices,
        "target": choices.index(answers[0]) if choices else -1,
        "memory_target": choices.index(memory[0]) if choices and memory else -1,
        "leaks": states(fact.subject, fact.answers),
        **(fact.extra or {}),
    }


def ask(question: str) -> str:
    """A question as a closed-book prompt."""
    return f"Question: {question}\nAnswer:"


def join(passage: str, question: str) -> str:
    """A passage before a closed-book prompt."""
    if not passage:
        return question
    return f"Context: {passage}\n{question}" if question.startswith("Question: ") else f"{passage} {question}"


def contradicts(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an answer is another one than those accepted: neither holds the other as words."""
    words = f" {_comparable(answer)} "
    return bool(words.strip()) and not any(words in (other := f" {_comparable(right)} ") or other in words for right in accepted)


_comparable = lru_cache(maxsize=2**16)(comparable)


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


def _substitute(fact: Fact, others: Iterable[str], *, needed: bool) -> str:
    """The first answer that is another one and not in the evidence, or an empty string where there is none and none is needed."""
    accepted = (*fact.answers, fact.subject)
    suitable = (answer for answer in others if contradicts(answer, accepted) and not states(fact.evidence, (answer,)))
    substitute = next(suitable, "")
    if needed and not substitute:
        raise FactError(
            f"{fact.id}: relation {shown(fact.relation)} has no answer to replace {shown(fact.answers[0])} by: the override condition "
            "needs one"
        )
    return substitute


def _passage(source: _Source, index: int, evidence: str, substitute: str, options: Options, rng: np.random.RandomState) -> str:
    """The sentence that states the fact among sentences that hold neither its answers nor the substitute."""
    fact = source.facts[index]
    if fact.whole:
        return evidence
    most = options.distractors // 2
    about = _shuffled(rng, [other for other in source.subjects[fact.subject] if source.facts[other].relation != fact.relation])[:most]
    related = source.sentences[fact.relation]
    sentences: list[str] = []
    subjects = {fact.subject}
    for place, other in enumerate(chain(about, (related[i] for i in rng.permutation(len(related))))):
        if len(sentences) == options.distractors:
            break
        stated, subject = source.facts[other].evidence, source.facts[other].subject
        new = place < len(about) or (subject not in subjects and not states(stated, (fact.subject,)))
        if new and not states(stated, fact.answers, besides=fact.subject) and not (substitute and states(stated, (substitute,))):
            sentences.append(stated)
            subjects.add(subject)
    sentences.insert(int(rng.randint(len(sentences) + 1)), evidence)
    return " ".join(sentences)


def _choices(fact: Fact, substitute: str, others: Iterable[str], options: Options, rng: np.random.RandomState) -> list[str]:
    """The answers to rank, in random order: the right one, the substitute and others; none holds another."""
    chosen = [fact.answers[0], *filter(None, [substitute])]
    for answer in others:
        if len(chosen) >= options.choices:
            break
        if contradicts(answer, fact.answers) and contradicts(answer, chosen):
            chosen.append(answer)
    return _shuffled(rng, chosen) if options.choices and len(chosen) > 1 else []


def _objects(facts: Sequence[Fact]) -> list[str]:
    """The answers of a relation, one spelling each, in the order of the facts."""
    seen: dict[str, str] = {}
    for answer in (answer for fact in facts for answer in (fact.objects or fact.answers[:1])):
        seen.setdefault(_comparable(answer), answer)
    return list(seen.values())


def _shuffled(rng: np.random.RandomState, items: Sequence[Any]) -> list[Any]:
    return [items[i] for i in rng.permutation(len(items))]


def _check_unique(facts: Sequence[Fact]) -> None:
    if not facts:
        raise FactError("no facts: want at least one")
    seen: set[str] = set()
    for fact in facts:
        if fact.id in seen:
            raise FactError(f"two facts have the id {shown(fact.id)}: ids are unique")
        if not fact.answers or not all(map(_comparable, fact.answers)):
            raise FactError(f"{fact.id}: answers {shown(fact.answers)}: want at least one, and none of them empty")
        if fact.evidence and not fact.whole and not fact.subject.strip():
            raise FactError(f"{fact.id}: evidence without a subject: sentences about others could not be told from it")
        seen.add(fact.id)


def _chosen(facts: Sequence[Fact], options: Options) -> list[int]:
    """The indices of the facts to ask for, in order: of a random draw that depends on the seed alone those that are known."""
    if options.items > len(facts):
        raise BadOptionError(f"facts_items={options.items}: there are {len(facts)} facts to draw from")
    order = np.random.RandomState([options.seed, 0xD4A3]).permutation(len(facts))
    drawn = sorted(order[: options.items or len(facts)].tolist())
    if options.known is None:
        return drawn
    known = known_ids(options.known)
    missing = known - {fact.id for fact in facts}
    if missing:
        raise BadOptionError(
            f"facts_known={options.known}: {len(missing)} of its {len(known)} facts are not among these {len(facts)}, "
            f"for example {shown(min(missing))}: want the list of the same facts"
        )
    kept = [index for index in drawn if facts[index].id in known]
    if not kept:
        raise BadOptionError(
            f"facts_known={options.known}: none of its {len(known)} facts is among the {len(drawn)} drawn (facts_items, facts_seed)"
        )
    return kept


def known_ids(path: str) -> set[str]:
    """The ids in a list of known facts.

    Raises:
        BadOptionError: a file that cannot be read, or that ``harness-ext known-facts`` did not write.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadOptionError(f"facts_known={path}: cannot be read: {error}") from error
    ids = content.get("known") if isinstance(content, dict) else None
    if not isinstance(ids, list) or not ids or not all(isinstance(name, str) for name in ids):
        raise BadOptionError(f"facts_known={path}: want a JSON object with a non-empty list 'known', as harness-ext known-facts writes it")
    return set(ids)
