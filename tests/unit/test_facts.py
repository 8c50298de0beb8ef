"""Facts as items: what a passage states and what it does not, substitutes, choices, and the same items in all conditions."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace as changed
from itertools import combinations, product

import numpy as np
import pytest
from occurrences import occurrences
from refusals import raises_line

from harness_ext.errors import BadOptionError, UnknownNameError
from harness_ext.tasks.fact import Fact
from harness_ext.tasks.fact_options import Options, options_of
from harness_ext.tasks.facts import CONDITIONS, FactError, ask, join, rows
from harness_ext.tasks.scoring import normalise
from harness_ext.tasks.substitution import contradicts

CITIES = [
    ("New York", "York, New York", "NYC"),
    ("York",),
    ("St. Louis", "Saint Louis"),
    ("Zürich", "Zurich"),
    ("Αθήνα", "Athens"),
    ("What? (Nevada)",),
    ("A+B*C", "[A-Z]+"),
    ("Berlin",),
    ("East Berlin",),
    ("Lima",),
    ("Oslo",),
    ("Quito",),
]
TRADES = [("baker",), ("Master of Arts", "M.A."), ("miner", "coal miner"), ("the poet",), ("piper",), ("smith",)]
PEOPLE = [f"{first} {last}" for first, last in product(("Ana", "Bo", "Cy", "Di", "Ed"), ("Ames", "Bly", "Cole", "Dunn"))]


def fact(subject, relation, answers, **others):
    question, statement = {"born": ("Where was {} born?", "{} was born in {}."), "trade": ("What is {}?", "{} works as {}.")}[relation]
    return Fact(
        id=f"{relation}/{subject}", relation=relation, subject=subject, question=ask(question.format(subject)), answers=answers,
        **{"evidence": statement.format(subject, *answers[:1]) if answers else "", "extra": {"length": len(subject)}, **others},
    )  # fmt: skip


PAIRS = [(person, relation) for person in PEOPLE for relation in ("born", "trade")]
ALL = [
    fact(person, relation, values[(7 * index + index // len(values)) % len(values)])
    for index, (person, relation) in enumerate(PAIRS)
    for values in [CITIES if relation == "born" else TRADES]
]
OF = {one.id: one for one in ALL}
ALONE = changed(fact("Flo", "born", ("Rome",)), relation="alone")


def passage_of(row):
    (passage,) = re.findall(r"\AContext: (.*)\nQuestion: [^\n]*\nAnswer:\Z", row["prompt"], re.DOTALL)
    return passage


def sentences_of(row):
    """The sentences of a passage, each as the fact that it states."""
    rest, found = passage_of(row), []
    while rest:
        (one,) = [one for one in ALL if rest.startswith(one.evidence)]
        found.append(one)
        rest = rest[len(one.evidence) :].removeprefix(" ")
    return found


def made(condition, source=ALL, **options):
    return rows(source, condition, Options(**options))


# --- the same items in all conditions


@pytest.mark.parametrize("options", [{}, {"items": 7}, {"seed": 5, "items": 11, "choices": 3}, {"distractors": 0, "choices": 0}])
def test_the_three_conditions_have_the_same_facts_and_choices_in_the_same_order(options):
    closed, opened, override = (made(condition, **options) for condition in CONDITIONS)
    for column in ("id", "relation", "subject", "choices", "length"):
        assert [row[column] for row in closed] == [row[column] for row in opened] == [row[column] for row in override]
    assert [row["target"] for row in closed] == [row["target"] for row in opened] == [row["memory_target"] for row in override]
    assert [row["answers"] for row in closed] == [row["answers"] for row in opened] == [row["memory"] for row in override]
    assert {row["condition"] for row in closed} == {"closed"}
    assert all(row["memory"] == [] and row["memory_target"] == -1 for row in [*closed, *opened])


def test_a_closed_book_item_is_the_question_alone_and_the_others_put_a_passage_before_it():
    for closed, opened, override in zip(*map(made, CONDITIONS), strict=True):
        assert closed["prompt"] == OF[closed["id"]].question
        for row in (opened, override):
            assert row["prompt"] == f"Context: {passage_of(row)}\n{closed['prompt']}"


def test_a_question_that_is_the_beginning_of_a_sentence_follows_its_passage_after_a_space():
    assert join("Bo was born in Lima.", "Bo was born in") == "Bo was born in Lima. Bo was born in"
    assert join("", "Bo was born in") == "Bo was born in"
    assert join("Bo was born in Lima.", ask("Where was Bo born?")) == "Context: Bo was born in Lima.\nQuestion: Where was Bo born?\nAnswer:"


def test_items_are_in_the_order_of_the_facts_and_all_without_a_number():
    assert [row["id"] for row in made("closed")] == [one.id for one in ALL]
    some = [row["id"] for row in made("closed", items=9)]
    assert len(some) == 9
    assert some == [one.id for one in ALL if one.id in some]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_an_item_does_not_depend_on_how_many_there_are(condition):
    few, more, every = ({row["id"]: row for row in made(condition, items=items)} for items in (4, 15, 0))
    assert set(few) < set(more) < set(every)
    assert all(every[name] == row for name, row in {**more, **few}.items())


def test_another_seed_gives_other_facts_passages_substitutes_and_choices():
    assert {row["id"] for row in made("closed", items=10)} != {row["id"] for row in made("closed", items=10, seed=1)}
    first, second = made("override"), made("override", seed=1)
    assert [row["id"] for row in first] == [row["id"] for row in second]
    for column in ("prompt", "answers", "choices"):
        assert sum(a[column] != b[column] for a, b in zip(first, second, strict=True)) > len(ALL) / 2


def test_items_do_not_depend_on_the_state_of_any_random_generator():
    found = []
    for state in (0, 1):
        np.random.seed(state)
        found.append(made("override", seed=2**32 - 1))
    assert found[0] == found[1]


def test_items_survive_a_data_set_and_json():
    import datasets

    for condition in CONDITIONS:
        items = made(condition, source=[*ALL, ALONE] if condition != "override" else ALL)
        assert datasets.Dataset.from_list(items).to_list() == json.loads(json.dumps(items)) == items


# --- passages


@pytest.mark.parametrize("distractors", [0, 1, 2, 5])
def test_the_open_passage_states_the_fact_once_among_sentences_that_state_neither_the_answer_nor_the_substitute(distractors):
    for row, override in zip(made("open", distractors=distractors), made("override", distractors=distractors), strict=True):
        asked = OF[row["id"]]
        sentences = sentences_of(row)
        assert len(sentences) == distractors + 1
        assert sentences.count(asked) == 1
        for other in sentences:
            if other is not asked:
                assert not any(occurrences(other.evidence, answer) for answer in [*asked.answers, *override["answers"]])
        assert occurrences(passage_of(row), asked.answers[0]) == 1


def test_distractors_are_about_the_subject_up_to_half_and_else_of_the_relation_and_about_one_other_subject_each():
    about = Counter()
    for row in made("open", distractors=5):
        asked = OF[row["id"]]
        others = [other for other in sentences_of(row) if other is not asked]
        own = [other for other in others if other.subject == asked.subject]
        assert all(other.relation != asked.relation for other in own)
        rest = [other for other in others if other not in own]
        assert {other.relation for other in rest} == {asked.relation}
        assert len({other.subject for other in rest}) == len(rest)
        about[len(own)] += 1
    assert set(about) <= {0, 1}  # there is one other fact about each
    assert about[1] > about[0]


def test_of_many_facts_about_the_subject_no_more_than_half_of_the_distractors_are_taken():
    more = [
        changed(one, id=f"{n}{one.id}", relation=f"{n}", evidence=f"{one.subject} has {n}.", answers=(n,)) for n in "5678" for one in ALL
    ]
    for row in made("open", source=[*ALL, *more], distractors=5):
        if row["relation"] in ("born", "trade"):
            assert occurrences(passage_of(row), row["subject"]) in (2, 3)  # one of them states the fact
            assert passage_of(row).count(" has ") in (1, 2)


def test_the_sentence_that_states_the_fact_is_at_any_place():
    places = Counter(sentences_of(row).index(OF[row["id"]]) for seed in range(8) for row in made("open", seed=seed))
    assert set(places) == set(range(6))
    expected = places.total() / 6
    assert sum((count - expected) ** 2 / expected for count in places.values()) < 25  # chi-square of 5 degrees, p = 1e-4


def test_fewer_distractors_are_taken_where_the_relation_has_no_more():
    few = [fact(person, "born", (city,)) for person, city in zip(PEOPLE, ("Lima", "Oslo", "Quito", "Lima"), strict=False)]
    for row in made("open", source=few, distractors=100):
        stated = {one.answers[0] for one in few if one.evidence in passage_of(row)}
        assert row["answers"][0] in stated
        assert stated <= {"Lima", "Oslo", "Quito"}
        assert len(stated) == 2  # not the substitute


@pytest.mark.parametrize("seed", range(2))
def test_the_override_passage_states_the_substitute_wherever_the_open_one_states_the_answer(seed):
    for opened, override in zip(made("open", seed=seed), made("override", seed=seed), strict=True):
        asked, (substitute,) = OF[opened["id"]], override["answers"]
        evidence = f" {asked.evidence}".replace(f" {asked.answers[0]}.", f" {substitute}.").strip()
        assert passage_of(override) == passage_of(opened).replace(asked.evidence, evidence)
        assert not any(occurrences(override["prompt"], answer) for answer in override["memory"])
        assert occurrences(override["prompt"], substitute) == 1
        assert occurrences(opened["prompt"], substitute) == 0


def test_a_passage_of_its_own_stands_alone_and_every_answer_in_it_is_replaced():
    text = "NEW YORK is no york.\nOf new\n york, York, New York and NYC: $nyc!, (Nyc) NYCs New Yorker"
    whole = fact("Flo", "born", ("New York", "York, New York", "NYC"), evidence=text, whole=True)
    source = [whole, fact("Gus", "born", ("Lima",))]
    assert passage_of(made("open", source=source)[0]) == text
    row = made("override", source=source)[0]
    assert passage_of(row) == "Lima is no york.\nOf Lima, Lima and Lima: $Lima!, (Lima) NYCs New Yorker"
    assert row["answers"] == ["Lima"]


def test_passages_of_their_own_and_facts_without_evidence_are_no_distractors(tmp_path):
    whole = [changed(one, id=f"whole {one.id}", evidence=f"Of {one.evidence}", whole=True) for one in ALL]
    without = [fact(f"Flo {one.subject}", "born", one.answers, evidence="") for one in ALL if one.relation == "born"]
    known = tmp_path / "known.json"
    known.write_text(json.dumps({"known": [one.id for one in ALL]}))
    found = made("open", source=[*whole, *ALL, *without], known=str(known))
    assert [row["id"] for row in found] == [one.id for one in ALL]
    for row in found:
        assert " Of " not in f" {passage_of(row)}"
        assert " ".join(one.evidence for one in sentences_of(row)) == passage_of(row)


# --- substitutes and choices


@pytest.mark.parametrize("seed", range(2))
def test_the_substitute_is_another_answer_of_the_relation(seed):
    used = Counter()
    for row in made("override", seed=seed):
        asked, (substitute,) = OF[row["id"]], row["answers"]
        assert substitute in {one.answers[0] for one in ALL if one.relation == asked.relation}
        words = f" {normalise(substitute)} "
        for answer in asked.answers:
            other = f" {normalise(answer)} "
            assert words not in other
            assert other not in words
        used[asked.relation, substitute] += 1
    assert len(used) > 12


def test_the_substitute_is_neither_the_subject_nor_in_the_evidence():
    source = [
        fact("Lima", "born", ("Rome",)),
        fact("Bo", "born", ("Lima",)),
        fact("Cy", "born", ("Rome", "Roma"), evidence="From Quito and Lima, Cy was born in Roma."),
        fact("Di", "born", ("Quito",)),
        fact("Ed", "born", ("Oslo",)),
    ]
    found = {row["subject"]: set() for row in made("closed", source=source)}
    for seed in range(20):
        for row in made("override", source=source, seed=seed):
            found[row["subject"]] |= set(row["answers"])
    assert found["Lima"] == {"Quito", "Oslo"}
    assert found["Cy"] == {"Oslo"}
    assert found["Bo"] == {"Rome", "Quito", "Oslo"}


@pytest.mark.parametrize("choices", [2, 3, 8, 16, 1000])
def test_the_choices_hold_the_answer_the_substitute_and_others_of_the_relation_none_of_them_right_or_twice(choices):
    for closed, override in zip(made("closed", choices=choices), made("override", choices=choices), strict=True):
        asked, found = OF[closed["id"]], closed["choices"]
        assert found[closed["target"]] == asked.answers[0] == found[override["memory_target"]]
        assert found[override["target"]] == override["answers"][0]
        possible = {one.answers[0] for one in ALL if one.relation == asked.relation}
        others = [choice for choice in found if choice != asked.answers[0]]
        assert set(others) <= possible
        assert len({normalise(choice) for choice in found}) == len(found)
        assert all(contradicts(choice, asked.answers) for choice in others)
        # Of two answers of which one holds the other, one at most; and no room is left for an answer that could be added.
        assert all(contradicts(one, [other]) for one, other in combinations(found, 2))
        if len(found) < choices:
            assert not any(contradicts(choice, [*found, *asked.answers]) for choice in possible)


def test_the_right_choice_is_at_any_place():
    places = Counter(row["target"] for seed in range(8) for row in made("closed", seed=seed, choices=4))
    assert set(places) == set(range(4))
    assert max(places.values()) < 1.5 * places.total() / 4


def test_without_choices_nothing_is_ranked():
    for row in made("override", choices=0):
        assert (row["choices"], row["target"], row["memory_target"]) == ([], -1, -1)


def test_answers_that_the_relation_accepts_besides_those_of_its_facts_can_be_given():
    source = [
        fact("Ana", "born", ("Lima",), objects=("Lima", "Oslo", "lima", "The Oslo")),
        fact("Bo", "born", ("Quito",), objects=("Quito",)),
    ]
    ana, bo = made("closed", source=source)
    assert sorted(ana["choices"]) == sorted(bo["choices"]) == ["Lima", "Oslo", "Quito"]


def test_a_relation_of_one_answer_is_asked_without_choices_and_cannot_be_overridden():
    source = [fact(person, "born", ("Lima", "City of Kings")) for person in PEOPLE[:3]]
    for condition in ("closed", "open"):
        for row in made(condition, source=source):
            assert (row["choices"], row["target"], row["answers"]) == ([], -1, ["Lima", "City of Kings"])
    with raises_line(FactError, "born/Ana Ames", "'born'", "'Lima'"):
        made("override", source=source)


# --- errors


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ([], ["no facts"]),
        ([fact("Bo", "born", ("Lima",))] * 2, ["'born/Bo'", "unique"]),
        ([fact("Bo", "born", (), evidence="")], ["born/Bo", "()"]),
        ([fact("Bo", "born", ("",), evidence="")], ["born/Bo", "('',)"]),
        ([fact("Bo", "born", ("Lima", " "), evidence="")], ["born/Bo", "('Lima', ' ')"]),
        ([fact("", "born", ("Lima",))], ["born/", "subject"]),
    ],
)
def test_a_source_that_no_item_can_be_made_of_is_refused(source, parts):
    with raises_line(FactError, *parts):
        made("closed", source=source)


@pytest.mark.parametrize(("condition", "evidence"), [("open", ""), ("override", "Bo was born in Limassol.")])
def test_evidence_that_does_not_state_the_answer_is_refused(condition, evidence):
    source = [fact("Bo", "born", ("Lima",), evidence=evidence), fact("Cy", "born", ("Oslo",))]
    assert len(made("closed", source=source)) == 2
    with raises_line(FactError, "born/Bo", "evidence", "'Lima'"):
        made(condition, source=source)


def test_a_substitute_that_makes_an_answer_together_with_the_text_beside_it_is_refused():
    source = [fact("Bo", "born", ("Port Lima", "Oslo"), evidence="Bo is of Port Oslo.", whole=True), fact("Cy", "born", ("Lima Sur",))]
    with raises_line(FactError, "born/Bo", "'Lima Sur'", "'Port Lima'"):
        made("override", source=source)


def test_an_unknown_condition_is_refused():
    with raises_line(UnknownNameError, "'opne'", "Did you mean 'open'?", "closed, open, override"):
        made("opne")


@pytest.mark.parametrize(
    ("metadata", "parts"),
    [
        ({"facts_item": 3}, ["'facts_item'", "Did you mean 'facts_items'?", "facts_choices"]),
        ({"facts_condition": "open"}, ["'facts_condition'"]),
        ({"facts_items": -1}, ["facts_items=-1", "10000000"]),
        ({"facts_items": "3"}, ["facts_items='3'", "integer"]),
        ({"facts_items": True}, ["facts_items=True", "integer"]),
        ({"facts_choices": 1}, ["facts_choices=1", "2"]),
        ({"facts_choices": 10**6}, ["facts_choices=1000000", "100000"]),
        ({"facts_distractors": 1001}, ["facts_distractors=1001", "1000"]),
        ({"facts_distractors": 2.0}, ["facts_distractors=2.0", "integer"]),
        ({"facts_seed": 2**32}, ["facts_seed=4294967296", "4294967295"]),
        ({"facts_seed": None}, ["facts_seed=None", "integer"]),
        ({"facts_known": 3}, ["facts_known=3", "file"]),
    ],
)
def test_an_option_that_no_task_could_take_is_refused(metadata, parts):
    for call in (Options.check_metadata, options_of):
        with raises_line(BadOptionError, *parts):
            call(metadata)


def test_options_are_those_with_the_prefix():
    metadata = {"items": 1, "seed": 9, "pretrained": "lab-s", "version": 1.0, "facts_items": 3, "facts_seed": 4, "facts_known": None}
    Options.check_metadata(metadata)
    assert options_of(metadata) == Options(items=3, seed=4)
    assert options_of({}) == Options()


def test_more_facts_than_there_are_is_an_error():
    assert len(made("closed", items=len(ALL))) == len(ALL)
    with raises_line(BadOptionError, "facts_items=41", str(len(ALL))):
        made("closed", items=len(ALL) + 1)
