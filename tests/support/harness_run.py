"""Whole runs of lm-eval on a tiny task, and what of them is to be the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import lm_eval
import lm_eval.tasks.manager
from lm_eval._cli import HarnessCLI
from lm_eval.tasks import TaskManager

SMALL = {"calibration.samples": 3, "calibration.length": 8}
PRUNED = {"pruner": "wanda", "sparsity": 0.5}

PYTHON = """
import datasets

def load(**_):
    letters = "abcdefghijklmnopqrstuvwxyz"
    rows = [{"q": f"{letters[i]} {letters[i + 3]} : {letters[i + 1]}", "label": i % 2} for i in range(6)]
    return {"train": datasets.Dataset.from_list(rows[:2]), "test": datasets.Dataset.from_list(rows[2:])}
"""
COMMON = "custom_dataset: !function tiny_items.load\ntraining_split: train\ntest_split: test\ndoc_to_text: '{{q}}'\n"
CHOICE = COMMON + (
    "task: tiny_choice\noutput_type: multiple_choice\ndoc_to_choice: ['a b', 'c', '1 2 3']\ndoc_to_target: label\n"
    "metric_list: [{metric: acc}, {metric: acc_norm}]\n"
)
TEXT = COMMON + (
    "task: tiny_text\noutput_type: generate_until\ndoc_to_target: '{{label}}'\n"
    "generation_kwargs: {until: ['z'], max_gen_toks: 4}\nmetric_list: [{metric: exact_match}]\n"
)
TASKS = ["tiny_choice", "tiny_text"]

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role[0] }} : {{ message.content }} , {% endfor %}{% if add_generation_prompt %}a :{% endif %}"
)


def write_tasks(folder: Path) -> Path:
    """A task that scores choices and one that generates, two examples and four items each."""
    folder.mkdir()
    (folder / "tiny_items.py").write_text(PYTHON)
    (folder / "tiny_choice.yaml").write_text(CHOICE)
    (folder / "tiny_text.yaml").write_text(TEXT)
    return folder


def outcome(tasks: Path, model: Any, arguments: dict[str, Any] | str | None = None, **options: Any) -> dict[str, Any]:
    """Every score and every answer of a run through ``simple_evaluate``."""
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    options = {"tasks": TASKS, "task_manager": manager, "bootstrap_iters": 0} | options
    with without_environment():
        results = lm_eval.simple_evaluate(model=model, model_args=arguments, **options)
    return {"scores": results["results"], "answers": {task: answers(samples) for task, samples in results["samples"].items()}}


def answers(samples: list[dict[str, Any]]) -> list[Any]:
    """What was asked and answered, item by item, with numbers as text: so lm-eval writes them into files."""
    return sorted([sample["doc_id"], sample["prompt_hash"], _text(sample["resps"])] for sample in samples)


def _text(answer: Any) -> Any:
    return [_text(part) for part in answer] if isinstance(answer, list | tuple) else str(answer)


def command(tasks: Path, out: Path, *arguments: object) -> dict[str, Any]:
    """Runs lm-eval's command line in this process, without its own tasks, and returns what it wrote: results and answers by task."""
    return typed(out, "lm_eval", "run", *arguments, "--device", "cpu", "--batch_size", "4", "--include_path", tasks)


def typed(out: Path, *words: object) -> dict[str, Any]:
    """The same for a whole command line, without ``--output_path`` and ``--log_samples``."""
    (out / "empty").mkdir(parents=True)
    argv = [*map(str, words), "--output_path", str(out / "results"), "--log_samples"]
    nothing = mock.patch.object(lm_eval.tasks.manager, "__file__", str(out / "empty" / "manager.py"))
    with mock.patch.object(sys, "argv", argv), without_environment(), nothing:
        cli = HarnessCLI()
        cli.execute(cli.parse_args())
    return written(out / "results")


def written(folder: Path) -> dict[str, Any]:
    """The results file of a run, and the answers of its samples files by task."""
    (results,) = folder.rglob("results_*.json")
    found: dict[str, Any] = json.loads(results.read_text())
    found["answers"] = {}
    for file in folder.rglob("samples_*.jsonl"):
        task = next(task for task in TASKS if file.name.startswith(f"samples_{task}_"))
        found["answers"][task] = answers([json.loads(line) for line in file.read_text().splitlines()])
    return found


def without_environment() -> Any:
    """Leaves out of a run that lm-eval asks pip and the system what is installed, which takes most of the time of a small one."""
    return mock.patch("lm_eval.evaluator.add_env_info")
