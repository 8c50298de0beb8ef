"""The fact task in lm-eval's own pipeline: what it asks a model for, and the scores it reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from harness_ext.tasks.facts import CONDITIONS
from harness_ext.tasks.qa import FactTask, score

FOLDER = Path(__file__).parents[2] / "task_configs" / "lab_facts"
SOURCE = """
import datasets
from harness_ext.tasks.fact_options import options_of
from harness_ext.tasks.fact import Fact
from harness_ext.tasks.facts import ask, rows

CITIES = ["Lima", "Oslo", "St. Louis", "Quito", "Athens"]
FACTS = [
    Fact(id=str(n), relation="born", subject=f"P{n}", question=ask(f"Where was P{n} born?"), answers=(CITIES[n % 5], f"city {n % 5}"),
         evidence=f"P{n} was born in {CITIES[n % 5]}.")
    for n in range(20)
]
ALONE = Fact(id="alone", relation="alone", subject="Q", question=ask("Who is Q?"), answers=("R",), evidence="Q is R.")

def load(*, condition, alone=False, **metadata):
    return {"test": datasets.Dataset.from_list(rows(FACTS + [ALONE] * alone, condition, options_of(metadata)))}
"""
METRICS = {"exact_match", "acc", "acc_norm_chance"}
MEMORY = {"memory_match", "memory_acc"}


@pytest.fixture
def tasks(tmp_path):
    """A task manager for the three conditions of a task of one's own; metadata as for lm-eval's ``--metadata``."""
    (tmp_path / "source.py").write_text(SOURCE)
    for condition in CONDITIONS:
        base = "_override" if condition == "override" else "_facts"
        (tmp_path / f"{condition}.yaml").write_text(
            f"include: {FOLDER / base}.yaml\ntask: mine_{condition}\ncustom_dataset: !function source.load\n"
            f"dataset_kwargs:\n  condition: {condition}\nmetadata:\n  version: 1.0\n"
        )
    return lambda **metadata: TaskManager(include_path=str(tmp_path), include_defaults=False, metadata=metadata)


class Speaker(LM):
    """Writes what ``write`` gives for an item, and holds the choice that ``choose`` gives to be the likeliest."""

    def __init__(self, write, choose):
        super().__init__()
        self.write, self.choose, self.requests = write, choose, []

    def generate_until(self, requests, disable_tqdm=False):
        self.requests += requests
        return [self.write(request.doc) for request in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        self.requests += requests
        return [(-1.0 if request.args[1] == f" {self.choose(request.doc)}" else -5.0, False) for request in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


@pytest.fixture
def evaluate(monkeypatch, tasks):
    """lm-eval's ``simple_evaluate``, without the seconds that its report on the machine takes."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda storage: None)

    def run(write, choose, condition, **metadata):
        name = f"mine_{condition}"
        return simple_evaluate(model=Speaker(write, choose), tasks=[name], task_manager=tasks(**metadata))["results"][name]

    return run


def scores(result):
    return {name.split(",")[0]: value for name, value in result.items() if name.endswith(",none")}


def right(doc):
    return f" {doc['answers'][-1].upper()}. And so on"


def remembered(doc):
    return (doc["memory"] or doc["answers"])[0]


# --- requests


@pytest.mark.parametrize("condition", CONDITIONS)
def test_an_item_is_one_completion_and_the_log_likelihood_of_each_choice_from_one_prompt(tasks, condition):
    task = tasks().load([f"mine_{condition}"])["tasks"][f"mine_{condition}"]
    assert isinstance(task, FactTask)
    task.build_all_requests()
    docs = list(task.test_docs())
    requests = iter(task.instances)
    for index, doc in enumerate(docs):
        written, *ranked = (next(requests) for _ in range(1 + len(doc["choices"])))
        assert written.request_type == "generate_until"
        assert written.args == (doc["prompt"], {"until": ["\n"], "do_sample": False, "max_gen_toks": 8})
        assert {request.request_type for request in ranked} == {"loglikelihood"}
        assert [request.args for request in ranked] == [(doc["prompt"], f" {choice}") for choice in doc["choices"]]
        assert [request.idx for request in (written, *ranked)] == list(range(1 + len(ranked)))
        assert {request.doc_id for request in (written, *ranked)} == {index}
    assert next(requests, None) is None


def test_items_share_no_generation_arguments(tasks):
    task = tasks().load(["mine_open"])["tasks"]["mine_open"]
    task.build_all_requests()
    first, second = [request.args[1] for request in task.instances if request.request_type == "generate_until"][:2]
    first.pop("max_gen_toks")
    first["until"].append("x")
    assert second == {"until": ["\n"], "do_sample": False, "max_gen_toks": 8}
    assert task.config.generation_kwargs == second


def test_after_a_chat_template_the_choices_begin_without_a_space(tasks):
    task = tasks(facts_items=3).load(["mine_closed"])["tasks"]["mine_closed"]
    task.build_all_requests(apply_chat_template=True, chat_template=lambda messages, **_: f"<{messages[0]['content']}>")
    for request in task.instances:
        assert request.args[0] == f"<{request.doc['prompt']}>"
        if request.request_type == "loglikelihood":
            assert request.args[1] == request.doc["choices"][request.idx - 1]


