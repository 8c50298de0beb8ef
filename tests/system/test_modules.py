"""``modules`` with exclusions, given to ``lm_eval``, ``harness-ext prune`` and ``harness-ext sweep``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import harness_run
import pytest
import tiny
from typer.testing import CliRunner

from harness_ext.commands.cli import app
from harness_ext.sweep import load
from harness_ext.sweep.fields import sweep_from

CHOICE = "all+!model.layers.0.*+!model.layers.3.*"
NAMES = {f"model.layers.{block}.{name}" for block in (1, 2) for name in tiny.LINEAR_LAYERS["llama"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modules")
    harness_run.write_tasks(folder / "tasks")
    tiny.model(layers=4).save_pretrained(folder / "dense")
    tiny.tokenizer().save_pretrained(folder / "dense")
    return folder


def test_lm_eval_takes_it_in_model_args(place: Path, tmp_path: Path) -> None:
    arguments = f"pretrained={place / 'dense'},pruner=magnitude,sparsity=0.5,modules={CHOICE}"
    words = ["--model", "pruned-hf", "--model_args", arguments, "--tasks", ",".join(harness_run.TASKS)]
    harness_run.command(place / "tasks", tmp_path / "out", *words)
    (file,) = (tmp_path / "out").rglob("results_*.json")
    pruning = json.loads(file.read_text())["config"]["pruning"]
    assert set(pruning["layers"]) == NAMES
    assert pruning["plan"]["modules"] == CHOICE


def test_prune_takes_it_and_its_card_repeats_it(place: Path, tmp_path: Path) -> None:
    words = ["prune", "--pretrained", place / "dense", "--pruner", "magnitude", "--sparsity", "0.5", "--device", "cpu"]
    result = CliRunner().invoke(app, [*map(str, words), "--modules", CHOICE.replace("+", ","), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "pruning.json").read_text())
    assert set(record["layers"]) == NAMES
    assert f"--modules '{CHOICE}'" in (tmp_path / "out" / "README.md").read_text()


def test_a_sweep_takes_several(place: Path, tmp_path: Path) -> None:
    words = ["sweep", "--pretrained", place / "dense", "--pruner", "magnitude", "--sparsity", "0.5", "--device", "cpu", "--batch_size", "4"]
    words += ["--tasks", ",".join(harness_run.TASKS), "--include_path", place / "tasks", "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, [*map(str, words), "--modules", "attention", "--modules", CHOICE.replace("+", ",")])
    assert result.exit_code == 0, result.output
    records = {record.modules: record for record in load(tmp_path / "out")}
    assert set(records) == {None, "attention", CHOICE}
    assert set(records[CHOICE].pruning["layers"]) == NAMES
    again = harness_run.typed(tmp_path / "again", *shlex.split(records[CHOICE].command))
    assert again["results"] == records[CHOICE].results["results"]


@pytest.mark.parametrize(
    ("typed", "found"),
    {
        "attention,ffn": ("attention", "ffn"),
        "all, !model.layers.0.*": ("all+!model.layers.0.*",),
        "all,!a.*,!b.*,ffn,!c.*": ("all+!a.*+!b.*", "ffn+!c.*"),
        "*.q_proj+*.k_proj,all": ("*.q_proj+*.k_proj", "all"),
    }.items(),
)
def test_an_exclusion_belongs_to_what_stands_before_it(typed: str, found: tuple[str, ...]) -> None:
    fields = {"pretrained": ["lab-xs"], "sparsity": ["0.5"], "tasks": ["icl_linear"], "modules": typed}
    assert sweep_from(fields).modules == found
