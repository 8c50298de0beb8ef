"""The models for tests of tasks, as fixtures and through lm-eval."""

from __future__ import annotations

import math

import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

import harness_ext.testing
from harness_ext.host import registration
from harness_ext.testing.built import Built, choices_of, right_answers
from harness_ext.testing.pipeline import check_oracle, check_random, run

ITEMS = {"facts_items": 48, "icl_items": 48, "lookup_items": 48}


@pytest.fixture(scope="module")
def manager():
    registration.register()
    return TaskManager(include_path=registration.task_folders(), include_defaults=False, metadata=ITEMS)


def task_of(manager, name):
    return manager.load([name])["tasks"][name]


@pytest.mark.parametrize("name", ["icl_tree_k4", "kv_16", "lab_facts_closed", "lab_facts_override"])
def test_the_oracle_knows_every_answer_and_the_guesser_is_seeded(manager, oracle_lm, random_lm, name):
    task = task_of(manager, name)
    built = Built(registration.task_folders()[0], name, registration.task_folders(), ITEMS)
    built.task = task
    scores = run(built, oracle_lm(task))
    assert scores["acc"] == scores["exact_match"] == scores["acc_norm_chance"] == 1.0
    assert scores.get("memory_match", 0.0) == scores.get("memory_acc", 0.0) == 0.0
    guesses = [run(built, random_lm(task, seed)) for seed in (0, 0, 1)]
    assert guesses[0] == guesses[1]
    assert guesses[0]["acc"] < 0.7
    assert check_oracle(built) == check_random(built) == []


def test_the_guesser_scores_chance_over_many_seeds(manager, random_lm):
    task = task_of(manager, "icl_linear_k4")
    built = Built(registration.task_folders()[0], "icl_linear_k4", registration.task_folders(), ITEMS)
    built.task = task
    scores = [run(built, random_lm(task, seed))["acc"] for seed in range(24)]
    assert abs(sum(scores) / 24 - 0.25) < 4 * math.sqrt(0.25 * 0.75 / (24 * 48))
    assert len(set(scores)) > 3


def test_a_right_answer_is_a_choice(manager):
    for name in ("icl_nn", "kv_4", "lab_unseen_open"):
        task = task_of(manager, name)
        for doc in task.eval_docs:
            assert right_answers(task, doc)[0] == choices_of(task, doc)[doc["target"]]


def test_the_tiny_model_runs_tasks_of_every_output_type_through_lm_eval(manager, tiny_lm):
    names = ["icl_linear", "lab_facts_open"]
    results = simple_evaluate(model=tiny_lm, tasks=names, task_manager=manager, limit=4)["results"]
    for name in names:
        assert 0 <= results[name]["acc,none"] <= 1
    assert sum(parameter.numel() for parameter in tiny_lm.model.parameters()) < 50_000
    text = "Zürich: 東京 \n"
    assert tiny_lm.tokenizer.decode(tiny_lm.tokenizer(text)["input_ids"]) == text


def test_the_public_names_are_there():
    for name in harness_ext.testing.__all__:
        assert getattr(harness_ext.testing, name) is not None
    with pytest.raises(AttributeError, match="no_such"):
        harness_ext.testing.no_such  # noqa: B018
