"""``lm_eval --use_cache`` with ``pruned-hf``: answers of different fingerprints share a file and never mix."""

from __future__ import annotations

import functools
import json
import sqlite3
import sys

import pytest
import tiny
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM

from harness_ext.host import registration
from harness_ext.host.model import PrunedHFLM

REQUESTS = [
    Instance(request_type="loglikelihood", doc={}, arguments=(prompt, choice), idx=index)
    for index, (prompt, choice) in enumerate([("a b c : d", " 1"), ("a b c : d", " 2"), ("x y z", " a b")])
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.checkpoint(tmp_path_factory.mktemp("checkpoint"))


def build(folder, **arguments):
    return PrunedHFLM(pretrained=folder, device="cpu", pruner="magnitude", **arguments)


class Counting:
    """Counts the requests that reach a model."""

    def __init__(self, lm, monkeypatch):
        self.asked = 0
        original = lm._loglikelihood_tokens

        def counted(requests, **options):
            self.asked += len(requests)
            return original(requests, **options)

        monkeypatch.setattr(lm, "_loglikelihood_tokens", counted)


def answers(lm, path):
    return CachingLM(lm, str(path)).loglikelihood(REQUESTS)


class TestOneFile:
    def test_gives_each_sparsity_its_own_answers(self, folder, tmp_path):
        path = tmp_path / "cache.db"
        for sparsity in (0, 0.5, "2:4", 0.5, 0):
            expected = build(folder, sparsity=sparsity).loglikelihood(REQUESTS)
            assert answers(build(folder, sparsity=sparsity), path) == expected

    def test_serves_the_same_fingerprint_without_asking_the_model(self, folder, tmp_path, monkeypatch):
        path = tmp_path / "cache.db"
        first = answers(build(folder, sparsity=0.5), path)
        answers(build(folder, sparsity=0.25), path)
        lm = build(folder, sparsity=0.5)
        counting = Counting(lm, monkeypatch)
        assert answers(lm, path) == first
        assert counting.asked == 0

    @pytest.mark.parametrize(
        "change", [{"sparsity": 0.25}, {"modules": "ffn"}, {"pruner.seed": 1}, {"add_bos_token": True}, {"dtype": "bfloat16"}]
    )
    def test_asks_the_model_after_any_change_that_matters(self, folder, tmp_path, monkeypatch, change):
        path = tmp_path / "cache.db"
        answers(PrunedHFLM(pretrained=folder, device="cpu", pruner="random", sparsity=0.5), path)
        lm = PrunedHFLM(pretrained=folder, device="cpu", **({"pruner": "random", "sparsity": 0.5} | change))
        counting = Counting(lm, monkeypatch)
        answers(lm, path)
        assert counting.asked == len(REQUESTS)

    def test_serves_another_batch_size(self, folder, tmp_path, monkeypatch):
        path = tmp_path / "cache.db"
        answers(build(folder, sparsity=0.5), path)
        lm = build(folder, sparsity=0.5, batch_size=2)
        counting = Counting(lm, monkeypatch)
        answers(lm, path)
        assert counting.asked == 0

    def test_never_serves_what_another_model_class_wrote(self, folder, tmp_path):
        from lm_eval.models.huggingface import HFLM

        path = tmp_path / "cache.db"
        dense = CachingLM(HFLM(pretrained=folder, device="cpu"), str(path)).loglikelihood(REQUESTS)
        assert answers(build(folder, sparsity=0.5), path) != dense


def test_the_stock_command_at_two_sparsities_and_one_path(tmp_path, monkeypatch):
    """The second gives what it gives without a cache; a third, at the first sparsity, asks the model nothing."""
    import lm_eval.tasks
    from lm_eval.__main__ import cli_evaluate

    ours = functools.partial(lm_eval.tasks.TaskManager, include_path=registration.task_folders(), include_defaults=False)
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", lambda include_path, metadata: ours(metadata=metadata))  # lm-eval's take seconds
    asked = []
    original = PrunedHFLM._loglikelihood_tokens

    def counted(self, requests, **options):
        asked.append(len(requests))
        return original(self, requests, **options)

    monkeypatch.setattr(PrunedHFLM, "_loglikelihood_tokens", counted)

    def run(name, sparsity, *words):
        command = ["lm_eval", "--model", "pruned-hf", "--model_args", f"pretrained=lab-xs,pruner=magnitude,sparsity={sparsity}"]
        command += ["--tasks", "icl_linear", "--metadata", '{"icl_items": 4}', "--device", "cpu", "--output_path", str(tmp_path / name)]
        monkeypatch.setattr(sys, "argv", [*command, *words])
        asked.clear()
        cli_evaluate()
        return json.loads(next((tmp_path / name).rglob("results_*.json")).read_text())["results"], sum(asked)

    cache = ("--use_cache", str(tmp_path / "cache"))
    first, requests = run("first", 0.3, *cache)
    assert requests > 0
    second, again = run("second", 0.9, *cache)
    assert again == requests
    assert second == run("plain", 0.9)[0]
    third, none = run("third", 0.3, *cache)
    assert none == 0
    assert third == first != second
    with sqlite3.connect(tmp_path / "cache_rank0.db") as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert sum(name.startswith("pruned-hf-") for name in tables) == 2
