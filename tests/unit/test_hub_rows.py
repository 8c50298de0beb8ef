"""Rows of the published sets as facts: every row parses or is named, and passages state what they should and fit."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from occurrences import occurrences
from published_rows import PAGE, ROWS, SHARED
from refusals import raises_line

from harness_ext.tasks.fact import Fact
from harness_ext.tasks.fact_options import Options
from harness_ext.tasks.facts import rows as items_of
from harness_ext.tasks.hub_rows import FEWEST_ANSWERS, SETS, STATEMENTS, RowError, passage_of, pool, question_word
from harness_ext.tasks.scoring import comparable, matches


def parse(name, row, number=5, words=120):
    return SETS[name].parse(number, row, words)


def test_every_set_has_a_row_here_with_the_columns_that_are_read():
    assert set(ROWS) == set(SETS)
    for name, source in SETS.items():
        assert set(source.columns) <= set(ROWS[name])


def test_the_facts_of_the_rows():
    trivia, pop, counter, natural, web = (parse(name, row) for name, row in ROWS.items())
    assert trivia.question == "Question: Which is the capital of Jamaica?\nAnswer:"
    assert trivia.answers == ("Kingston", "Kingston, Jamaica")  # the article "A" would replace itself all over the passage
    assert (trivia.id, trivia.relation, trivia.whole, trivia.evidence) == ("qz_1", "WikipediaEntity/which", True, " ".join(PAGE.split()))
    assert (pop.id, pop.relation, pop.subject, pop.extra) == ("4222362", "occupation", "George Rankin", {"s_pop": 142})
    assert pop.answers == ("politician", "political leader", "pol")
    assert pop.evidence == "The occupation of George Rankin is politician."
    assert parse("popqa", ROWS["popqa"] | {"prop": "capital of"}).evidence == "George Rankin is the capital of politician."
    assert counter.question == "The mother tongue of Danielle Darrieux is"
    assert (counter.evidence, counter.answers) == ("The mother tongue of Danielle Darrieux is French.", ("French",))
    assert (counter.id, counter.relation) == ("7", "P103")
    assert natural.question == "Question: when was the last time anyone was on the moon?\nAnswer:"
    assert (natural.id, natural.relation, natural.answers) == ("nq_open/5", "when", ("14 December 1972 UTC", "December 1972"))
    assert (web.id, web.relation, web.question) == ("webqs/5", "what", "Question: what does jamaican people speak?\nAnswer:")


def test_the_answer_that_the_passage_states_comes_first():
    row = copy.deepcopy(ROWS["triviaqa"])
    row["answer"]["value"] = "Kingston-upon-Sea"
    assert parse("triviaqa", row).answers == ("Kingston", "Kingston-upon-Sea", "Kingston, Jamaica")


def test_of_the_answers_that_the_passage_states_the_longest_comes_first():
    row = copy.deepcopy(ROWS["triviaqa"])
    row["answer"] |= {"value": "Kingston", "aliases": ["city is Kingston", "Kingston, Jamaica"]}
    assert parse("triviaqa", row).answers == ("city is Kingston", "Kingston", "Kingston, Jamaica")


def test_a_question_whose_pages_do_not_state_the_answer_gives_no_fact():
    row = copy.deepcopy(ROWS["triviaqa"])
    row["entity_pages"]["wiki_context"] = ["Kingstonian.", "A page."]
    assert parse("triviaqa", row) is None
    row["entity_pages"]["wiki_context"] = []
    assert parse("triviaqa", row) is None


def test_an_answer_that_is_an_article_is_not_looked_for_even_if_it_is_the_first():
    row = copy.deepcopy(ROWS["triviaqa"])
    row["answer"] |= {"value": "A", "aliases": ["a", "The", "Kingston"]}
    assert parse("triviaqa", row).answers == ("Kingston",)
    row["answer"] |= {"aliases": ["a", "The", "..."]}
    assert parse("triviaqa", row) is None


def test_a_fact_of_each_relation_of_popqa_is_stated_once_and_braces_are_text():
    for prop in STATEMENTS:
        fact = parse("popqa", ROWS["popqa"] | {"prop": prop, "subj": "The {} of {0}", "obj": "Zürich (city)", "possible_answers": "[]"})
        assert fact.evidence.count("The {} of {0}") == fact.evidence.count("Zürich (city)") == 1, prop
        (item,) = items_of([fact], "open", Options(choices=0))
        assert fact.evidence in item["prompt"]


# --- kinds of questions


def kinds(sizes):
    """Facts of so many different answers a kind."""
    return [
        Fact(id=f"{kind}-{n}", relation=kind, subject="s", question="q", answers=(f"{kind} {n}",))
        for kind, size in sizes.items()
        for n in range(size)
    ]


def sizes_of(facts):
    found = {}
    for fact in facts:
        found.setdefault(fact.relation, set()).add(comparable(fact.answers[0]))
    return {kind: len(answers) for kind, answers in found.items()}


@pytest.mark.parametrize(
    ("sizes", "pooled"),
    [
        ({"who": 4, "when": 5}, {"who": 4, "when": 5}),
        ({"who": 40, "how many": 2, "how long": 1, "how": 1}, {"who": 40, "how": 4}),
        ({"who": 40, "how many": 9, "how long": 1, "how": 1, "why": 2}, {"who": 40, "how many": 9, "other": 4}),
        ({"A/who": 9, "A/why": 3, "A/what": 1, "B/what": 1, "B/when": 3}, {"A/who": 9, "A/other": 4, "B/other": 4}),
        ({"A/who": 9, "A/why": 1, "B/what": 3, "A/when": 5}, {"A/who": 9, "A/when": 5, "other": 4}),
        ({"who": 9, "whose": 1, "why": 1, "when": 5}, {"who": 11, "when": 5}),
        ({"who": 1, "when": 2}, {"other": 3}),
    ],
    ids=str,
)
def test_kinds_with_few_answers_join_the_next_wider_one(sizes, pooled):
    facts = kinds(sizes)
    found = pool(facts, 4)
    assert sizes_of(found) == pooled
    assert [(fact.id, fact.answers) for fact in found] == [(fact.id, fact.answers) for fact in facts]


def test_after_pooling_every_kind_has_enough_answers_if_all_together_do_and_large_kinds_keep_theirs():
    rng = np.random.RandomState(0)
    names = [f"{type_}{word}" for type_ in ("", "A/", "B/") for word in ("who", "how", "how many", "how long", "other", "why")]
    for _ in range(200):
        sizes = {name: int(rng.choice([1, 2, 5, 20])) for name in rng.permutation(names)[: rng.randint(1, len(names))]}
        before = kinds(sizes)
        after = pool(before)
        found = sizes_of(after)
        assert min(found.values()) >= min(FEWEST_ANSWERS, sum(sizes.values()))
        assert all(new.relation == old.relation for old, new in zip(before, after, strict=True) if sizes[old.relation] >= FEWEST_ANSWERS)
        kept = {}
        for old, new in zip(before, after, strict=True):  # facts of one kind stay together
            assert kept.setdefault(old.relation, new.relation) == new.relation
    assert pool([]) == []


# --- passages


def test_a_passage_is_whole_sentences_around_the_first_that_states_the_answer_and_fits():
    page = " ".join(PAGE.split())
    for words in range(10, 45):
        passage = passage_of(PAGE, ("Kingston",), words)
        assert len(passage.split()) <= words
        assert occurrences(passage, "Kingston")
        assert passage in page
        if words >= 11:
            assert passage.endswith((".", "!"))
            assert "Its capital and largest city is Kingston" in passage
        assert (passage == page) is (words >= len(PAGE.split()))


def test_of_a_sentence_that_is_too_long_the_words_around_the_answer_are_kept():
    rng = np.random.RandomState(3)
    for _ in range(100):
        words = [f"w{i}" for i in range(rng.randint(30, 200))]
        at = rng.randint(len(words))
        words[at : at + 1] = ["New", "York"]
        found = passage_of(" ".join(words), ("New York",), 20).split()
        assert len(found) == 20
        assert " ".join(found) in " ".join(words)
        assert occurrences(" ".join(found), "New York") == 1


def test_answers_that_are_nothing_but_articles_are_not_looked_for():
    assert passage_of("A page of the book.", ("The", "a"), 50) == ""
    assert passage_of("He was born in St. Louis. He left.", ("St. Louis",), 50) == "He was born in St. Louis. He left."


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("Who wrote it?", "who"), ("In which year did it end", "which"), ("how many breeds of pigs are there", "how many"),
        ("How do you do?", "how"),
        ("name the first president", "other"), ("What and when?", "what"), ("", "other"), ("Somehow, where?", "where"),
    ],
)  # fmt: skip
def test_the_question_word_tells_the_kind_of_answer(question, word):
    assert question_word(question) == word


# --- rows that are not as the schema says


@pytest.mark.parametrize(
    ("name", "changes", "parts"),
    [
        ("triviaqa", {"answer": None}, ["'answer'", "missing"]),
        ("triviaqa", {"answer": {"aliases": []}}, ["'value'", "missing"]),
        ("triviaqa", {"answer": {"value": "x", "aliases": "x"}}, ["'aliases'", "'x'", "list"]),
        ("triviaqa", {"entity_pages": [1]}, ["'entity_pages'", "[1]"]),
        ("triviaqa", {"entity_pages": {}}, ["'wiki_context'", "missing"]),
        ("triviaqa", {"question": " "}, ["'question'", "' '"]),
        ("popqa", {"possible_answers": "['a']"}, ["'possible_answers'", "JSON"]),
        ("popqa", {"possible_answers": "{}"}, ["'possible_answers'", "{}", "list"]),
        ("popqa", {"s_pop": "many"}, ["'s_pop'", "'many'"]),
        ("popqa", {"subj": None}, ["'subj'", "missing"]),
        ("popqa", {"prop": "capitol"}, ["'capitol'", "'capital'"]),
        ("popqa", {"prop": "spouse"}, ["'spouse'"]),
        ("popqa", {"id": None}, ["'id'", "missing"]),
        ("counterfact", {"case_id": [7]}, ["'case_id'", "[7]"]),
        ("counterfact", {"requested_rewrite": "x"}, ["'requested_rewrite'", "'x'"]),
        ("nq_open", {"answer": []}, ["'answer'"]),
        ("nq_open", {"answer": [""]}, ["'answer'"]),
        ("nq_open", {"answer": "1972"}, ["'answer'", "'1972'", "list"]),
        ("webqs", {"question": 3}, ["'question'", "3"]),
    ],
    ids=str,
)
def test_a_row_that_breaks_the_schema_is_named(name, changes, parts):
    with raises_line(RowError, f"{name} row 5", *parts):
        parse(name, ROWS[name] | changes)


@pytest.mark.parametrize(
    ("key", "value"), [("prompt", "no place"), ("prompt", "{} and {}"), ("target_true", {"id": "Q1"}), ("subject", "")]
)
def test_a_counterfact_row_without_a_cloze_is_named(key, value):
    row = copy.deepcopy(ROWS["counterfact"])
    row["requested_rewrite"][key] = value
    with raises_line(RowError, "counterfact row 5"):
        parse("counterfact", row)


# --- the real rows


def real_rows(name):
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside this checkout")
    if name == "nq_open":
        return [json.loads(line) for line in (SHARED / "nq_open_dev.jsonl").read_text(encoding="utf-8").splitlines()]
    return json.loads((SHARED / "webquestions_test.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "count", "column"), [("nq_open", 3610, "answer"), ("webqs", 2032, "answers")])
def test_every_published_row_parses_and_every_published_answer_is_right(name, count, column):
    rows = real_rows(name)
    facts = [parse(name, row, number) for number, row in enumerate(rows)]
    assert len(rows) == len(facts) == len({fact.id for fact in facts}) == count
    for row, fact in zip(rows, facts, strict=True):
        assert all(matches(f" {answer}\n", fact.answers) for answer in row[column])
        assert row.get("question", row.get("qText")) in fact.question
