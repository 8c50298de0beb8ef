"""The hub sets as tasks: rows of the same schema through the real loading code, local files in the hub's place, and what goes wrong."""

from __future__ import annotations

import copy
import json
import logging
import re

import datasets
import numpy as np
import pytest
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from published_rows import ROWS, SHARED
from refusals import raises_line

from harness_ext.errors import BadOptionError, HarnessExtError, UnknownNameError
from harness_ext.host import registration
from harness_ext.tasks import hub_facts
from harness_ext.tasks.hub_facts import HubError, check_task, facts_of, load, read_rows, with_popularity
from harness_ext.tasks.hub_rows import SETS

CITIES = ["Kingston", "Lima", "Oslo", "Quito", "Nairobi", "Havana", "Cairo", "Rome"]
CONDITIONS = ("closed", "open", "override")


def made(name, number):
    """A row of the schema that is not the row of another number."""
    row, city = copy.deepcopy(ROWS[name]), CITIES[number % len(CITIES)]
    if name == "triviaqa":
        row["question_id"] = f"q{number}"
        row["answer"] |= {"value": city, "aliases": [city, f"{city} City"]}
        row["entity_pages"]["wiki_context"] = [f"One page. {city} City, or {city} for short, is number {number}."]
    elif name == "popqa":
        row |= {
            "id": number,
            "subj": f"Place {number}",
            "obj": city,
            "possible_answers": json.dumps([city]),
            "prop": "capital",
            "s_pop": number,
        }
    elif name == "counterfact":
        row["case_id"] = number
        row["requested_rewrite"] |= {"subject": f"Place {number}", "target_true": {"str": city, "id": "Q1"}}
    else:
        row |= {"question": f"where is place {number}", "answer": [city], "answers": [city]}
    return row


@pytest.fixture
def hub(monkeypatch):
    """The hub's client, with 20 rows of the same schema in place of the network; gives what it was asked for."""
    asked = []

    def load_dataset(path, config=None, *, split):
        asked.append((path, config, split))
        name = next(name for name, source in SETS.items() if source.path == path)
        return datasets.Dataset.from_list([made(name, number) for number in range(20)])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize("name", SETS)
def test_the_conditions_of_a_set_have_the_same_items(hub, name):
    found = {c: load(condition=c, data=name, facts_items=12)["test"] for c in (CONDITIONS if SETS[name].evidence else CONDITIONS[:1])}
    assert set(hub) == {(SETS[name].path, SETS[name].config, SETS[name].split)}
    assert len({tuple(rows["id"]) for rows in found.values()}) == 1
    for condition, rows in found.items():
        assert len(rows) == 12
        for row in rows:
            answer = CITIES[int(re.sub(r"\D", "", row["id"])) % len(CITIES)]
            accepted = row["memory"] if condition == "override" else row["answers"]
            assert answer in accepted
            told = re.search(rf"\b{answer}\b", row["prompt"])
            assert bool(told) is (condition == "open")
            assert (row["answers"][0] in row["prompt"]) is (condition != "closed")


def test_popqa_is_split_into_thirds_by_the_popularity_of_the_subject(hub):
    rows = load(condition="closed", data="popqa")["test"].to_list()
    assert [row["popularity"] for row in rows] == ["tail"] * 7 + ["torso"] * 7 + ["head"] * 6
    rng = np.random.RandomState(0)
    facts = facts_of("popqa", None, 120)
    shuffled = with_popularity([facts[i] for i in rng.permutation(20)])
    assert {fact.id: fact.extra for fact in shuffled} == {fact.id: fact.extra for fact in facts}


class Knowing(LM):
    """Knows the answers to even questions."""

    def generate_until(self, requests, disable_tqdm=False):
        return [f" {r.doc['answers'][0] if int(r.doc['id']) % 2 == 0 else 'nothing'}" for r in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        return [(-1.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


def test_lm_eval_reports_the_split_of_popqa(hub):
    registration.register()
    manager = TaskManager(include_path=registration.task_folders(), include_defaults=False, metadata={"facts_items": 20})
    scores = simple_evaluate(model=Knowing(), tasks=["popqa_closed"], task_manager=manager)["results"]["popqa_closed"]
    assert scores["exact_match,none"] == 0.5
    assert scores["exact_match_tail,none"] == pytest.approx(4 / 7)
    assert scores["exact_match_torso,none"] == pytest.approx(3 / 7)
    assert scores["exact_match_head,none"] == 0.5
    assert scores["acc_head_stderr,none"] > 0


def test_rows_without_evidence_are_counted(hub, monkeypatch, caplog):
    rows = [made("triviaqa", number) for number in range(6)]
    rows[2]["entity_pages"]["wiki_context"] = ["Nothing of it."]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))
    with caplog.at_level(logging.WARNING):
        assert [load(condition=c, data="triviaqa", facts_items=5)["test"]["id"][2] for c in CONDITIONS] == ["q3"] * 3
    assert "triviaqa: 1 of 6 rows have no page that states an answer: left out of all conditions" in caplog.text


def test_a_question_of_a_kind_of_its_own_has_choices_and_a_substitute(hub, monkeypatch):
    rows = [made("triviaqa", number) for number in range(20)]
    rows[4]["question"] = "Whose is it?"
    rows[7]["answer"]["type"] = "Numerical"
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))
    for row in load(condition="override", data="triviaqa")["test"]:
        assert len(row["choices"]) == len(CITIES)
        assert row["answers"][0].removesuffix(" City") in CITIES


