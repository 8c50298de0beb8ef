"""Parses rows of published question sets into facts, with one parser for each set. Errors name the row and the column."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness_ext.errors import did_you_mean, shown
from harness_ext.tasks.fact import Fact
from harness_ext.tasks.facts import FactError, ask
from harness_ext.tasks.scoring import comparable, distinct, normalise
from harness_ext.tasks.substitution import states

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_QUESTION_WORDS = ("who", "whom", "whose", "when", "where", "which", "what", "why", "how")
FEWEST_ANSWERS = 16  # different answers of a kind of question; facts_choices has the same default

# Sentences that state a fact, for each relation of PopQA.
STATEMENTS = {
    "author": "The author of {} is {}.",
    "capital": "The capital of {} is {}.",
    "capital of": "{} is the capital of {}.",
    "color": "The color of {} is {}.",
    "composer": "The composer of {} is {}.",
    "country": "The country of {} is {}.",
    "director": "The director of {} is {}.",
    "father": "The father of {} is {}.",
    "genre": "The genre of {} is {}.",
    "mother": "The mother of {} is {}.",
    "occupation": "The occupation of {} is {}.",
    "place of birth": "The place of birth of {} is {}.",
    "producer": "The producer of {} is {}.",
    "religion": "The religion of {} is {}.",
    "screenwriter": "The screenwriter of {} is {}.",
    "sport": "The sport of {} is {}.",
}


class RowError(FactError):
    """A row that breaks the schema of its set."""


@dataclass(frozen=True, kw_only=True)
class HubSet:
    """A data set of the hub.

    Attributes:
        path, config, split: Arguments of ``datasets.load_dataset``.
        columns: Columns that the parser reads.
        parse: Parser of a row. Arguments: number of the row from 0, the row, and the largest number of words in a passage. The result is
            None if no page of the row states an answer. Such rows are left out of all three conditions.
        evidence: Whether the rows or our templates state the answer. Otherwise facts can only be asked closed-book.
        form: Form of the prompts: ``question``, or ``sentence`` (to be continued).
        pooled: Whether relations are kinds of questions, of which rare kinds are joined (see :func:`pool`).
    """

    path: str
    config: str | None = None
    split: str
    columns: tuple[str, ...]
    parse: Callable[[int, Mapping[str, Any], int], Fact | None]
    evidence: bool = True
    form: str = "question"
    pooled: bool = False


def parse_triviaqa(number: int, row: Mapping[str, Any], words: int) -> Fact | None:
    """TriviaQA (Joshi et al., arXiv 1705.03551), ``rc.wikipedia``. The passage is cut from the Wikipedia pages of the question."""
    place = f"triviaqa row {number}"
    answer = row.get("answer")
    if not isinstance(answer, Mapping):
        raise RowError(f"{place}: 'answer' is {_shown(answer)}: want an object with 'value' and 'aliases'")
    names = [_text(place, answer, "value"), *_texts(place, answer, "aliases")]
    answers = distinct([name for name in names if normalise(name)])  # an answer "A" would occur in every sentence
    pages = row.get("entity_pages")
    if not isinstance(pages, Mapping):
        raise RowError(f"{place}: 'entity_pages' is {_shown(pages)}: want an object with 'wiki_context'")
    passage = next(filter(None, (passage_of(page, answers, words) for page in _texts(place, pages, "wiki_context"))), "")
    if not passage:
        return None
    stated = max((name for name in answers if states(passage, (name,))), key=len)
    question = _text(place, row, "question")
    return Fact(
        id=_text(place, row, "question_id"),
        relation=f"{answer.get('type') or 'answer'}/{question_word(question)}",
        subject="",
        question=ask(_asked(question)),
        answers=(stated, *(name for name in answers if name != stated)),
        evidence=passage,
        whole=True,
    )


def parse_popqa(number: int, row: Mapping[str, Any], words: int) -> Fact:
    """PopQA (Mallen et al., arXiv 2212.10511). A template of ours states the fact. The popularity of the subject is kept."""
    place = f"popqa row {number}"
    subject, relation, value = (_text(place, row, name) for name in ("subj", "prop", "obj"))
    given = _text(place, row, "possible_answers")
    try:
        aliases = json.loads(given)
    except json.JSONDecodeError as error:
        raise RowError(f"{place}: 'possible_answers' is not JSON: {error}") from error
    views = row.get("s_pop")
    if isinstance(views, bool) or not isinstance(views, int):
        raise RowError(f"{place}: 's_pop' is {_shown(views)}: want the monthly page views of the subject")
    if relation not in STATEMENTS:
        raise RowError(
            f"{place}: no sentence for 'prop' {shown(relation)}.{did_you_mean(relation, STATEMENTS)} Props: {', '.join(STATEMENTS)}"
        )
    return Fact(
        id=_id(place, row, "id"),
        relation=relation,
        subject=subject,
        question=ask(_asked(_text(place, row, "question"))),
        answers=distinct([value, *_texts(place, {"possible_answers": aliases}, "possible_answers")]),
        evidence=STATEMENTS[relation].format(subject, value),
        extra={"s_pop": views},
    )


def parse_counterfact(number: int, row: Mapping[str, Any], words: int) -> Fact:
    """CounterFact (Meng et al., arXiv 2202.05262). Each fact is a cloze; the cloze with the true answer states the fact."""
    place = f"counterfact row {number}"
    asked = row.get("requested_rewrite")
    if not isinstance(asked, Mapping):
        raise RowError(f"{place}: 'requested_rewrite' is {_shown(asked)}: want an object with 'prompt', 'subject' and 'target_true'")
    prompt, subject, relation = (_text(place, asked, name) for name in ("prompt", "subject", "relation_id"))
    if prompt.count("{}") != 1:
        raise RowError(f"{place}: 'prompt' is {shown(prompt)}: want exactly one {{}} for the subject")
    true = asked.get("target_true")
    answer = _text(place, true if isinstance(true, Mapping) else {}, "str")
    question = prompt.replace("{}", subject)
    return Fact(
        id=_id(place, row, "case_id"),
        relation=relation,
        subject=subject,
        question=question,
        answers=(answer,),
        evidence=f"{question} {answer}.",
    )


def parse_nq_open(number: int, row: Mapping[str, Any], words: int) -> Fact:
    """NQ-open (Lee et al., arXiv 1906.00300): questions and answers."""
    return _question(f"nq_open row {number}", f"nq_open/{number}", _text(f"nq_open row {number}", row, "question"), row, "answer")


def parse_webqs(number: int, row: Mapping[str, Any], words: int) -> Fact:
    """WebQuestions (Berant et al., EMNLP 2013): questions and answers, with the columns of the hub or of the benchmark's own file."""
    place = f"webqs row {number}"
    question = _text(place, row, "qText" if "qText" in row else "question")
    return _question(place, str(row.get("qId", f"webqs/{number}")), question, row, "answers")


