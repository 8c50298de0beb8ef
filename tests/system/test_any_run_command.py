"""lm-eval's command line with ``pruned-hf``, its files and its loggers, and with what ``harness-ext prune`` writes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness_run
import pytest
import tiny
import yaml
from typer.testing import CliRunner

from harness_ext import BadOptionError
from harness_ext.commands.cli import app
from harness_ext.host.model import PrunedHFLM

PRUNED = harness_run.PRUNED | harness_run.SMALL
TASKS = ("--tasks", ",".join(harness_run.TASKS))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model, what ``harness-ext prune`` makes of it, and tasks."""
    folder = tmp_path_factory.mktemp("command")
    harness_run.write_tasks(folder / "tasks")
    tiny.model().save_pretrained(folder / "dense")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = harness_run.CHAT_TEMPLATE
    tokenizer.save_pretrained(folder / "dense")
    options = [word for name, value in harness_run.SMALL.items() for word in ("-o", f"{name}={value}")]
    given = ["--pretrained", folder / "dense", "--out", folder / "pruned", "--pruner", "wanda", "--sparsity", 0.5, *options]
    done = CliRunner().invoke(app, ["prune", *map(str, given)])
    assert done.exit_code == 0, done.output
    return folder


def arguments(place: Path, **more: Any) -> dict[str, Any]:
    return {"pretrained": str(place / "dense")} | PRUNED | more


@pytest.fixture(scope="module")
def expected(place: Path) -> dict[str, Any]:
    """The answers of ``pruned-hf``, built in Python."""
    return harness_run.outcome(place / "tasks", PrunedHFLM(device="cpu", batch_size=4, **arguments(place)))["answers"]


