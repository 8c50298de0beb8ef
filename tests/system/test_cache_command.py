"""``harness-ext cache``, and the options that turn the cache off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from typer.testing import CliRunner

from harness_ext.commands.cli import app
from harness_ext.engine.calibration_cache import VARIABLE, entries, folder
from harness_ext.sweep import load


def invoke(*words: object) -> str:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def dense(tmp_path: Path) -> str:
    return tiny.checkpoint(tmp_path / "dense")


PRUNING = ("--pruner", "wanda", "--sparsity", "0.5", "-o", "calibration.samples=4", "-o", "calibration.length=8")


def pruned(dense: str, out: Path, *words: str) -> dict[str, Any]:
    invoke("prune", "--pretrained", dense, "--out", out, *PRUNING, *words)
    return dict(json.loads((out / "pruning.json").read_text()))


def test_lists_what_is_kept_and_clears_it(dense: str, tmp_path: Path) -> None:
    assert f"{folder()}: 0 sets" in invoke("cache")
    assert not pruned(dense, tmp_path / "one")["calibration_from_cache"]
    (entry,) = json.loads(invoke("cache", "--json"))["entries"]
    assert (entry["source"], entry["samples"], entry["length"]) == ("self", 4, 8)
    assert entry["bytes"] == next(folder().iterdir()).stat().st_size
    shown = invoke("cache")
    assert "self" in shown
    assert entry["date"][:10] in shown
    assert "1 deleted" in invoke("cache", "--clear")
    assert entries() == []


def test_a_second_run_reads_it_and_writes_the_same_model(dense: str, tmp_path: Path) -> None:
    records = [pruned(dense, tmp_path / name) for name in ("one", "two")]
    assert [record["calibration_from_cache"] for record in records] == [False, True]
    assert records[0]["fingerprint"] == records[1]["fingerprint"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


def test_a_run_without_it_leaves_nothing(dense: str, tmp_path: Path) -> None:
    assert not pruned(dense, tmp_path / "one", "--no-calibration-cache")["calibration_from_cache"]
    text = tmp_path / "text.txt"
    text.write_text("a b c d " * 99)
    invoke("perplexity", "--pretrained", dense, "--text", text, *PRUNING, "--no-calibration-cache")
    assert entries() == []


def test_trials_of_a_sweep_read_it_and_the_option_is_not_part_of_their_key(tmp_path: Path) -> None:
    words = ["--pretrained", "lab-xs", *PRUNING, "--tasks", "icl_linear", "--metadata", '{"icl_items": 8}', "--device", "cpu"]
    keys = []
    for name, more in (("without", ["--model_args", "calibration_cache=False"]), ("first", []), ("second", [])):
        invoke("sweep", *words, *more, "--out", tmp_path / name)
        record = next(record for record in load(tmp_path / name) if not record.is_dense)
        keys.append(record.key)
        assert record.pruning["calibration_from_cache"] == (name == "second")
    assert len(set(keys)) == 1


def test_a_damaged_file_is_listed_and_cleared(dense: str, tmp_path: Path) -> None:
    pruned(dense, tmp_path / "one")
    next(folder().iterdir()).write_bytes(b"")
    assert "damaged" in invoke("cache")
    assert "1 deleted" in invoke("cache", "--clear")


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    result = CliRunner().invoke(app, ["cache"])
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert "Permission denied" in line
