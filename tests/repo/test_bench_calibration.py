"""The benchmark of calibration texts, at a toy size."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import bench_calibration


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("Mia Bell lives in Rome. Where does Mia Bell live? " * 20)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_calibration.py", "--pretrained", "lab-xs", *map(str, words)])
    bench_calibration.main()


@pytest.mark.slow
def test_each_shape_and_seed_is_a_row(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    run(monkeypatch, "--shapes", "4x32,2x16", "--seeds", "0,1", "--text", text, "--window", 32, "--windows", 2, "--out", out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["shape"], row["seed"]) for row in rows] == [("2x16", 0), ("4x32", 0), ("2x16", 1), ("4x32", 1)]
    assert all(row["error"] > 0 and math.isfinite(row["perplexity"]) for row in rows)
    assert len({row["fingerprint"] for row in rows}) == 4  # each was pruned with tokens of its own
    printed = capsys.readouterr().out
    assert all(row["shape"] in printed for row in rows)


def test_a_file_takes_the_place_of_what_the_model_writes(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--shapes", "2x16", "--text", text, "--window", 32, "--windows", 2, "--out"
    run(monkeypatch, *words, tmp_path / "own.jsonl")
    run(monkeypatch, *words, tmp_path / "file.jsonl", "--calibration", text)
    own, file = (json.loads((tmp_path / f"{name}.jsonl").read_text()) for name in ("own", "file"))
    assert (own["calibration"], file["calibration"]) == ("self", str(text))
    assert own["fingerprint"] != file["fingerprint"]


def test_a_dense_model_has_no_error_and_the_printed_perplexity(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    run(monkeypatch, "--shapes", "2x16", "--sparsity", "0", "--text", text, "--window", 32, "--windows", 2, "--out", out)
    row = json.loads(out.read_text())
    assert row["error"] == 0
    assert f"dense: perplexity {row['perplexity']:.4f} on 2 windows of 32 tokens" in capsys.readouterr().out


def test_writing_is_timed_beside_generate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "--generation", "2x8")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["calibration=self", "model.generate"]
    assert all("tokens a CPU second" in line for line in lines)