SETS = {
    "triviaqa": HubSet(
        path="mandarjoshi/trivia_qa", config="rc.wikipedia", split="validation",
        columns=("question", "question_id", "entity_pages", "answer"), parse=parse_triviaqa, pooled=True,
    ),
    "popqa": HubSet(
        path="akariasai/PopQA", split="test",
        columns=("id", "subj", "prop", "obj", "s_pop", "question", "possible_answers"), parse=parse_popqa,
    ),
    "counterfact": HubSet(
        path="azhx/counterfact", split="test",
        columns=("case_id", "requested_rewrite"), parse=parse_counterfact, form="sentence",
    ),
    "nq_open": HubSet(
        path="google-research-datasets/nq_open", split="validation",
        columns=("question", "answer"), parse=parse_nq_open, evidence=False, pooled=True,
    ),
    "webqs": HubSet(
        path="stanfordnlp/web_questions", split="test",
        columns=("question", "answers"), parse=parse_webqs, evidence=False, pooled=True,
    ),
}  # fmt: skip


def question_word(question: str) -> str:
    """The kind of a question: its first question word. ``how many`` and similar kinds have two words."""
    words: list[str] = re.findall(r"[a-z]+", question.lower())
    for place, word in enumerate(words):
        if word == "how" and words[place + 1 : place + 2] in (["many"], ["much"], ["long"], ["old"]):
            return f"how {words[place + 1]}"
        if word in _QUESTION_WORDS:
            return word
    return "other"


