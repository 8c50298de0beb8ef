"""Requests and token ids that a sweep keeps are those that lm-eval would make again."""

from __future__ import annotations

import random
from dataclasses import asdict

import numpy as np
import pytest
from sweeps import prepare

from harness_ext.sweep.dense import DenseModel
from harness_ext.sweep.evaluation import run_trial
from harness_ext.sweep.kept_requests import KeptRequests, KeptTokens

BUILD = {"limit": 8, "rank": 0, "world_size": 1}


@pytest.fixture
def task():
    """A task of a sweep, with the method of its class."""
    prepared = prepare(metadata={"icl_items": 8})
    (made,) = prepared.catalogue.load("lab-xs")
    return made


@pytest.fixture
def built(task, monkeypatch):
    """The documents that requests were made of."""
    calls = []
    original = type(task).construct_requests

    def construct(self, *given, **named):
        calls.append(named["doc"])
        return original(self, *given, **named)

    monkeypatch.setattr(type(task), "construct_requests", construct)
    return calls


def test_requests_are_made_once_and_come_without_answers(task, built):
    task.build_all_requests(**BUILD)
    expected = [asdict(request) for request in task.instances]
    built.clear()
    keep = KeptRequests(task)
    for _ in range(3):
        keep(**BUILD)
        assert [asdict(request) for request in task.instances] == expected
        for request in task.instances:  # as an evaluation does, and as a task may
            request.resps.append("an answer")
            request.filtered_resps["none"] = "an answer"
            request.doc.clear()
    assert len(built) == 8


@pytest.mark.parametrize("change", ["limit", "system", "configuration"])
def test_requests_are_made_again_where_something_differs(task, built, change):
    keep = KeptRequests(task)
    keep(**BUILD)
    others = BUILD | {"limit": {"limit": 4}, "system": {"system_instruction": "Answer."}}.get(change, {})
    if change == "configuration":
        task.set_config("doc_to_text", "Another: {{prompt}}")
    task.build_all_requests(**others)
    expected = [asdict(request) for request in task.instances]
    built.clear()
    keep(**others)
    assert [asdict(request) for request in task.instances] == expected
    assert len(built) == (4 if change == "limit" else 8)


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_requests_that_draw_random_numbers_are_made_each_time(task, draw):
    task._config.doc_to_text = lambda document: str(draw())
    keep, prompts = KeptRequests(task), []
    for _ in range(2):
        keep(**BUILD)
        prompts.append(task.instances[0].args[0])
    assert prompts[0] != prompts[1]


class Odd(Exception):
    """Can be pickled, and not be read again."""

    def __init__(self, one, two):
        super().__init__(one)


class Worse:
    def __reduce__(self):
        raise ValueError("not me")


@pytest.mark.parametrize("held", [lambda: 0, Odd(1, 2), Worse()], ids=["function", "exception", "error"])
def test_requests_that_cannot_be_pickled_are_made_each_time(task, held, monkeypatch):
    original, calls = type(task).construct_requests, []

    def construct(self, *given, **named):
        made = original(self, *given, **named)
        calls.append(made)
        for request in made:
            request.doc["held"] = held
        return made

    monkeypatch.setattr(type(task), "construct_requests", construct)
    keep = KeptRequests(task)
    for calls_so_far in (8, 16):
        keep(**BUILD)
        assert len(calls) == calls_so_far
        assert len(task.instances) == 16


def test_options_whose_names_are_of_different_types_are_no_obstacle(task, built):
    task._config.metadata = {"sizes": {1: "one", "many": 2}}
    keep = KeptRequests(task)
    for _ in range(2):
        keep(**BUILD)
    assert len(built) == 8


def test_a_task_that_changes_its_documents_asks_the_same_in_all_trials(task):
    documents = list(task.eval_docs)
    task.dataset[task.config.test_split] = documents  # those that an evaluation scores
    keep, found = KeptRequests(task), []
    for _ in range(2):
        keep(**BUILD)
        for document in documents:
            document["seen"] = True
        found.append([request.doc for request in task.instances])
    assert found[0] == found[1]
    assert "seen" not in found[0][0]


class TestTokens:
    @pytest.fixture
    def encoded(self):
        return []

    @pytest.fixture
    def encode(self, encoded):
        def encode(prompt, continuation):
            encoded.append((prompt, continuation))
            return [ord(letter) for letter in prompt], [ord(letter) for letter in continuation]

        return encode

    def test_a_pair_is_encoded_once(self, encode, encoded):
        kept, pairs = KeptTokens(), [("ab", "c"), ("ab", "d"), ("a", "bc"), ("ab", "")]
        for _ in range(2):
            for prompt, continuation in pairs:
                ids, following = kept.of(prompt, continuation, encode)
                assert (ids, following) == ([*map(ord, prompt)], [*map(ord, continuation)])
                ids.append(0)  # lists of the caller
                following.clear()
        assert encoded == pairs

    def test_what_is_kept_is_bounded(self, encode, encoded):
        pairs = [(f"{number} " + "a" * 100, "b") for number in range(50)]
        kept = KeptTokens(most=20_000)
        for _ in range(2):
            for pair in pairs:
                assert kept.of(*pair, encode)[0] == [*map(ord, pair[0])]
        again = len(encoded) - len(pairs)
        assert 0 < again < len(pairs)
        assert (len(pairs) - again) * 4 * 102 < 20_000  # their token ids alone


def test_a_sweep_makes_and_encodes_requests_once(monkeypatch):
    prepared = prepare(tasks=["icl_linear,kv_4"], metadata={"icl_items": 8, "lookup_items": 8}, sparsity=["0.3,0.5"])
    items = prepared.items["lab-xs"]
    model = DenseModel(prepared.sweep, "lab-xs")
    (first, _, _) = (run_trial(prepared.sweep, prepared.jobs[0].trial, model, items), *prepared.jobs[1:])
    made = []
    for task in prepared.catalogue.tasks(items.for_trial()).values():
        monkeypatch.setattr(type(task), "construct_requests", lambda *_, **__: made.append("requests"))
    monkeypatch.setattr(model.lm, "tok_encode", lambda *_, **__: made.append("tokens"))
    again = run_trial(prepared.sweep, prepared.jobs[0].trial, model, items)
    assert made == []
    assert again[0]["results"] == first[0]["results"]
    assert again[1] == first[1]


def test_each_trial_compares_shared_answers_anew():
    """What one trial found out about sharing must not decide the last bits of the next."""
    prepared = prepare(sparsity=["0.3,0.5"])
    model = DenseModel(prepared.sweep, "lab-xs")
    for job in prepared.jobs:
        model.prune(job.trial.plan)
        assert model.lm._shared_prompts.works
        assert not model.lm._shared_prompts._cached.checked
        model.lm._shared_prompts._cached.works = False
    model.lm._shared_prompts = None  # share_prompts=False
    model.prune(prepared.jobs[0].trial.plan)
    assert model.lm._shared_prompts is None
