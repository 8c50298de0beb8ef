"""The facts of the synthetic people as tasks."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager
from refusals import raises_line

from harness_ext.errors import BadOptionError, UnknownNameError
from harness_ext.host import registration
from harness_ext.tasks import lab_facts
from harness_ext.tasks.lab_facts import check_task, facts_of
from harness_ext.tasks.people import population

CONFIGS = Path(__file__).parents[2] / "task_configs"
CONDITIONS = {
    "lab_facts_closed": ("closed", "memorised"),
    "lab_facts_open": ("open", "memorised"),
    "lab_facts_override": ("override", "memorised"),
    "lab_unseen_open": ("open", "unseen"),
    "lab_unseen_override": ("override", "unseen"),
}
STATEMENT = "{n} was born in {n}\\.|{n} works for {n}\\.|The job of {n} is {n}\\.|{n} enjoys {n}\\.".replace("{n}", r"(\w+ \w+)")
QUESTION = r"Where was (\w+ \w+) born\?|Who employs (\w+ \w+)\?|What job has (\w+ \w+)\?|What does (\w+ \w+) enjoy\?"
RELATIONS = ("birthplace", "employer", "job", "hobby")


@pytest.fixture(scope="module")
def built():
    """48 items of every task, built by lm-eval from its YAML."""
    registration.register()
    manager = TaskManager(include_path=str(CONFIGS), include_defaults=False, metadata={"facts_items": 48})
    return {name: list(task.test_docs()) for name, task in manager.load(list(CONDITIONS))["tasks"].items()}


def read(prompt):
    """What a reader takes from a prompt: the facts stated, as {(person, relation): value}, and the person and relation asked for."""
    context, question = re.fullmatch(r"(?:Context: ([^\n]*)\n)?Question: ([^\n]*)\nAnswer:", prompt).groups()
    stated = {}
    for groups in re.findall(STATEMENT, context or ""):
        place = next(index for index, group in enumerate(groups) if group)
        assert stated.setdefault((groups[place], RELATIONS[place // 2]), groups[place + 1]) == groups[place + 1]
    assert not re.sub(STATEMENT, "", context or "").strip()
    asked = re.fullmatch(QUESTION, question)
    return stated, (asked[asked.lastindex], RELATIONS[asked.lastindex - 1])


def test_every_task_has_the_items_asked_for_with_its_condition_and_the_answer_ranked_among_sixteen(built):
    assert {*built, "lab_facts_recall"} == {path.stem for path in (CONFIGS / "lab_facts").glob("[!_]*.yaml")}
    for name, docs in built.items():
        assert len(docs) == 48
        assert {doc["condition"] for doc in docs} == {CONDITIONS[name][0]}
        for doc in docs:
            assert len(set(doc["choices"])) == 16
            assert [doc["choices"][doc["target"]]] == doc["answers"]


def test_the_conditions_ask_for_the_same_facts_in_the_same_order(built):
    for names in (["lab_facts_closed", "lab_facts_open", "lab_facts_override"], ["lab_unseen_open", "lab_unseen_override"]):
        assert len({tuple((doc["id"], *doc["choices"]) for doc in built[name]) for name in names}) == 1
        assert {doc["relation"] for doc in built[names[0]]} == set(RELATIONS)
    assert not {doc["id"] for doc in built["lab_facts_open"]} & {doc["id"] for doc in built["lab_unseen_open"]}


def test_a_reader_of_the_prompt_alone_answers_every_item_with_a_passage(built):
    for name in CONDITIONS:
        for doc in built[name]:
            stated, asked = read(doc["prompt"])
            assert asked == (doc["subject"], doc["relation"])
            assert stated.get(asked, None) == (None if name == "lab_facts_closed" else doc["answers"][0])
            assert len(stated) == (0 if name == "lab_facts_closed" else 6)
            assert list(stated.values()).count(doc["answers"][0]) == (name != "lab_facts_closed")
            assert not set(stated.values()) & set(doc["memory"])


def test_the_answers_are_the_facts_that_were_memorised(built):
    people = population(0)
    for name in ("lab_facts_closed", "lab_facts_open", "lab_facts_override"):
        for doc in built[name]:
            person = [str(person) for person in people.memorised].index(doc["subject"])
            answer = people.answer(person, RELATIONS.index(doc["relation"]))
            assert (doc["memory"] or doc["answers"]) == [answer]
            assert doc["answers"] != doc["memory"]


def test_passages_about_unseen_people_name_nobody_who_was_ever_met(built):
    people = population(0)
    met = {str(person) for person in (*people.memorised, *people.met)}
    unseen = {str(person) for person in people.unseen}
    for name, known in (("lab_unseen_open", False), ("lab_unseen_override", False), ("lab_facts_open", True)):
        for doc in built[name]:
            named = {person for person, _ in read(doc["prompt"])[0]}
            assert doc["subject"] in named
            assert named <= (met if known else unseen)


@pytest.mark.parametrize("crowd", ["memorised", "unseen"])
def test_a_crowd_has_four_facts_for_each_person(crowd):
    people = population(0)
    facts = facts_of(people, crowd)
    assert len(facts) == len({fact.id for fact in facts}) == 4 * len(getattr(people, crowd))
    for fact in facts[:: len(facts) // 50]:
        assert fact.id == f"{fact.relation}/{fact.subject}"
        assert read(fact.question)[1] == (fact.subject, fact.relation)
        assert read(f"Context: {fact.evidence}\n{fact.question}")[0] == {(fact.subject, fact.relation): fact.answers[0]}


DIGESTS = {
    "lab_facts_closed": "7572fcd8bbdd3b6a",
    "lab_facts_open": "a629fadee1d40b62",
    "lab_facts_override": "9c757f5a06fb1cfb",
    "lab_unseen_open": "d50d5d3ff39c0256",
    "lab_unseen_override": "10b0d6315de8b4f0",
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_items_are_the_same_on_every_machine_and_with_every_library_version(name, built):
    # A change here changes the published tasks: give them a new version.
    text = "\n".join(f"{doc['prompt']} {doc['answers'][0]} {doc['choices']}\n" for doc in built[name])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DIGESTS[name]


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"condition": "closd", "people": "memorised"}, UnknownNameError, ["'closd'", "Did you mean 'closed'?"]),
        ({"condition": "open", "people": "unsen"}, UnknownNameError, ["'unsen'", "Did you mean 'unseen'?"]),
        ({"condition": "open", "people": "met"}, UnknownNameError, ["'met'", "memorised, unseen"]),
        ({"condition": "closed", "people": "unseen"}, BadOptionError, ["people=unseen", "condition=closed"]),
        ({"condition": "open", "people": "unseen", "facts_sed": 1}, BadOptionError, ["'facts_sed'", "Did you mean 'facts_seed'?"]),
        ({"condition": "open", "people": "unseen", "facts_seed": -1}, BadOptionError, ["facts_seed=-1", "4294967295"]),
        (
            {"condition": "open", "people": "memorised", "facts_items": 32769},
            BadOptionError,
            ["facts_items=32769", "32768"],
        ),
    ],
)
def test_a_task_that_cannot_be_is_refused_before_its_items_are_made(arguments, error, parts, monkeypatch):
    monkeypatch.setattr(lab_facts, "facts_of", None)
    for call in (check_task, lab_facts.load):
        with raises_line(error, *parts):
            call(**arguments)


def test_options_are_refused_by_the_task_manager_and_before_a_task_is_built():
    registration.register()
    with raises_line(BadOptionError, "facts_items='few'"):
        TaskManager(include_path=str(CONFIGS), include_defaults=False, metadata={"facts_items": "few"})


def test_model_arguments_have_no_influence():
    arguments = {"pretrained": "lab-s", "sparsity": 0.7, "seed": 5, "items": 1, "choices": 2, "known": "x", "calibration.seed": 1}
    assert check_task(condition="open", people="memorised", **arguments) == check_task(condition="open", people="memorised")


def test_exemplars_about_other_people_come_first():
    for condition in ("closed", "open", "override"):
        for row in lab_facts.load(condition=condition, people="memorised", facts_items=8, facts_shots=2)["test"]:
            *exemplars, item = row["prompt"].split("\n\n")
            assert len(exemplars) == len(row["shots"]) == 2
            assert read(item)[1] == (row["subject"], row["relation"])
            assert all(row["subject"] not in exemplar and row["answers"][0] not in exemplar for exemplar in exemplars)
            assert all(f"\nAnswer: {value}" in f"\n{text}" for text in exemplars for value in [" ".join(text.rsplit(" ", 2)[1:])])
    with raises_line(BadOptionError, "facts_form=sentence", "question"):
        check_task(condition="closed", people="memorised", facts_form="sentence")
