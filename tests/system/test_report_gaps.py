"""What a report says where something cannot be computed, and what it refuses to put side by side."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from report_folders import RECALL, rows, sweep, write_plain, write_trial

from harness_ext.atomic import WriteError
from harness_ext.report import ReportError, report

pytestmark = pytest.mark.usefixtures("quick_figures")


def test_without_a_dense_trial_the_report_says_what_is_missing(tmp_path: Path) -> None:
    write_trial(tmp_path, {"lab_facts_closed": RECALL[0.3]}, "0.3")
    done = report([tmp_path], resamples=200)
    assert any("there is no dense trial" in gap and "cannot be computed" in gap for gap in done.gaps)
    assert rows(done.page.parent, "scores")[0]["retained"] == ""
    assert rows(done.page.parent, "critical") == []
    assert "there is no dense trial" in done.page.read_text(encoding="utf-8")


def test_without_samples_there_are_scores_and_no_paired_statistics(tmp_path: Path) -> None:
    for number, sparsity in enumerate((0.0, 0.3)):
        write_plain(tmp_path, {"lab_facts_closed": RECALL[sparsity]}, f"{sparsity:g}", stamp=str(number), logged=False)
    done = report([tmp_path], resamples=200)
    assert any("per-sample records are missing" in gap for gap in done.gaps)
    found = rows(done.page.parent, "scores")
    assert [float(row["score"]) for row in found] == [np.mean(RECALL[0.0]), np.mean(RECALL[0.3])]
    assert all(row["mcnemar_p"] == row["retained"] == row["right_to_wrong"] == "" for row in found)


def test_a_chance_that_is_not_declared_is_said_to_be_assumed(tmp_path: Path) -> None:
    for sparsity in (0.0, 0.3):
        write_trial(tmp_path, {"arc_easy": RECALL[sparsity]}, f"{sparsity:g}")
    done = report([tmp_path], resamples=200)
    assert any("chance is taken to be 0" in gap and "arc_easy" in gap for gap in done.gaps)
    assert "0 (assumed)" in done.page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"version": 2.0}, "version 1.0 and version 2.0"), ({"items": "others"}, "not the same items"), ({"chance": {}}, "chance 0.25 and 0")],
)
def test_results_that_cannot_be_compared_are_refused_in_one_line_that_names_both(tmp_path: Path, changed: dict, said: str) -> None:
    one = write_trial(tmp_path, {"lab_facts_closed": RECALL[0.0]})
    other = write_trial(tmp_path, {"lab_facts_closed": RECALL[0.3]}, "0.3", **changed)
    with pytest.raises(ReportError, match=said) as caught:
        report([tmp_path])
    assert "\n" not in str(caught.value)
    assert str(one) in str(caught.value)
    assert str(other) in str(caught.value)
    assert not (tmp_path / "report").exists()


def test_the_same_trial_twice_counts_once_and_is_refused_where_it_differs(tmp_path: Path) -> None:
    sweep(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert len(report([tmp_path / "one", tmp_path / "two"], resamples=200).analysis.trials) == 4
    write_trial(tmp_path / "three", {"lab_facts_closed": RECALL[0.6]}, "0.3")
    with pytest.raises(ReportError, match="two results of the same trial differ"):
        report([tmp_path / "one", tmp_path / "three"])


def test_patterns_are_in_the_table_and_not_in_curves(tmp_path: Path) -> None:
    sweep(tmp_path)
    write_trial(tmp_path, {"lab_facts_closed": RECALL[0.6]}, "2:4")
    done = report([tmp_path], resamples=200)
    assert any("N:M" in gap for gap in done.gaps)
    assert "2:4" in [row["sparsity"] for row in rows(done.page.parent, "scores")]
    assert "0.5" not in [row["sparsity"] for row in rows(done.page.parent, "curves")]


def test_results_of_two_limits_are_refused_until_one_of_them_is_chosen(tmp_path: Path) -> None:
    sweep(tmp_path)
    for sparsity, values in RECALL.items():
        write_trial(tmp_path, {"lab_facts_closed": values[:40]}, f"{sparsity:g}", limit=40, items="the first 40")
    with pytest.raises(ReportError, match=r"are not the same items: .*; take those of one --limit: (all or 40|40 or all)$") as caught:
        report([tmp_path], resamples=200)
    assert "\n" not in str(caught.value)
    for limit, count, task in (("all", 200, "icl_linear"), ("40", 40, "lab_facts_closed")):
        folder = report([tmp_path], limit=limit, resamples=200).page.parent
        assert {row["items"] for row in rows(folder, "scores")} == {str(count)}
        assert task in {row["task"] for row in rows(folder, "scores")}
        assert f"--limit {limit}" in (folder / "index.html").read_text(encoding="utf-8")
    there_are = "--limit 50: no results of that limit; there are 40 and all"
    for wrong, says in (("50", there_are), ("many", "--limit many: want all, or a number")):
        with pytest.raises(ReportError, match=says):
            report([tmp_path], limit=wrong)


def test_records_that_are_damaged_and_trials_that_failed_are_stated(tmp_path: Path) -> None:
    sweep(tmp_path)
    folder = write_trial(tmp_path, {"lab_facts_closed": RECALL[0.6]}, "0.7")
    (folder / "results.json").write_text("{}")
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / f"{0:016x}.json").write_text(json.dumps({"trial": "tiny magnitude 0.9", "error": "MemoryError: no memory"}))
    done = report([tmp_path], resamples=200)
    assert any(str(folder) in gap and "corrupt and left out: results.json does not have its checksum" in gap for gap in done.gaps)
    assert any("tiny magnitude 0.9 failed and has no results: MemoryError: no memory" in gap for gap in done.gaps)
    assert "0.7" not in {row["sparsity"] for row in rows(done.page.parent, "scores")}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/below: cannot be written: Not a directory$"):
        report([tmp_path / "run"], tmp_path / "file" / "below", resamples=200)
    original = Path.write_text

    def full(path: Path, *given: str, **named: str) -> int:
        if path.name == "scores.csv":
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, *given, **named)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(WriteError, match=r"out: cannot be written: No space left on device$"):
        report([tmp_path / "run"], tmp_path / "out", resamples=200)