@pytest.mark.slow
def test_what_harness_ext_prune_writes_has_the_same_scores_with_the_stock_hf_command(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stock = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={place / 'pruned'}", "--batch_size", "4"]
    stock += [*TASKS, "--device", "cpu", "--include_path", str(place / "tasks"), "--output_path", str(out), "--log_samples"]
    done = subprocess.run(stock, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    theirs = harness_run.written(out)
    ours = harness_run.command(
        place / "tasks", tmp_path / "ours", "--model", "pruned-hf", "--model_args", json.dumps(arguments(place)), *TASKS
    )
    assert theirs["answers"] == ours["answers"]
    assert theirs["results"] == ours["results"]
    assert (theirs["config"]["model"], ours["config"]["pruning"]["achieved_sparsity"]) == ("hf", 0.5)


@pytest.mark.parametrize(
    "form", [json.dumps, lambda given: ",".join(f"{name}={value}" for name, value in given.items())], ids=["JSON", "text"]
)
def test_model_args_may_be_json_or_text(place: Path, tmp_path: Path, expected: dict[str, Any], form: Any) -> None:
    found = harness_run.command(place / "tasks", tmp_path, "--model", "pruned-hf", "--model_args", form(arguments(place)), *TASKS)
    assert found["answers"] == expected
    assert found["config"]["model_args"] == arguments(place)


class TestConfigFile:
    """``--config``."""

    def write(self, place: Path, tmp_path: Path, **more: Any) -> Path:
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump({"model": "pruned-hf", "tasks": harness_run.TASKS, "model_args": arguments(place, **more)}))
        return file

    def test_is_the_run_that_it_describes(self, place: Path, tmp_path: Path, expected: dict[str, Any]) -> None:
        assert harness_run.command(place / "tasks", tmp_path / "out", "--config", self.write(place, tmp_path))["answers"] == expected

    def test_a_quoted_pattern_is_one(self, place: Path, tmp_path: Path) -> None:
        found = harness_run.command(place / "tasks", tmp_path / "out", "--config", self.write(place, tmp_path, sparsity="2:4"))
        assert found["config"]["pruning"]["plan"]["sparsity"] == "2:4"

    def test_an_unquoted_pattern_is_refused_and_explained(self, place: Path, tmp_path: Path) -> None:
        file = self.write(place, tmp_path)
        file.write_text(file.read_text().replace("sparsity: 0.5", "sparsity: 2:4"))
        with pytest.raises(BadOptionError, match="YAML reads an unquoted 2:4 as the base-60 number 124: quote it"):
            harness_run.command(place / "tasks", tmp_path / "out", "--config", file)


@pytest.mark.parametrize(
    "flags",
    [
        ("--apply_chat_template", "--num_fewshot", 1, "--fewshot_as_multiturn", "true", "--system_instruction", "x y z"),
        ("--predict_only", "--limit", 2),
        ("--gen_kwargs", "max_gen_toks=2"),
    ],
    ids=lambda flags: flags[0],
)
def test_flags_of_the_command_act_as_with_hf_on_the_pruned_model(
    place: Path, tmp_path: Path, flags: tuple[Any, ...], expected: Any
) -> None:
    model_args = {"pruned-hf": arguments(place, share_prompts=False), "hf": {"pretrained": str(place / "pruned")}}
    ours, theirs = (
        harness_run.command(
            place / "tasks", tmp_path / model, "--model", model, "--model_args", json.dumps(model_args[model]), *TASKS, *flags
        )
        for model in ("pruned-hf", "hf")
    )
    assert ours["results"] == theirs["results"]
    assert ours["answers"] == theirs["answers"]
    assert ours["answers"] != expected


class Recorded:
    """Stands in for the ``wandb`` library: takes note of what lm-eval's ``WandbLogger`` sends."""

    __version__ = "0.31.0"

    def __init__(self) -> None:
        self.run = None
        self.settings: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.logged: dict[str, Any] = {}
        self.files: dict[str, io.StringIO] = {}
        self.finished = False

    def init(self, **settings: Any) -> Any:
        self.settings = settings
        artifact = lambda artifact: self.files.update(artifact.files)  # noqa: E731 - one line among others
        config = types.SimpleNamespace(update=lambda values, **_: self.config.update(values))
        return types.SimpleNamespace(
            config=config,
            summary=self.summary,
            log=lambda values, **_: self.logged.update(values),
            log_artifact=artifact,
            finish=self.finish,
        )

    def finish(self) -> None:
        self.finished = True

    class Table:
        def __init__(self, columns: list[str]) -> None:
            self.columns, self.rows = columns, []

        def add_data(self, *row: Any) -> None:
            self.rows.append(row)

    class Artifact:
        def __init__(self, name: str, type: str) -> None:
            self.files: dict[str, io.StringIO] = {}

        @contextlib.contextmanager
        def new_file(self, name: str, **_: Any) -> Iterator[io.StringIO]:
            self.files[name] = io.StringIO()
            yield self.files[name]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded()
    monkeypatch.setitem(sys.modules, "wandb", recorded)
    for name in ("wandb.sdk", "wandb.sdk.lib", "wandb.sdk.lib.printer"):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
    module.new_printer = lambda: None
    return recorded


def test_weights_and_biases_gets_scores_samples_and_the_pruning_record(place: Path, tmp_path: Path, wandb: Recorded) -> None:
    flags = ("--wandb_args", "project=pruning,mode=offline", *TASKS)
    found = harness_run.command(place / "tasks", tmp_path, "--model", "pruned-hf", "--model_args", json.dumps(arguments(place)), *flags)
    assert wandb.settings == {"project": "pruning", "mode": "offline"}
    assert wandb.config["cli_configs"]["pruning"] == found["config"]["pruning"]
    assert wandb.logged["tiny_choice/acc"] == found["results"]["tiny_choice"]["acc,none"]
    assert {row[0] for row in wandb.logged["evaluation/eval_results"].rows} == set(harness_run.TASKS)
    assert json.loads(wandb.files["results.json"].getvalue())["config"]["pruning"] == found["config"]["pruning"]
    for task in harness_run.TASKS:
        assert len(wandb.logged[f"{task}_eval_results"]) == 4
        assert harness_run.answers(json.loads(wandb.files[f"{task}_eval_samples.json"].getvalue())) == found["answers"][task]
    assert wandb.finished
