"""The fixed sentences of the tutorial are those that the program prints. Its numbers are from one machine, and are not compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from environment import ROOT
from pages import blocks
from report_folders import falling, write_trial
from typer.testing import CliRunner

from harness_ext.commands.cli import app
from harness_ext.sweep.run import Summary

LINES = [line for block in blocks(ROOT / "docs" / "tutorial.md") for line in block.code.splitlines()]
TASKS = ("lab_facts_closed", "kv_4", "icl_linear")


def starting(words: str) -> list[str]:
    found = [line for line in LINES if line.startswith(words)]
    assert found
    return found


def test_what_the_report_cannot_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scores = falling(128, 0.9, {0.3: 0.9, 0.5: 0.6, 0.7: 0.2})
    write_trial(Path("runs/first"), dict.fromkeys(TASKS, scores[0.0]))
    for pruner in ("sparsegpt", "magnitude"):
        for sparsity in (0.3, 0.5, 0.7):
            seed = 0 if pruner == "sparsegpt" else None
            write_trial(Path("runs/first"), dict.fromkeys(TASKS, scores[sparsity]), f"{sparsity:g}", pruner=pruner, seed=seed)
    ran = CliRunner().invoke(app, ["report", "runs/first", "--resamples", "200"])
    said = [line for line in ran.output.splitlines() if line.startswith("not computed: ")]
    assert [line for line in said if line in starting("not computed: ")] == starting("not computed: "), ran.output
    assert starting("runs/first/report/index.html")[0] in ran.output.splitlines()


def test_what_a_sweep_has_done() -> None:
    said = [str(Summary(Path("runs/first"), before=before, done=done)) for before, done in ((0, 11), (11, 6))]
    assert starting("runs/first: ") == said
