"""Perplexity as a command, and as a score of the trials of a sweep."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from refusals import raises_line
from sweeps import FIELDS, prepare, sweep
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from harness_ext import BadOptionError
from harness_ext.commands.cli import app
from harness_ext.engine.perplexity import ShortTextError
from harness_ext.report.run import report as write_report
from harness_ext.sweep import estimate, load, preview
from harness_ext.sweep.fields import read, sweep_from
from harness_ext.sweep.prepared import Checked
from harness_ext.sweep.probe import Speed
from harness_ext.sweep.scores import score
from harness_ext.tasks.corpora import TextError

CONTENT = " ".join("the quick brown fox jumps over the lazy dog 0123456789".replace(" ", "") * 3)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(CONTENT)
    return path


@pytest.fixture
def dense(tmp_path: Path) -> str:
    return tiny.checkpoint(tmp_path / "dense")


def expected(folder: Path | str, window: int) -> float:
    """By transformers' own loss, in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    ids = torch.tensor(tiny.tokenizer()(CONTENT)["input_ids"])
    cut = ids[: len(ids) // window * window].view(-1, window)
    with torch.inference_mode():
        return math.exp(sum(float(model(input_ids=part[None], labels=part[None]).loss) for part in cut) / len(cut))


class TestCommand:
    def run(self, *words: object) -> dict[str, Any]:
        result = CliRunner().invoke(app, ["perplexity", "--json", "--device", "cpu", *map(str, words)])
        assert result.exit_code == 0, result.output
        return dict(json.loads(result.stdout))

    def test_of_a_dense_model(self, dense: str, text: Path) -> None:
        found = self.run("--pretrained", dense, "--text", text, "--window", 16)
        assert found["token_perplexity"] == pytest.approx(expected(dense, 16), rel=1e-5)
        assert found["pruning"]["plan"]["sparsity"] == "0"

    def test_of_a_pruned_model_is_that_of_the_folder_that_prune_writes(self, dense: str, text: Path, tmp_path: Path) -> None:
        pruning = ["--pruner", "wanda", "--sparsity", 0.5, "-o", "calibration.samples=4", "-o", "calibration.length=8"]
        written = CliRunner().invoke(app, ["prune", "--pretrained", dense, "--out", str(tmp_path / "out"), *map(str, pruning)])
        assert written.exit_code == 0, written.output
        at_once = self.run("--pretrained", dense, "--text", text, *pruning)
        after = self.run("--pretrained", tmp_path / "out", "--text", text)
        assert at_once["losses"] == after["losses"]
        assert after["token_perplexity"] == pytest.approx(expected(tmp_path / "out", tiny.LONGEST), rel=1e-5)
        assert at_once["pruning"]["fingerprint"] in written.stdout
        assert at_once["losses"] != self.run("--pretrained", dense, "--text", text)["losses"]

    def test_prints_one_line(self, dense: str, text: Path) -> None:
        result = CliRunner().invoke(app, ["perplexity", "--pretrained", dense, "--text", str(text), "--window", "16", "--bos", "window"])
        (line,) = result.stdout.splitlines()
        for part in (dense, "perplexity", str(text), "windows of 16 tokens", "bos=window"):
            assert part in line

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--text", "none.txt"], "BadOptionError: text 'none.txt': no such file"),
            (["--text", "wikitext3"], "Did you mean 'wikitext2'?"),
            (["--window", "1"], "window=1: want at least 2 tokens"),
            (["--window", "33"], "window=33: the model takes at most 32"),
            (["--bos", "windows"], "Did you mean 'window'?"),
            (["--sparsity", "1.5"], "sparsity=1.5"),
            (["--sparsity", "0.5", "-o", "pruner.size=3"], "'size'"),
            (["--dtype", "float33"], "Did you mean 'float32'?"),
        ],
    )
    def test_a_mistake_is_one_line_before_weights_are_loaded(self, dense: str, text: Path, words: list[str], says: str) -> None:
        (Path(dense) / "model.safetensors").unlink()
        result = CliRunner().invoke(app, ["perplexity", "--pretrained", dense, "--text", str(text), *words])
        assert (result.exit_code, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert says in line

    def test_a_short_text_is_one_line_before_weights_are_loaded(self, dense: str, text: Path) -> None:
        (Path(dense) / "model.safetensors").unlink()
        text.write_text("a b c")
        result = CliRunner().invoke(app, ["perplexity", "--pretrained", dense, "--text", str(text)])
        (line,) = result.stderr.splitlines()
        assert "the text has 3 tokens, fewer than one window of 32" in line

    def test_a_model_without_a_tokenizer_is_one_line(self, tmp_path: Path, text: Path) -> None:
        tiny.model().save_pretrained(tmp_path / "bare")
        result = CliRunner().invoke(app, ["perplexity", "--pretrained", str(tmp_path / "bare"), "--text", str(text)])
        (line,) = result.stderr.splitlines()
        assert "no tokenizer" in line


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("perplexity")
    (folder / "text.txt").write_text("Mia Bell lives in Rome. Where does Mia Bell live? " * 40)
    assert sweep(folder / "out", perplexity=str(folder / "text.txt"), perplexity_window=32).done == 2
    return folder / "out"


class TestSweep:
    def test_each_trial_has_it_as_a_score_beside_its_tasks(self, out: Path) -> None:
        command = CliRunner().invoke(
            app,
            ["perplexity", "--json", "--pretrained", "lab-xs", "--text", str(out.parent / "text.txt"), "--window", "32", "--device", "cpu"],
        )
        of_dense = json.loads(command.stdout)
        by_pruner = {record.pruner: record for record in load(out)}
        for record in by_pruner.values():
            scores = record.results["results"]["perplexity"]
            assert scores["sample_len"] == of_dense["windows"]
            assert record.results["higher_is_better"]["perplexity"] == {"token_perplexity": False}
            assert score(record, "perplexity") == scores["token_perplexity,none"]
            assert record.seconds["perplexity"] >= 0
        assert score(by_pruner[None], "perplexity") == pytest.approx(of_dense["token_perplexity"], rel=1e-9)
        assert score(by_pruner["magnitude"], "perplexity") != score(by_pruner[None], "perplexity")
        assert len({record.items["perplexity"] for record in by_pruner.values()}) == 1

    def test_is_in_the_table(self, out: Path) -> None:
        rows = [line for line in (out / "results.csv").read_text().splitlines() if ",token_perplexity," in line]
        assert len(rows) == 2

    def test_the_tasks_score_as_without_it(self, out: Path, done: Path) -> None:
        for with_it, without in zip(load(out), load(done), strict=True):
            assert with_it.results["results"]["icl_linear"] == without.results["results"]["icl_linear"]
            assert with_it.samples("icl_linear") == without.samples("icl_linear")

    def test_text_and_protocol_are_part_of_the_key(self, tmp_path: Path) -> None:
        texts = [tmp_path / "a.txt", tmp_path / "b.txt"]
        for number, path in enumerate(texts):
            path.write_text(f"{number} who lives in Rome? " * 400)
        changes: list[dict[str, Any]] = [
            {}, {"perplexity": str(texts[0])}, {"perplexity": str(texts[1])}, {"perplexity": str(texts[0]), "perplexity_window": 32},
            {"perplexity": str(texts[0]), "perplexity_bos": "none"},
        ]  # fmt: skip
        keys = [prepare(**change).jobs[0].key for change in changes]
        assert len(set(keys)) == len(changes)
        texts[1].write_bytes(texts[0].read_bytes())
        assert prepare(perplexity=str(texts[1])).jobs[0].key == keys[1]

    def test_is_a_field_of_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "sweep.yaml"
        path.write_text("pretrained: lab-xs\nsparsity: 0.5\ntasks: icl_linear\nperplexity: text.txt\nperplexity_window: 64\n")
        fields = sweep_from(read(path))
        assert (fields.perplexity, fields.perplexity_window, fields.perplexity_bos) == ("text.txt", 64, "text")

    @pytest.mark.parametrize(
        ("fields", "kind", "says"),
        [
            ({"perplexity": "none.txt"}, BadOptionError, "no such file"),
            ({"perplexity_window": 32}, BadOptionError, "goes with --perplexity"),
            ({"perplexity": "{text}", "perplexity_window": 1}, BadOptionError, "window=1"),
            ({"perplexity": "{text}", "perplexity_window": 5000}, BadOptionError, "lab-xs"),
            ({"perplexity": "{text}", "perplexity_bos": "all"}, BadOptionError, "bos='all'"),
            ({"perplexity": "{short}"}, ShortTextError, "fewer than one window"),
            ({"perplexity": "{empty}"}, TextError, "empty"),
        ],
    )
    def test_a_mistake_is_one_line_before_weights_are_loaded(
        self, tmp_path: Path, text: Path, fields: dict[str, Any], kind: type[Exception], says: str
    ) -> None:
        short, empty = tmp_path / "short.txt", tmp_path / "empty.txt"
        short.write_text("a b")
        empty.write_text("")
        named = {
            name: value.format(text=text, short=short, empty=empty) if isinstance(value, str) else value for name, value in fields.items()
        }
        with raises_line(kind, says):
            prepare(**named)

    def test_the_command_takes_it(self, tmp_path: Path, text: Path) -> None:
        words = ["--pretrained", "lab-xs", "--pruner", "magnitude", "--sparsity", "0.5", "--tasks", "icl_linear", "--device", "cpu"]
        words += ["--metadata", json.dumps(FIELDS["metadata"]), "--perplexity", str(text), "--perplexity_window", "16"]
        result = CliRunner().invoke(app, ["sweep", *words, "--out", str(tmp_path / "out")])
        assert result.exit_code == 0, result.output
        assert "perplexity" in result.stdout


@pytest.fixture(scope="module")
def alone(out: Path) -> Path:
    folder = out.parent / "alone"
    done = sweep(folder, tasks=None, metadata=None, perplexity=str(out.parent / "text.txt"), perplexity_window=32)
    assert (done.done, done.failed) == (2, [])
    return folder


class TestWithoutTasks:
    def test_perplexities_are_those_of_a_sweep_with_tasks(self, alone: Path, out: Path) -> None:
        for without, with_tasks in zip(load(alone), load(out), strict=True):
            assert score(without, "perplexity") == score(with_tasks, "perplexity")
            assert without.fingerprint == with_tasks.fingerprint
            assert without.items == {"perplexity": with_tasks.items["perplexity"]}
            assert list(without.results["results"]) == ["perplexity"]

    def test_records_have_what_those_with_tasks_have(self, alone: Path, out: Path) -> None:
        for without, with_tasks in zip(load(alone), load(out), strict=True):
            assert set(without.results) == set(with_tasks.results)
            assert set(without.results["config"]) >= {"model", "model_args", "pruning", "command", "model_num_parameters"}
            assert not without.tasks

    def test_is_not_repeated(self, alone: Path, out: Path) -> None:
        again = sweep(alone, tasks=None, metadata=None, perplexity=str(out.parent / "text.txt"), perplexity_window=32)
        assert (again.done, again.before) == (0, 2)

    def test_is_in_the_table(self, alone: Path) -> None:
        assert (alone / "results.csv").read_text().count(",token_perplexity,") == 2

    def test_neither_tasks_nor_a_text_is_an_error(self) -> None:
        with raises_line(BadOptionError, "--tasks", "--perplexity"):
            sweep_from({name: value for name, value in FIELDS.items() if name != "tasks"})

    def test_the_command_takes_it(self, tmp_path: Path, text: Path) -> None:
        words = ["--pretrained", "lab-xs", "--pruner", "magnitude", "--sparsity", "0.5", "--device", "cpu", "--perplexity", str(text)]
        words += ["--perplexity_window", "16", "--out", str(tmp_path / "out")]
        dry = CliRunner().invoke(app, ["sweep", *words, "--dry-run"])
        assert dry.exit_code == 0, dry.output
        assert "windows of 16 tokens" in dry.stdout
        result = CliRunner().invoke(app, ["sweep", *words])
        assert result.exit_code == 0, result.output
        assert f"harness-ext report {tmp_path / 'out'}" in result.stdout

    def test_a_report_of_it_has_the_perplexities(self, alone: Path, tmp_path: Path) -> None:
        write_report([alone], tmp_path / "report")
        with (tmp_path / "report" / "perplexity.csv").open(newline="") as file:
            found = [float(row["perplexity"]) for row in csv.DictReader(file)]
        expected = [record.results["perplexity"]["token_perplexity"] for record in load(alone)]
        assert sorted(found) == pytest.approx(sorted(expected), rel=1e-12)


class TestCost:
    def test_a_text_costs_its_tokens(self, text: Path) -> None:
        plain, measured = prepare(), prepare(perplexity=str(text), perplexity_window=32)
        count, length = measured.windows["lab-xs"]
        parameters, _ = estimate.size(measured.skeleton("lab-xs"))
        assert length == 32
        for without, with_text in zip(plain.jobs, measured.jobs, strict=True):
            assert with_text.cost - without.cost == pytest.approx(parameters * count * length / 1e12)

    def test_the_dry_run_counts_it(self, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preview, "measure", lambda *_: Speed(token=1.0, step=0.0))
        plain = preview.preview(Checked(prepare().sweep), tmp_path / "none")
        measured = Checked(prepare(perplexity=str(text), perplexity_window=32).sweep)
        count, length = measured.windows["lab-xs"]
        for without, with_text in zip(plain.rows, preview.preview(measured, tmp_path / "none").rows, strict=True):
            assert with_text.seconds == pytest.approx(without.seconds + count * length)

    def test_the_speed_without_tasks_is_that_of_windows(self, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lengths = []
        monkeypatch.setattr(preview, "measure", lambda *arguments: lengths.append(arguments[-1]) or Speed(1.0, 0.0))
        preview.preview(Checked(sweep_from(FIELDS | {"tasks": None, "perplexity": str(text), "perplexity_window": 32})), tmp_path / "none")
        assert lengths == [32]
