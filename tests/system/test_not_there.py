"""A model or a task that is not there: one line, before anything is loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import huggingface_hub
import pytest
import tiny
from environment import ROOT
from lm_eval.tasks import TaskManager
from refusals import raises_line

from harness_ext import BadOptionError, UnknownNameError
from harness_ext.host import registration
from harness_ext.host.model import PrunedHFLM


@pytest.mark.parametrize("sparsity", [0, 0.5])
@pytest.mark.parametrize("name", ["./gone", "/no/such/folder", "~/no/such/folder", "no/such/folder"])
def test_a_path_that_is_not_there_is_one_line(name: str, sparsity: float) -> None:
    with raises_line(BadOptionError, f"pretrained={name!r}", "no such folder", "lab-m"):
        PrunedHFLM(pretrained=name, sparsity=sparsity, device="cpu")


@pytest.mark.parametrize("sparsity", [0, 0.5])
def test_a_folder_without_a_configuration_is_one_line(tmp_path: Path, sparsity: float) -> None:
    with raises_line(BadOptionError, f"pretrained='{tmp_path}'", "config.json"):
        PrunedHFLM(pretrained=str(tmp_path), sparsity=sparsity, device="cpu")


def test_a_folder_without_weights_is_one_line(tmp_path: Path) -> None:
    tiny.model().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with raises_line(BadOptionError, f"pretrained='{tmp_path}'", "model.safetensors"):
        PrunedHFLM(pretrained=str(tmp_path), sparsity=0.5, pruner="magnitude", device="cpu")


def test_a_name_that_the_hub_does_not_have_is_one_line_with_the_nearest_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # the variable is read once
    with raises_line(BadOptionError, "pretrained='lab-mm'", "Did you mean 'lab-m'?"):
        PrunedHFLM(pretrained="lab-mm", sparsity=0.5, device="cpu")


@pytest.fixture(scope="module")
def manager() -> TaskManager:
    registration.register()
    return TaskManager(include_path=str(ROOT / "task_configs"), include_defaults=False)


class TestTasks:
    @pytest.mark.parametrize("words", [["--model", "pruned-hf"], ["--model=pruned-hf"]])
    def test_an_unknown_task_is_one_line(self, manager: TaskManager, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", ["/bin/lm_eval", *words, "--tasks", "icl_linaer"])
        with raises_line(UnknownNameError, "'icl_linaer'", "Did you mean 'icl_linear'?", "lm_eval ls tasks"):
            manager.match_tasks(["icl_linaer"])
        assert manager.match_tasks(["icl_linear"]) == ["icl_linear"]

    @pytest.mark.parametrize("argv", [["/bin/lm_eval", "--model", "hf"], ["python", "--model", "pruned-hf"]])
    def test_other_runs_keep_what_lm_eval_says(self, manager: TaskManager, monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", argv)
        assert manager.match_tasks(["icl_linaer"]) == []
