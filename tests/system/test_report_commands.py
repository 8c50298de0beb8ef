"""The command that a report gives for a result gives the same numbers."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import harness_run
import pytest
import tiny

from harness_ext.report.reading import read

ARGUMENTS = harness_run.PRUNED | harness_run.SMALL
CHAT = ("--apply_chat_template", "--num_fewshot", 1, "--fewshot_as_multiturn", "false", "--system_instruction", 'x y\'s "z"')
FLAGS = {
    "chat": CHAT,
    "metadata": ("--metadata", '{"note": "a b, c=d", "count": 3}', "--num_fewshot", 2),
    "generation": ("--gen_kwargs", 'max_gen_toks=2,until=["b", "c d"]', "--limit", 0.5),
    "seeds": ("--seed", "5,6,7,8", "--num_fewshot", 1),
    "no score": ("--predict_only", "--limit", 2),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a place")
    harness_run.write_tasks(folder / "tasks")
    tiny.model().save_pretrained(folder / "dense")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = harness_run.CHAT_TEMPLATE
    tokenizer.save_pretrained(folder / "dense")
    return folder


def run(place: Path, out: Path, *flags: object) -> dict[str, Any]:
    arguments = json.dumps({"pretrained": str(place / "dense")} | ARGUMENTS)
    words = ["--model", "pruned-hf", "--model_args", arguments, "--tasks", ",".join(harness_run.TASKS)]
    return harness_run.command(place / "tasks", out, *words, *flags)


def command_in(folder: Path) -> str:
    (trial,), _ = read([folder])
    return trial.command


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_it_is_what_was_typed(place: Path, tmp_path: Path, flags: tuple[Any, ...]) -> None:
    first = run(place, tmp_path / "first", *flags)
    command = command_in(tmp_path / "first")
    assert "#" not in command
    again = harness_run.typed(tmp_path / "again", *shlex.split(command))
    assert again["results"] == first["results"]
    assert again["answers"] == first["answers"]
    assert again["task_hashes"] == first["task_hashes"]


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_without_a_record_of_the_command_it_is_made_from_the_results_and_says_what_it_lacks(
    place: Path, tmp_path: Path, flags: tuple[Any, ...]
) -> None:
    first = run(place, tmp_path / "first", *flags)
    (file,) = (tmp_path / "first").rglob("results_*.json")
    results = json.loads(file.read_text())
    del results["config"]["command"]
    file.write_text(json.dumps(results))
    command = command_in(tmp_path / "first")
    assert "lacks --include_path" in command
    assert ("name of the chat template" in command) == ("--apply_chat_template" in flags)
    again = harness_run.typed(tmp_path / "again", *shlex.split(command, comments=True), "--include_path", place / "tasks")
    assert again["results"] == first["results"]
    assert again["answers"] == first["answers"]
    assert again["task_hashes"] == first["task_hashes"]


def test_items_that_were_chosen_one_by_one_are_missed(place: Path, tmp_path: Path) -> None:
    run(place, tmp_path / "first", "--samples", json.dumps({task: [0, 2] for task in harness_run.TASKS}))
    assert shlex.split(command_in(tmp_path / "first")).count("--samples") == 1
    (file,) = (tmp_path / "first").rglob("results_*.json")
    results = json.loads(file.read_text())
    del results["config"]["command"]
    file.write_text(json.dumps(results))
    assert "--samples" in command_in(tmp_path / "first").partition("#")[2]


def test_a_batch_size_that_nobody_typed_is_not_typed(place: Path, tmp_path: Path) -> None:
    """lm-eval records 1, and ``pruned-hf`` chose another."""
    words = ["lm_eval", "--model", "pruned-hf", "--model_args", json.dumps({"pretrained": str(place / "dense")})]
    words += ["--tasks", "tiny_choice", "--include_path", str(place / "tasks")]
    harness_run.typed(tmp_path / "first", *words)
    (file,) = (tmp_path / "first").rglob("results_*.json")
    results = json.loads(file.read_text())
    assert "--batch_size" not in results["config"].pop("command")
    assert results["config"]["batch_size"] == 1
    file.write_text(json.dumps(results))
    assert "--batch_size" not in command_in(tmp_path / "first")