def test_building_a_task_looks_for_no_metric_on_the_hub(tasks, monkeypatch):
    asked = []
    monkeypatch.setattr("lm_eval.api.task.get_metric", lambda *arguments: asked.append(arguments))
    tasks().load(["mine_override"])
    assert not asked


# --- scores


def test_a_model_that_follows_the_passage_scores_one(evaluate):
    for condition in CONDITIONS:
        result = evaluate(right, lambda doc: doc["answers"][0], condition)
        expected = dict.fromkeys(METRICS, 1) | (dict.fromkeys(MEMORY, 0) if condition == "override" else {})
        assert scores(result) == expected | {f"{metric}_stderr": 0 for metric in expected}


def test_a_model_that_falls_back_on_memory_scores_zero_and_its_memory_is_scored(evaluate):
    result = scores(evaluate(remembered, remembered, "override"))
    assert {name: result[name] for name in METRICS | MEMORY} == {
        "exact_match": 0, "acc": 0, "acc_norm_chance": pytest.approx(-1 / 4), "memory_match": 1, "memory_acc": 1,
    }  # fmt: skip


def test_the_standard_errors_are_those_of_the_mean_of_the_items(evaluate):
    def follows(doc):
        return doc["answers"][0] if int(doc["id"]) % 3 else remembered(doc)

    result = scores(evaluate(follows, follows, "override"))
    items = np.array([float(n % 3 > 0) for n in range(20)])
    error = items.std(ddof=1) / 20**0.5
    expected = {
        "exact_match": (items.mean(), error),
        "acc": (items.mean(), error),
        "acc_norm_chance": ((items.mean() - 1 / 5) / (1 - 1 / 5), error / (1 - 1 / 5)),
        "memory_match": (1 - items.mean(), error),
        "memory_acc": (1 - items.mean(), error),
    }
    for name, (mean, stderr) in expected.items():
        assert (result[name], result[f"{name}_stderr"]) == (pytest.approx(mean), pytest.approx(stderr))


def test_without_choices_the_answer_alone_is_scored(evaluate):
    result = scores(evaluate(remembered, remembered, "override", facts_choices=0))
    assert set(result) == {f"{name}{suffix}" for name in ("exact_match", "memory_match") for suffix in ("", "_stderr")}


def test_items_without_choices_count_for_the_exact_match_alone(evaluate):
    result = scores(evaluate(right, lambda doc: doc["choices"][doc["target"] - (doc["id"] == "3")], "closed", alone=True))
    assert result["exact_match"] == 1
    assert result["acc"] == pytest.approx(19 / 20)
    assert result["acc_stderr"] == pytest.approx((19 / 20 * 1 / 20 / 19) ** 0.5)


@pytest.mark.parametrize(
    ("doc", "results", "expected"),
    [
        (
            {"answers": ["Lima"], "memory": [], "target": 1},
            ["Lima.", (-3.0, False), (-2.0, False)],
            {"exact_match": 1, "acc": 1, "acc_norm_chance": 1},
        ),
        (
            {"answers": ["Lima"], "memory": [], "target": 1},
            ["Lima", (-2.0, True), (-2.0, False)],  # the first of equally likely choices is the answer
            {"exact_match": 1, "acc": 0, "acc_norm_chance": -1},
        ),
        (
            {"answers": ["Lima"], "memory": ["Oslo", "Christiania"], "target": 0, "memory_target": 2},
            ["Christiania, 1900", (-3.0, False), (-4.0, False), (-1.0, False)],
            {"exact_match": 0, "acc": 0, "acc_norm_chance": -0.5, "memory_match": 1, "memory_acc": 1},
        ),
        (
            {"answers": ["Lima"], "memory": ["Oslo"], "target": 0, "memory_target": 2},
            ["Quito", (-3.0, False), (-1.0, False), (-4.0, False)],
            {"exact_match": 0, "acc": 0, "acc_norm_chance": -0.5, "memory_match": 0, "memory_acc": 0},
        ),
        ({"answers": ["Lima"], "memory": ["Oslo"], "target": -1, "memory_target": -1}, ["lima"], {"exact_match": 1, "memory_match": 0}),
    ],
)
def test_scores_of_one_item(doc, results, expected):
    assert score(doc, results) == pytest.approx(expected)


def test_a_task_of_ones_own_may_score_its_items_itself(tasks, tmp_path):
    (tmp_path / "own.yaml").write_text("include: closed.yaml\ntask: own\nprocess_results: !function source.own\n")
    (tmp_path / "source.py").write_text(SOURCE + "\ndef own(doc, results):\n    return {'exact_match': 0.5}\n")
    task = tasks().load(["own"])["tasks"]["own"]
    assert task.process_results(next(iter(task.test_docs())), ["x"]) == {"exact_match": 0.5}
