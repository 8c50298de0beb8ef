"""Makes items from facts for three conditions: closed-book, with a passage that states the fact, and with a passage that contradicts it.

All conditions have the same facts in the same order. Differences between conditions, and between a dense and a pruned model, are therefore
paired. The passage that contradicts the fact is made by corpus substitution (Longpre et al., arXiv 2109.05052): every literal occurrence of
the answer is replaced by another answer of the same relation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from itertools import chain
from typing import Any

import numpy as np

from harness_ext.errors import BadOptionError, HarnessExtError, UnknownNameError, did_you_mean, shown
from harness_ext.tasks.fact import Fact
from harness_ext.tasks.fact_options import Options, known_ids
from harness_ext.tasks.shots import choose
from harness_ext.tasks.substitution import contradicts, replace, spelling, states

CONDITIONS = ("closed", "open", "override")
_QUESTION = "Question: "


class FactError(HarnessExtError):
    """A fact or a file of facts from which no item can be made."""


def check_condition(condition: str) -> str:
    """Returns the condition, or raises UnknownNameError."""
    if condition not in CONDITIONS:
        raise UnknownNameError(
            f"no condition named {shown(condition)}.{did_you_mean(condition, CONDITIONS)} Conditions: {', '.join(CONDITIONS)}"
        )
    return condition


def rows(facts: Sequence[Fact], condition: str, options: Options) -> list[dict[str, Any]]:
    """The items of one condition.

    Returns:
        A row for each fact, with ``id``, ``relation``, ``subject``, ``condition``, ``prompt`` and the fact's extra columns. ``answers`` are
        the right answers: in an override item the substitute. ``memory`` has the replaced answers of an override item. ``choices`` are the
        ranked answers, with the indices ``target`` and ``memory_target`` (-1 if there is none). ``leaks`` tells whether the subject states
        an answer, as in Mexico City and Mexico. ``shots`` has the ids of exemplars, if there are any.

    Raises:
        FactError: there are no facts, two facts have the same id, an answer is empty, the evidence does not state the answer, there is no
            possible substitute, or there are too few facts for the exemplars.
        UnknownNameError: an unknown condition.
        BadOptionError: the file of known facts is wrong or of other facts, or the facts cannot be asked in the wanted form.
    """
    check_condition(condition)
    _check_unique(facts)
    chosen = _chosen(facts, options)
    source = _Source(facts)
    return [_row(source, index, condition, options) for index in chosen]


def count_rows(facts: Sequence[Fact], options: Options) -> int:
    """How many items :func:`rows` makes of these facts.

    Raises:
        BadOptionError: as :func:`rows`, for a number of items or a list of known facts that is not of these facts.
    """
    return len(_chosen(facts, options))


def check_shots_and_form(facts: Sequence[Fact], options: Options) -> None:
    """Checks, before a model is loaded, the form and whether each relation has more facts than exemplars.

    Raises:
        BadOptionError: the facts cannot be asked in the wanted form.
        FactError: too few facts for the exemplars.
    """
    counts = Counter(fact.relation for fact in facts)
    for fact in {fact.relation: fact for fact in facts}.values():
        _prompt(fact, options)
        if counts[fact.relation] <= options.shots:
            raise _too_few(fact, counts[fact.relation], counts[fact.relation] - 1, options)


def _too_few(fact: Fact, facts: int, possible: int, options: Options) -> FactError:
    return FactError(
        f"relation {shown(fact.relation)} has {facts} facts, of which {max(possible, 0)} can be exemplars for {shown(fact.id)} "
        f"(other subjects with other answers): want at least facts_shots={options.shots}"
    )


class _Source:
    """Facts with indices by relation and by subject."""

    def __init__(self, facts: Sequence[Fact]):
        self.facts = facts
        self.relations: dict[str, list[int]] = {}
        self.sentences: dict[str, list[int]] = {}
        self.subjects: dict[str, list[int]] = {}
        for index, fact in enumerate(facts):
            self.relations.setdefault(fact.relation, []).append(index)
            if fact.evidence and not fact.whole:
                self.sentences.setdefault(fact.relation, []).append(index)
                self.subjects.setdefault(fact.subject, []).append(index)
        self.objects = answers_by_relation(facts)


def _row(source: _Source, index: int, condition: str, options: Options) -> dict[str, Any]:
    fact = source.facts[index]
    rng = np.random.RandomState([options.seed, 0xFAC7, index])
    objects = source.objects[fact.relation]
    order = rng.permutation(len(objects))
    substitute = _substitute(fact, (objects[i] for i in order), needed=condition == "override")
    seeds = rng.randint(2**32, size=2, dtype=np.uint32)
    hidden = tuple(filter(str.strip, (*fact.answers, substitute, fact.subject)))
    shots = _shots(source, index, hidden, options)
    subjects = {source.facts[i].subject for i in (index, *shots)}
    texts = [_shot(source, index, shot, condition, hidden, subjects, options) for shot in shots]
    passage, answer = _told(source, index, substitute, condition, options, np.random.RandomState(seeds[:1]), subjects=subjects)
    choices = _choices(fact, substitute, (objects[i] for i in order), options, np.random.RandomState(seeds[1:]))
    override = condition == "override"
    return {
        "id": fact.id,
        "relation": fact.relation,
        "subject": fact.subject,
        "condition": condition,
        "prompt": _joined([*texts, join(passage, _prompt(fact, options))]),
        "answers": [answer] if override else list(fact.answers),
        "memory": list(fact.answers) if override else [],
        "choices": choices,
        "target": choices.index(answer) if choices else -1,
        "memory_target": choices.index(fact.answers[0]) if choices and override else -1,
        "leaks": states(fact.subject, fact.answers),
        **({"shots": [source.facts[i].id for i in shots]} if shots else {}),
        **(fact.extra or {}),
    }


def _told(
    source: _Source,
    index: int,
    substitute: str,
    condition: str,
    options: Options,
    rng: np.random.RandomState,
    *,
    subjects: Set[str],
    hidden: tuple[str, ...] = (),
) -> tuple[str, str]:
    """The passage of a condition, and the answer that it states. See :func:`_passage` for ``subjects`` and ``hidden``."""
    fact, evidence = source.facts[index], source.facts[index].evidence
    if condition == "closed":
        return "", fact.answers[0]
    if not states(evidence, fact.answers):
        raise FactError(f"{fact.id}: the evidence does not state {shown(fact.answers[0])}")
    if condition == "override":
        evidence = replace(evidence, fact.answers, substitute, subject=fact.subject)
        if states(evidence, fact.answers, besides=fact.subject):  # the substitute and the text beside it may form an answer
            raise FactError(
                f"{fact.id}: with {shown(substitute)} in its place the evidence still states one of {', '.join(map(repr, fact.answers))}"
            )
    passage = _passage(source, index, evidence, substitute, options, rng, subjects=subjects, hidden=hidden)
    return passage, substitute if condition == "override" else fact.answers[0]


def _shots(source: _Source, index: int, hidden: tuple[str, ...], options: Options) -> list[int]:
    """Indices of the facts that are exemplars of an item. They are the same in all conditions."""
    if not options.shots:
        return []
    fact, members = source.facts[index], source.relations[source.facts[index].relation]
    order = np.random.RandomState([options.seed, 0x5407, index]).permutation(len(members))
    shots = choose(
        source.facts, fact, (members[i] for i in order), options.shots, lambda shot: bool(_instead(source, index, shot, hidden, options))
    )
    if len(shots) < options.shots:
        raise _too_few(fact, len(members), len(shots), options)
    return shots


def _shot(source: _Source, index: int, shot: int, condition: str, hidden: tuple[str, ...], subjects: Set[str], options: Options) -> str:
    """An exemplar with its answer. Its passage has the condition of the item, and states nothing about the item."""
    fact, substitute = source.facts[shot], _instead(source, index, shot, hidden, options)
    if condition == "override" and not substitute:
        raise FactError(
            f"{fact.id}: relation {shown(fact.relation)} has no answer to replace {shown(fact.answers[0])} by as an exemplar for "
            f"{shown(source.facts[index].id)}: the override condition needs one"
        )
    rng = np.random.RandomState([options.seed, 0x5407, index, shot, 1])
    passage, answer = _told(source, shot, substitute, condition, options, rng, subjects=subjects, hidden=hidden)
    return f"{join(passage, _prompt(fact, options))} {answer}"


def _instead(source: _Source, index: int, shot: int, hidden: tuple[str, ...], options: Options) -> str:
    """The substitute for the answer of an exemplar. It is none of the ``hidden`` texts, or empty if there is no substitute."""
    fact, objects = source.facts[shot], source.objects[source.facts[shot].relation]
    order = np.random.RandomState([options.seed, 0x5407, index, shot]).permutation(len(objects))
    substitute = _substitute(fact, (objects[i] for i in order if contradicts(objects[i], hidden)), needed=False)
    told = replace(fact.evidence, fact.answers, substitute, subject=fact.subject)
    return "" if states(told, hidden) or states(told, fact.answers, besides=fact.subject) else substitute


def _joined(texts: Sequence[str]) -> str:
    """Joins exemplars and the prompt: with an empty line if a text has several lines, else with a line feed."""
    return ("\n\n" if any("\n" in text for text in texts) else "\n").join(texts)


def _prompt(fact: Fact, options: Options) -> str:
    """The closed-book prompt in the wanted form."""
    is_question = fact.question.startswith(_QUESTION)
    if options.form == "question" and not is_question:
        if not fact.question_form:
            raise BadOptionError(f"facts_form=question: the relation {shown(fact.relation)} has no question, only a sentence")
        return fact.question_form
    if options.form == "sentence" and is_question:
        raise BadOptionError(f"facts_form=sentence: the relation {shown(fact.relation)} has no sentence, only a question")
    return fact.question


def ask(question: str) -> str:
    """A question as a closed-book prompt."""
    return f"{_QUESTION}{question}\nAnswer:"


def join(passage: str, question: str) -> str:
    """A passage before a closed-book prompt."""
    if not passage:
        return question
    return f"Context: {passage}\n{question}" if question.startswith(_QUESTION) else f"{passage} {question}"


def _substitute(fact: Fact, others: Iterable[str], *, needed: bool) -> str:
    """The first other answer that the evidence does not state. Empty if there is none and none is needed."""
    accepted = (*fact.answers, fact.subject)
    suitable = (answer for answer in others if contradicts(answer, accepted) and not states(fact.evidence, (answer,)))
    substitute = next(suitable, "")
    if needed and not substitute:
        raise FactError(
            f"{fact.id}: relation {shown(fact.relation)} has no answer to replace {shown(fact.answers[0])} by: the override condition "
            "needs one"
        )
    return substitute


def _passage(
    source: _Source,
    index: int,
    evidence: str,
    substitute: str,
    options: Options,
    rng: np.random.RandomState,
    *,
    subjects: Set[str],
    hidden: tuple[str, ...],
) -> str:
    """The sentence that states the fact, among distractors that state no answer, no substitute and no text in ``hidden``.

    Distractors are not about ``subjects``. The exceptions are other facts about the subject of the fact.
    """
    fact = source.facts[index]
    if fact.whole:
        return evidence
    most = options.distractors // 2
    about = _shuffled(rng, [other for other in source.subjects[fact.subject] if source.facts[other].relation != fact.relation])[:most]
    related = source.sentences[fact.relation]
    sentences: list[str] = []
    named = tuple(filter(str.strip, sorted(subjects)))
    met = set(subjects)
    for place, other in enumerate(chain(about, (related[i] for i in rng.permutation(len(related))))):
        if len(sentences) == options.distractors:
            break
        stated, subject = source.facts[other].evidence, source.facts[other].subject
        new = place < len(about) or (subject not in met and not states(stated, named))
        unwanted = (*hidden, *filter(None, [substitute]))
        if new and not states(stated, fact.answers, besides=fact.subject) and not (unwanted and states(stated, unwanted)):
            sentences.append(stated)
            met.add(subject)
    sentences.insert(int(rng.randint(len(sentences) + 1)), evidence)
    return " ".join(sentences)


def _choices(fact: Fact, substitute: str, others: Iterable[str], options: Options, rng: np.random.RandomState) -> list[str]:
    """The answers to rank, in random order: the right one, the substitute and others. No answer contains another."""
    chosen = [fact.answers[0], *filter(None, [substitute])]
    for answer in others:
        if len(chosen) >= options.choices:
            break
        if contradicts(answer, fact.answers) and contradicts(answer, chosen):
            chosen.append(answer)
    return _shuffled(rng, chosen) if options.choices and len(chosen) > 1 else []


def answers_by_relation(facts: Sequence[Fact]) -> dict[str, list[str]]:
    """The answers of each relation in the order of the facts, each in one spelling."""
    seen: dict[str, dict[str, str]] = {}
    for fact in facts:
        for answer in fact.objects or fact.answers[:1]:
            seen.setdefault(fact.relation, {}).setdefault(spelling(answer), answer)
    return {relation: list(answers.values()) for relation, answers in seen.items()}


def _shuffled(rng: np.random.RandomState, items: Sequence[Any]) -> list[Any]:
    return [items[i] for i in rng.permutation(len(items))]


def _check_unique(facts: Sequence[Fact]) -> None:
    if not facts:
        raise FactError("no facts: want at least one")
    seen: set[str] = set()
    for fact in facts:
        if fact.id in seen:
            raise FactError(f"two facts have the id {shown(fact.id)}: ids are unique")
        if not fact.answers or not all(map(spelling, fact.answers)):
            raise FactError(f"{fact.id}: answers {shown(fact.answers)}: want at least one, and none of them empty")
        if fact.evidence and not fact.whole and not fact.subject.strip():
            raise FactError(f"{fact.id}: evidence without a subject: sentences about others could not be told from it")
        seen.add(fact.id)


def _chosen(facts: Sequence[Fact], options: Options) -> list[int]:
    """Indices of the facts to ask for, in order. The random draw depends on the seed only. Unknown facts are left out after it."""
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
