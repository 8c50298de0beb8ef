"""The figure and the table of what is lost of recall: exact recall, recognition and recall@k."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_folders import rows, sweep, write_plain
from sweeps import sweep as run_sweep
from test_report_axis import places

from harness_ext.report import report

pytestmark = pytest.mark.usefixtures("quick_figures")

TASK = "lre_recall"
SCORES = {  # by sparsity: exact recall falls first, then recall@5, and recognition stays
    "0": {"exact_match": 0.8, "recall_at_1": 0.7, "recall_at_5": 0.9, "recall_at_10": 0.95, "median_rank": 1.0, "recovered": 0.0},
    "0.5": {"exact_match": 0.2, "recall_at_1": 0.3, "recall_at_5": 0.8, "recall_at_10": 0.9, "median_rank": 2.5, "recovered": 0.4},
}


def write(folder: Path, sparsity: str, seed: int | None = None, shift: float = 0.0, **options: object) -> None:
    recognised = [1] * 75 + [0] * 25
    file = write_plain(
        folder, {TASK: recognised}, sparsity, stamp=f"2026-01-0{1 + (seed or 0)}T00-0{sparsity[-1]}-00", chance={TASK: 0.0625}, seed=seed,
        metadata={TASK: {"ability": "recall"}}, **options,
    )  # fmt: skip
    results = json.loads(file.read_text(encoding="utf-8"))
    results["results"][TASK] |= {f"{name},none": value + (shift if value < 1 else 0) for name, value in SCORES[sparsity].items()}
    results["results"][TASK]["recall_at_5_stderr,none"] = 0.01
    file.write_text(json.dumps(results), encoding="utf-8")


def test_each_score_is_in_the_table_and_in_the_figure(tmp_path: Path) -> None:
    write(tmp_path / "run", "0")
    write(tmp_path / "run", "0.5", seed=0)
    write(tmp_path / "run", "0.5", seed=1, shift=0.1)
    done = report([tmp_path / "run"], tmp_path / "out", resamples=100)
    table = {(row["sparsity"], row["seed"]): row for row in rows(tmp_path / "out", "recall")}
    assert set(table) == {("0", ""), ("0.5", "0"), ("0.5", "1")}
    row = table["0.5", "0"]
    assert [float(row[name]) for name in ("exact", "recognition", "recall_at_5", "median_rank", "recovered", "recognition_chance")] == [
        0.2, 0.75, 0.8, 2.5, 0.4, 0.0625,
    ]  # fmt: skip
    texts = places(done.page, "recall")
    for said in ("exact: writes the answer at 0: 0.800", "exact: writes the answer at 0.5: 0.250", "recall@5 at 0.5: 0.850"):
        assert said in texts, "the mean over seeds"
    assert "recognition among the choices at 0.5: 0.750" in texts
    text = done.page.read_text(encoding="utf-8")
    assert "What is lost of recall" in text
    assert (tmp_path / "out" / "recall.svg").is_file()


def test_quantised_models_have_a_panel_by_bits(tmp_path: Path) -> None:
    write(tmp_path / "run", "0")
    write(tmp_path / "more", "0", bits=4, pruner="rtn", bits_of_model=1000)
    done = report([tmp_path / "run", tmp_path / "more"], tmp_path / "out", resamples=100)
    assert "exact: writes the answer at 4: 0.800" in places(done.page, "recall")
    assert {row["bits"] for row in rows(tmp_path / "out", "recall")} == {"", "4"}


def test_without_such_tasks_there_is_neither(tmp_path: Path) -> None:
    done = report([sweep(tmp_path / "run")], resamples=100)
    assert rows(done.page.parent, "recall") == []
    with pytest.raises(ValueError, match="substring not found"):
        places(done.page, "recall")


def test_the_chance_of_a_task_that_ranks_all_answers_is_that_of_its_choices(tmp_path: Path) -> None:
    """Its records hold the ranks of all answers of the relation, twice. Recognition is among the choices."""
    swept = {"pretrained": ["lab-xs"], "pruner": ["magnitude"], "sparsity": ["0", "0.5"], "tasks": ["lab_facts_recall"]}
    run_sweep(tmp_path / "run", metadata={"facts_items": 4}, **swept)
    done = report([tmp_path / "run"], tmp_path / "out", resamples=100)
    assert {row["recognition_chance"] for row in rows(tmp_path / "out", "recall")} == {"0.0625"}
    assert {row["chance"] for row in rows(tmp_path / "out", "scores")} == {"0.0625"}
    assert "declare a chance" not in done.page.read_text(encoding="utf-8")