def pool(facts: Sequence[Fact], fewest: int = FEWEST_ANSWERS) -> list[Fact]:
    """Joins kinds of questions with few different answers, so that each fact has answers to rank and a substitute.

    Args:
        facts: Facts with relations such as ``how many``, or ``Numerical/how many`` with the type of the answer.
        fewest: A kind with fewer different answers joins the next wider kind: ``how many``, then ``how``, then ``other`` of the same type,
            then ``other`` of all types, then the kind with the most answers.

    Returns:
        The facts in the same order, with their new kinds as relations.
    """
    now = {fact.relation: fact.relation for fact in facts}
    for step in ("how", "A/other", "other", "largest"):
        answers: dict[str, set[str]] = defaultdict(set)
        for fact in facts:
            answers[now[fact.relation]].add(comparable(fact.answers[0]))
        largest = max(answers, key=lambda kind: len(answers[kind]), default="")
        for name, kind in now.items():
            if len(answers[kind]) < fewest:
                type_, slash, word = kind.rpartition("/")
                wider = {"how": type_ + slash + word.split()[0], "A/other": f"{type_}{slash}other", "other": "other", "largest": largest}
                now[name] = wider[step]
    return [replace(fact, relation=now[fact.relation]) for fact in facts]


def passage_of(page: str, answers: tuple[str, ...], words: int) -> str:
    """Cuts a passage of whole sentences around the first sentence that states an answer. A sentence that is too long is cut as well.

    Args:
        words: Largest number of words.

    Returns:
        The passage. Empty if the page states no answer, or only answers that consist of articles and punctuation.
    """
    wanted = tuple(answer for answer in answers if normalise(answer))
    if not wanted or not states(page, wanted):
        return ""
    sentences = [" ".join(sentence.split()) for sentence in _SENTENCE_END.split(page) if sentence.strip()]
    at = next((place for place, sentence in enumerate(sentences) if states(sentence, wanted)), None)
    if at is None:  # the answer contains a full stop
        sentences, at = [" ".join(page.split())], 0
    first = last = at
    room = words - len(sentences[at].split())
    if room < 0:
        return _around(sentences[at].split(), wanted, words)
    for step in range(1, len(sentences)):
        for place in (at + step, at - step):
            if 0 <= place < len(sentences) and place in (first - 1, last + 1) and (size := len(sentences[place].split())) <= room:
                room -= size
                first, last = min(first, place), max(last, place)
    return " ".join(sentences[first : last + 1])


def _around(words: list[str], answers: tuple[str, ...], most: int) -> str:
    """The words around the first answer. The search finds the shortest beginning that states it, which ends in the answer."""
    low, high = 1, len(words)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if states(" ".join(words[:middle]), answers) else (middle + 1, high)
    start = max(0, min(low - most // 2, len(words) - most))
    cut = " ".join(words[start : start + most])
    return cut if states(cut, answers) else ""


def _question(place: str, name: str, question: str, row: Mapping[str, Any], column: str) -> Fact:
    answers = distinct(_texts(place, row, column))
    if not answers:
        raise RowError(f"{place}: {column!r} has no answer: want at least one")
    return Fact(id=name, relation=question_word(question), subject=question, question=ask(_asked(question)), answers=answers)


def _asked(question: str) -> str:
    return question.strip() if question.rstrip().endswith("?") else f"{question.strip()}?"


def _id(place: str, row: Mapping[str, Any], name: str) -> str:
    value: object = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
        raise RowError(f"{place}: {shown(name)} is {_shown(value)}: want a number or a text that no other row has")
    return str(value)


def _text(place: str, row: Mapping[str, Any], name: str) -> str:
    value: object = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{place}: {shown(name)} is {_shown(value)}: want a text")
    return value


def _texts(place: str, row: Mapping[str, Any], name: str) -> list[str]:
    value = row.get(name)
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
        raise RowError(f"{place}: {shown(name)} is {_shown(value)}: want a list of texts")
    return list(value)


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:80]