def test_a_row_of_the_hub_that_breaks_the_schema_is_named_with_its_set(monkeypatch):
    rows = [made("popqa", number) for number in range(3)]
    rows[2]["prop"] = "spouse"
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))
    with raises_line(HarnessExtError, "akariasai/PopQA", "popqa row 2", "'spouse'"):
        load(condition="closed", data="popqa")


def test_passages_have_so_many_words_at_most(hub):
    for words in (10, 120):
        for row in load(condition="open", data="triviaqa", facts_items=8, hub_words=words)["test"]:
            assert len(row["prompt"].split("\n")[0].removeprefix("Context: ").split()) <= words


# --- local files


@pytest.mark.parametrize("lines", [True, False])
def test_a_local_file_takes_the_place_of_the_hub(hub, tmp_path, lines):
    rows = [made("counterfact", number) for number in range(9)]
    path = tmp_path / "rows.json"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n" if lines else json.dumps(rows, indent=1))
    assert list(read_rows(path)) == rows
    assert len(load(condition="override", data="counterfact", hub_rows=str(path))["test"]) == 9
    assert not hub


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["empty"]),
        (b" \n ", ["empty"]),
        (b'{"question": "\xff"}', ["UTF-8", "14"]),
        (b"[1, 2", ["JSON"]),
        (b'{"question": "who", "answer": ["x"]}\n{"b": \n', ["line 2", "JSON"]),
        (b"[[1]]", ["row 0", "'[1]'"]),
        (b"[" * 200_000, ["JSON"]),
        (b"[]", ["nq_open", "0"]),
        (b'{"question": "who"}', ["nq_open row 0", "'answer'"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_file_that_holds_no_rows_is_named_with_the_place(tmp_path, content, parts):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with raises_line(HarnessExtError, str(path), *parts):
        load(condition="closed", data="nq_open", hub_rows=str(path))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "file", "count"), [("nq_open", "nq_open_dev.jsonl", 3610), ("webqs", "webquestions_test.json", 2032)])
def test_all_published_rows_become_items(name, file, count):
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside this checkout")
    rows = load(condition="closed", data=name, hub_rows=str(SHARED / file), facts_items=0)["test"]
    assert len(rows) == count
    assert all(len(row["choices"]) == 16 and row["choices"][row["target"]] == row["answers"][0] for row in rows)


# --- what goes wrong


def test_without_a_network_the_error_says_what_to_do(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("Couldn't reach\nthe Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with raises_line(HubError, "akariasai/PopQA", "Couldn't reach the Hub", "hub_rows"):
        load(condition="closed", data="popqa")


def test_a_set_that_has_changed_its_columns_is_named(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list([{"query": "who", "answer": ["x"]}]))
    with raises_line(HubError, "'question'", "query, answer"):
        load(condition="closed", data="nq_open")


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"data": "trivia_qa"}, UnknownNameError, ["'trivia_qa'", "Did you mean 'triviaqa'?"]),
        ({"condition": "opn"}, UnknownNameError, ["'opn'", "Did you mean 'open'?"]),
        ({"data": "webqs", "condition": "open"}, BadOptionError, ["data=webqs", "condition=open"]),
        ({"hub_word": 8}, BadOptionError, ["'hub_word'", "Did you mean 'hub_words'?"]),
        ({"hub_words": 9}, BadOptionError, ["hub_words=9"]),
        ({"hub_words": True}, BadOptionError, ["hub_words=True"]),
        ({"hub_rows": 3}, BadOptionError, ["hub_rows=3"]),
        ({"hub_rows": "no/such.jsonl"}, HubError, ["hub_rows=no/such.jsonl"]),
        ({"facts_sed": 3}, BadOptionError, ["'facts_sed'", "Did you mean 'facts_seed'?"]),
    ],
    ids=str,
)
def test_bad_options_are_refused_before_anything_is_loaded(hub, arguments, error, parts):
    for call in (check_task, load):
        with raises_line(error, *parts):
            call(**({"condition": "closed", "data": "popqa"} | arguments))
    assert not hub


@pytest.mark.network
@pytest.mark.parametrize("name", SETS)
def test_the_hub_has_the_set_with_the_columns_that_are_read(name):
    assert len(facts_of(name, None, hub_facts.HubOptions().words)) > 500


@pytest.mark.parametrize("name", SETS)
def test_exemplars_are_other_rows_and_say_nothing_about_the_answer(hub, name):
    for condition in CONDITIONS if SETS[name].evidence else CONDITIONS[:1]:
        for row in load(condition=condition, data=name, facts_items=12, facts_shots=2)["test"]:
            assert len(row["shots"]) == 2
            assert row["id"] not in row["shots"]
            exemplars, _ = row["prompt"].rsplit("\n\n" if SETS[name].form == "question" else "\n", 1)
            for answer in (*row["answers"], *row["memory"]):
                assert not re.search(rf"\b{answer}\b", exemplars)


def test_too_few_rows_of_a_kind_for_the_exemplars_are_refused_before_a_model_is_loaded(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(made("popqa", number)) for number in range(6)))
    check_task(condition="closed", data="popqa", hub_rows=str(file), facts_items=0, facts_shots=5)
    with raises_line(HarnessExtError, "'capital'", "6", "facts_shots=6"):
        check_task(condition="closed", data="popqa", hub_rows=str(file), facts_items=0, facts_shots=6)


@pytest.mark.parametrize(("name", "form"), [("counterfact", "question"), ("popqa", "sentence"), ("triviaqa", "sentence")])
def test_a_form_that_a_set_does_not_have_is_refused(name, form):
    check_task(condition="closed", data=name, facts_form=SETS[name].form)
    with raises_line(BadOptionError, f"data={name}", f"facts_form={form}", SETS[name].form):
        check_task(condition="closed", data=name, facts_form=form)
