"""``harness-ext sweep``: what it prints, its exit code, and mistakes."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from sweeps import FIELDS, files
from typer.testing import CliRunner

from harness_ext.commands.cli import app
from harness_ext.sweep import load
from harness_ext.sweep import run as running
from harness_ext.sweep.dense import DenseModel


class TestCommand:
    def invoke(self, *words):
        return CliRunner().invoke(app, ["sweep", "--pretrained", "lab-xs", "--pruner", "magnitude", "--device", "cpu", *map(str, words)])

    def common(self, out):
        return ("--sparsity", "0.5", "--tasks", "icl_linear", "--metadata", json.dumps(FIELDS["metadata"]), "--out", out)

    def test_says_what_was_done(self, copy):
        result = self.invoke(*self.common(copy))
        assert result.exit_code == 0
        summary, following = result.stdout.splitlines()[-2:]
        assert summary == f"{copy}: 2 trials: 0 done, 2 done before, 0 failed"
        assert following == f"Next: harness-ext report {copy}"

    def test_shows_the_scores_of_its_trials_and_of_no_others(self, copy):
        result = self.invoke("--sparsity", "0.5", *self.common(copy)[2:], "--pruner", "random")
        table = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in result.stdout.splitlines() if line.count("│") == 3}
        assert table == {trial: f"{value:.4f}" for trial, value in self.scores(copy).items()}
        assert list(table) == ["lab-xs dense", "lab-xs magnitude 0.5", "lab-xs random 0.5"]
        again = self.invoke(*self.common(copy))
        assert "random" not in again.stdout

    def scores(self, out):
        values = {(record.pruner, record.sparsity): record.results["results"]["icl_linear"]["acc,none"] for record in load(out)}
        return {f"lab-xs {pruner} {sparsity}" if pruner else "lab-xs dense": value for (pruner, sparsity), value in values.items()}

    def test_exits_with_1_if_a_trial_failed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(running, "attempt", lambda *given: 1 / 0)
        result = self.invoke(*self.common(tmp_path))
        assert result.exit_code == 1
        assert "2 failed\nfailed: lab-xs dense and 1 more: ZeroDivisionError: division by zero\n" in result.stdout

    def test_exits_with_1_if_a_trial_ran_out_of_memory_and_does_the_others(self, tmp_path, monkeypatch):
        original = DenseModel.prune

        def prune(self, plan):
            if plan.sparsity.ratio:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return original(self, plan)

        monkeypatch.setattr(DenseModel, "prune", prune)
        result = self.invoke(*self.common(tmp_path))
        assert result.exit_code == 1
        summary, failed, _ = result.stdout.splitlines()[-3:]
        assert summary == f"{tmp_path}: 2 trials: 1 done, 0 done before, 1 failed"
        assert failed == "failed: lab-xs magnitude 0.5: OutOfMemoryError: CUDA out of memory"

    @pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
    def test_a_folder_that_cannot_be_written_is_one_line(self, tmp_path, monkeypatch, code):
        original = Path.mkdir

        def refuse(path, *given, **named):
            if path.name == "trials":
                raise OSError(code, os.strerror(code))
            original(path, *given, **named)

        monkeypatch.setattr(Path, "mkdir", refuse)
        result = self.invoke(*self.common(tmp_path / "out"))
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.splitlines()[-1] == f"WriteError: {tmp_path / 'out'}: cannot be written: {os.strerror(code)}"

    def test_a_dry_run_prints_the_trials_and_writes_nothing(self, done, tmp_path, monkeypatch):
        monkeypatch.setattr(running, "DenseModel", None)
        before = files(done)
        result = self.invoke(*self.common(tmp_path / "none"), "--dry-run")
        assert result.exit_code == 0
        assert "2 trials" in result.stdout
        assert "lab-xs magnitude 0.5" in result.stdout
        assert "by a short measurement of the model's speed" in result.stdout
        assert not (tmp_path / "none").exists()
        result = self.invoke("--sparsity", "0.5,0.7", *self.common(done)[2:], "--dry-run")
        rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
        assert [(trial, finished) for trial, _, _, finished in rows] == [
            ("lab-xs dense", "yes"), ("lab-xs magnitude 0.5", "yes"), ("lab-xs magnitude 0.7", ""),
        ]  # fmt: skip
        assert f"for 1 trials, by the finished trials in {done}" in result.stdout
        assert files(done) == before
        result = self.invoke(*self.common(done), "--dry-run")
        assert "All are done." in result.stdout

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--sparsity", "0.5", "--tasks", "icl_liner"], "UnknownNameError: no task named 'icl_liner'. Did you mean 'icl_linear'"),
            (["--sparsity", "0.5", "--tasks", "icl_linear", "--metadata", '{"icl_item": 8}'], "icl_items"),
            (["--sparsity", "0.5", "--tasks", "icl_linear", "--pretrained", "lab-xss"], "Did you mean 'lab-xs'"),
            (["--sparsity", "0,5", "--tasks", "icl_linear"], "sparsity"),
            (["--sparsity", "0.5;0.6", "--tasks", "icl_linear"], "BadOptionError: --sparsity '0.5;0.6': want a ratio such as 0.5"),
            (["--sparsity", "0.5,0.50", "--tasks", "icl_linear"], "BadOptionError: --sparsity: 0.5 is given twice"),
            (["--sparsity", "", "--tasks", "icl_linear"], "BadOptionError: --sparsity '': want a ratio such as 0.5"),
            (["--sparsity", "0.5", "--tasks", ""], "BadOptionError: --tasks: an empty name"),
            (["--sparsity", "0.5", "--tasks", "icl_linear", "--pruner", "magnitude"], "BadOptionError: --pruner: magnitude is given twice"),
            (["--tasks", "icl_linear"], "--sparsity: nothing given"),
            (["--sparsity", "0.5", "--tasks", "icl_linear", "--engine", "rai"], "want local or ray"),
            (["--sparsity", "0.5", "--tasks", "icl_linear", "--address", "auto"], "goes with --engine ray"),
            (["--sparsity", "0.5", "--tasks", "icl_linear", "--include-path", "/none"], "no such folder"),
        ],
    )
    def test_a_mistake_is_one_line_and_no_weight_is_loaded(self, tmp_path, monkeypatch, words, says):
        monkeypatch.setattr(running, "DenseModel", None)
        result = self.invoke(*words, "--out", tmp_path / "out")
        assert result.exit_code == 1
        assert says in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()

    def test_wants_a_folder(self):
        assert "--out: nothing given" in self.invoke("--sparsity", "0.5", "--tasks", "icl_linear").stderr

    def test_the_command_line_overrides_the_file(self, copy, tmp_path):
        config = tmp_path / "sweep.yaml"
        config.write_text(f"sparsity: [2:4]\ntasks: icl_linear\nmetadata: {{icl_items: 8}}\nout: {copy}\n")
        result = self.invoke("--config", config, "--sparsity", "0.5")
        assert "0 done, 2 done before" in result.stdout


def test_the_display_counts_down_and_holds_the_bars_of_others(monkeypatch, capsys):
    import io

    from rich.console import Console
    from rich.progress import Progress

    from harness_ext.engine import terminal
    from harness_ext.sweep.display import Display, clock

    display = Display({"a": 1.0, "b": 3.0})
    assert clock(display.left()) == "-:--:--"
    display._began = time.monotonic() - 10
    display.end("a")
    assert 29 < (display.left() or 0) < 32
    assert clock(3723.9) == "1:02:03"
    text = io.StringIO()
    with Progress(console=Console(file=text, force_terminal=True)) as bar, terminal.nested(bar):
        with terminal.progress("inner", 2) as advance:
            advance()
            assert [task.description for task in bar.tasks] == ["inner"]
        assert bar.tasks == []
    assert "inner" in text.getvalue()
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_standard_error_has_the_log_alone_where_there_is_no_terminal_and_no_git(copy, tmp_path):
    code = "from harness_ext.commands.cli import app; app()"
    command = [sys.executable, "-c", code, "sweep", "--pretrained", "lab-xs", "--pruner", "magnitude", "--device", "cpu"]
    command += ["--sparsity", "0.25", "--tasks", "icl_linear", "--metadata", json.dumps(FIELDS["metadata"]), "--out", str(copy)]
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment)
    assert "magnitude: sparsity 0.25 asked, 0.2500 achieved" in done.stderr
    assert "fatal" not in done.stderr
    assert re.search(r"trial 1 of 1 \(-:--:-- left\): .*magnitude.*0\.25", done.stderr)
    assert re.search(r"scoring answers: \d+ steps", done.stderr)
    summary, following = done.stdout.splitlines()[-2:]
    assert summary == f"{copy}: 2 trials: 1 done, 1 done before, 0 failed; 1 more in this folder are of other settings"
    assert following == f"Next: harness-ext report {copy}"
