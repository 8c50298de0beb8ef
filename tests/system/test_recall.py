"""Rank, recognition and recovery of facts: what a model is asked for, and the scores of models whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from refusals import raises_line

from harness_ext.errors import BadOptionError
from harness_ext.host import registration
from harness_ext.tasks import relations
from harness_ext.tasks.facts import FactError
from harness_ext.tasks.qa_recall import RecallTask, rank, score_recall

CONFIGS = Path(__file__).parents[2] / "task_configs"
CITIES = [f"City{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWX"]  # 24 different answers
COUNT = 60


@pytest.fixture
def folder(tmp_path):
    """Two relations: one with 24 answers, of which each fact has one, and one with three."""
    for name, answers in (("seat", CITIES), ("colour", ["red", "green", "blue"])):
        samples = [{"subject": f"S{name}{number}", "object": answers[number % len(answers)]} for number in range(COUNT)]
        samples[0]["aliases"] = ["Another"]
        content = {
            "name": name,
            "prompt_templates": [f"The {name} of {{}} is"],
            "question": f"What is the {name} of {{}}?",
            "samples": samples,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return str(tmp_path)


def rows(folder, **options):
    return list(relations.load(condition="closed", recall=True, relations=folder, **options)["test"])


def plain(folder, **options):
    return list(relations.load(condition="closed", relations=folder, **options)["test"])


@pytest.mark.parametrize("shots", [0, 4])
def test_items_are_those_of_the_plain_task_and_one_more_exemplar_is_the_help(folder, shots):
    helped = plain(folder, facts_shots=shots + 1)
    for row, before, after in zip(rows(folder, facts_shots=shots), plain(folder, facts_shots=shots), helped, strict=True):
        assert {name: row[name] for name in before} == before
        assert row["helped_prompt"] == after["prompt"]
        assert after["shots"] == [*row.get("shots", []), row["helper"]]
        assert row["helper"].split("/")[0] == row["relation"]
        assert row["helper"] != row["id"]


def test_all_different_answers_of_the_relation_are_ranked_once(folder):
    for row in rows(folder):
        assert sorted(row["ranked"]) == sorted(CITIES if row["relation"] == "seat" else ["red", "green", "blue"])
        assert row["ranked"][row["ranked_target"]] == row["answers"][0]
        assert set(row["choices"]) <= set(row["ranked"])
        assert len(row["choices"]) == (16 if row["relation"] == "seat" else 3)
    places = {row["ranked_target"] for row in rows(folder) if row["relation"] == "seat"}
    assert len(places) > 12  # the order is random


def test_a_part_of_the_answers_is_ranked_with_the_choices_among_them(folder):
    whole, part = rows(folder), rows(folder, facts_ranked=20)
    for row, full in zip(part, whole, strict=True):
        assert len(set(row["ranked"])) == len(row["ranked"]) == min(20, len(full["ranked"]))
        assert set(row["choices"]) <= set(row["ranked"]) <= set(full["ranked"])
        assert row["ranked"][row["ranked_target"]] == row["answers"][0]
        assert {name: value for name, value in row.items() if "ranked" not in name} == {
            name: value for name, value in full.items() if "ranked" not in name
        }
    left_out = [set(CITIES) - set(row["ranked"]) for row in part if row["relation"] == "seat"]
    assert len(set.union(*left_out)) > 15  # another part for each fact
    assert rows(folder, facts_ranked=20) == part
    assert rows(folder, facts_ranked=24) == whole


def test_accepted_answers_and_parts_of_the_answer_are_not_ranked_against_it(tmp_path):
    answers = ["York", "New York", "Leeds", "Bath"]
    samples = [{"subject": f"S{number}", "object": answers[number % 4]} for number in range(12)]
    samples[2] = {"subject": "S2", "object": ["Leeds", "Bath"]}
    file = tmp_path / "seat.json"
    file.write_text(json.dumps({"name": "seat", "prompt_templates": ["The seat of {} is"], "samples": samples}))
    by_subject = {row["subject"]: row for row in rows(str(file))}
    assert sorted(by_subject["S0"]["ranked"]) == ["Bath", "Leeds", "York"]
    assert sorted(by_subject["S2"]["ranked"]) == ["Leeds", "New York", "York"]
    assert sorted(by_subject["S6"]["ranked"]) == ["Bath", "Leeds", "New York", "York"]


# --- requests and scores


class Knower(LM):
    """Ranks the right answer of an item at the place ``place(doc, helped)``, and writes it if ``writes(doc, helped)``."""

    def __init__(self, place, writes):
        super().__init__()
        self.place, self.writes, self.requests = place, writes, []

    def generate_until(self, requests, disable_tqdm=False):
        self.requests += requests
        return [f" {r.doc['answers'][0]}" if self.writes(r.doc, self._is_helped(r)) else " nothing" for r in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        self.requests += requests
        return [(self._likelihood(request), False) for request in requests]

    def _likelihood(self, request):
        doc, answer = request.doc, request.args[1].removeprefix(" ")
        others = [other for place, other in enumerate(doc["ranked"]) if place != doc["ranked_target"]]
        better = self.place(doc, self._is_helped(request)) - 1
        return -better - 0.5 if answer == doc["answers"][0] else -others.index(answer) - (0.0 if others.index(answer) < better else 1.0)

    def _is_helped(self, request):
        assert request.args[0] in (request.doc["prompt"], request.doc["helped_prompt"])
        return request.args[0] == request.doc["helped_prompt"]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


@pytest.fixture
def evaluate(monkeypatch, folder):
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda storage: None)
    registration.register()

    def run(lm, task="lre_recall", **metadata):
        manager = TaskManager(include_path=str(CONFIGS), include_defaults=False, metadata={"relations": folder} | metadata)
        result = simple_evaluate(model=lm, tasks=[task], task_manager=manager, bootstrap_iters=0)["results"][task]
        return {name.removesuffix(",none"): value for name, value in result.items() if name.endswith(",none") and "_stderr" not in name}

    return run


def test_a_model_that_knows_every_answer_has_the_best_score_of_each_kind(evaluate):
    scores = evaluate(Knower(lambda doc, helped: 1, lambda doc, helped: True))
    best = {"median_rank": 1, "median_rank_helped": 1, "recovered": 0, "lost": 0}
    assert scores == {name: best.get(name, 1) for name in scores}
    assert {"exact_match", "acc", "acc_norm_chance", "recall_at_10_helped"} <= set(scores)
    assert len(scores) == 15


def test_a_demoted_answer_is_recalled_late_and_recovered_by_help(evaluate):
    lm = Knower(lambda doc, helped: 1 if helped else min(4, len(doc["ranked"])), lambda doc, helped: helped)
    scores = evaluate(lm)
    small = 0.5  # half of the facts have three answers, of which the right one is third
    assert scores["median_rank"] == 3.5
    assert (scores["recall_at_1"], scores["recall_at_5"], scores["recall_at_10"]) == (0, 1, 1)
    assert (scores["exact_match"], scores["exact_match_helped"], scores["recovered"], scores["lost"]) == (0, 1, 1, 0)
    assert (scores["recall_at_1_helped"], scores["acc_helped"], scores["median_rank_helped"]) == (1, 1, 1)
    assert scores["acc"] <= small


def test_recovered_and_lost_are_counted_item_by_item(evaluate):
    number = lambda doc: int("".join(filter(str.isdigit, doc["subject"])))  # noqa: E731
    lm = Knower(lambda doc, helped: 1, lambda doc, helped: number(doc) % 3 == (1 if helped else 0))
    scores = evaluate(lm)
    assert (scores["exact_match"], scores["exact_match_helped"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (scores["recovered"], scores["lost"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_random_likelihoods_score_the_chance_that_the_documentation_states(evaluate):
    rng = np.random.RandomState(0)

    class Guesser(Knower):
        def _likelihood(self, request):
            return -float(rng.rand())

    scores = evaluate(Guesser(None, lambda doc, helped: False), facts_items=2 * COUNT)
    expected = {  # half of the facts have 24 answers, half have three
        "acc": (1 / 16 + 1 / 3) / 2,
        "recall_at_1": (1 / 24 + 1 / 3) / 2,
        "recall_at_5": (5 / 24 + 1) / 2,
        "recall_at_10": (10 / 24 + 1) / 2,
    }
    for metric, chance in expected.items():
        for name in (metric, f"{metric}_helped"):
            assert abs(scores[name] - chance) < 4 * (0.25 / (2 * COUNT)) ** 0.5


def test_an_item_asks_both_prompts_in_one_pass(evaluate):
    lm = Knower(lambda doc, helped: 1, lambda doc, helped: True)
    evaluate(lm, facts_items=10)
    by_item = {}
    for request in lm.requests:
        by_item.setdefault(request.doc_id, []).append(request)
    assert len(by_item) == 10
    for requests in by_item.values():
        doc = requests[0].doc
        half = [("generate_until", None), *(("loglikelihood", f" {answer}") for answer in doc["ranked"])]
        in_order = sorted(requests, key=lambda request: request.idx)
        asked = [(r.request_type, r.args[1] if r.request_type == "loglikelihood" else None) for r in in_order]
        assert asked == [*half, *half]
        assert [r.args[0] for r in in_order] == [doc["prompt"]] * len(half) + [doc["helped_prompt"]] * len(half)


def test_the_scores_of_the_plain_task_are_the_same(evaluate):
    lm = Knower(lambda doc, helped: 1 + len(doc["subject"]) % 3, lambda doc, helped: len(doc["subject"]) % 2 == 0)
    recall = evaluate(lm)

    class Plain(Knower):
        def _likelihood(self, request):
            return super()._likelihood(request)

    by_id = {request.doc["id"]: request.doc for request in lm.requests}

    class Same(LM):
        def generate_until(self, requests, disable_tqdm=False):
            return lm.generate_until([_as(r, by_id) for r in requests])

        def loglikelihood(self, requests, disable_tqdm=False):
            return lm.loglikelihood([_as(r, by_id) for r in requests])

        def loglikelihood_rolling(self, requests, disable_tqdm=False):
            raise NotImplementedError

    closed = evaluate(Same(), task="lre_closed")
    assert closed == {name: recall[name] for name in closed}
    assert set(closed) == {"exact_match", "acc", "acc_norm_chance"}


def _as(request, docs):
    """The request of a plain item as one of the recall task."""
    request.doc = docs[request.doc["id"]]
    return request


@pytest.mark.parametrize(
    ("likelihoods", "expected"),
    [
        ([-1.0, -2.0, -3.0], 1),
        ([-2.0, -1.0, -3.0], 2),
        ([-4.0, -1.0, -3.0], 3),
        ([-1.0, -1.0, -3.0], 1.5),
        ([-1.0, -1.0, -1.0], 2),
        ([-1.0], 1),
    ],
)
def test_equally_likely_answers_share_their_places(likelihoods, expected):
    assert rank(likelihoods, 0) == expected


def test_popularity_is_kept_apart_with_help_too():
    doc = {
        "answers": ["a"],
        "memory": [],
        "choices": ["a", "b"],
        "target": 0,
        "ranked": ["b", "a", "c"],
        "ranked_target": 1,
        "popularity": "tail",
    }
    one = ["a", (-2.0, False), (-1.0, True), (-3.0, False)]
    scores = score_recall(doc, [*one, *one])
    assert (scores["exact_match_tail"], scores["exact_match_tail_helped"], scores["median_rank"]) == (1, 1, 1)


def test_the_tasks_have_their_class(folder):
    registration.register()
    manager = TaskManager(include_path=str(CONFIGS), include_defaults=False, metadata={"relations": folder})
    tasks = manager.load(["lre_recall", "lre_recall_4shot"])["tasks"]
    assert all(isinstance(task, RecallTask) for task in tasks.values())
    assert {len(row["shots"]) for row in tasks["lre_recall_4shot"].test_docs()} == {4}


# --- refusals


@pytest.mark.parametrize("ranked", [1, 15])
def test_all_choices_are_ranked(folder, ranked):
    with raises_line(BadOptionError, f"facts_ranked={ranked}", "facts_choices=16"):
        rows(folder, facts_ranked=ranked)


def test_recall_needs_closed_book_questions_choices_and_one_more_fact(folder, tmp_path):
    with raises_line(BadOptionError, "condition='open'", "closed"):
        relations.check_task(condition="open", recall=True, relations=folder)
    with raises_line(BadOptionError, "facts_choices=0", "at least 2"):
        relations.check_task(condition="closed", recall=True, relations=folder, facts_choices=0)
    few = tmp_path / "few.json"
    samples = [{"subject": f"S{number}", "object": f"O{number}"} for number in range(3)]
    few.write_text(json.dumps({"name": "few", "prompt_templates": ["The few of {} is"], "samples": samples}))
    relations.check_task(condition="closed", relations=str(few), facts_shots=2)
    with raises_line(FactError, "'few'", "3 facts", "facts_shots=3"):
        relations.check_task(condition="closed", recall=True, relations=str(few), facts_shots=2)
