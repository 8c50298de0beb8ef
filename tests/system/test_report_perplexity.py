"""Perplexities in a report: a table and a figure beside the scores. They are no shares of right answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_folders import rows, write_plain
from test_report_axis import places

from harness_ext.report import ReportError, report

pytestmark = pytest.mark.usefixtures("quick_figures")

RIGHT = [1] * 60 + [0] * 40


def write(folder: Path, sparsity: str, value: float, seed: int | None = None, *, stamp: int = 0, text: str = "d1", **options: Any) -> None:
    """Results with a task and the perplexity of a text, as a sweep with ``--perplexity`` records it."""
    file = write_plain(
        folder, {"icl_linear": RIGHT}, sparsity, stamp=f"2026-01-0{1 + (seed or 0)}T0{stamp}-0{sparsity[-1]}-00", seed=seed, **options
    )
    results = json.loads(file.read_text(encoding="utf-8"))
    metadata = {"version": 1, "text": "a.txt", "text_digest": text, "window": 2048, "bos": "text"}
    results["results"]["perplexity"] = {"alias": "perplexity", "token_perplexity,none": value, "token_perplexity_stderr,none": 0.1}
    results["configs"]["perplexity"] = {"task": "perplexity", "metadata": metadata}
    results["versions"]["perplexity"] = 1
    file.write_text(json.dumps(results), encoding="utf-8")


def test_perplexities_are_in_the_table_and_in_the_figure(tmp_path: Path) -> None:
    write(tmp_path / "run", "0", 10.0)
    write(tmp_path / "run", "0.5", 18.0, seed=0)
    write(tmp_path / "run", "0.5", 22.0, seed=1)
    done = report([tmp_path / "run"], tmp_path / "out", resamples=100)
    table = {
        (row["sparsity"], row["seed"]): (float(row["perplexity"]), float(row["times_dense"]))
        for row in rows(tmp_path / "out", "perplexity")
    }
    assert table == {("0", ""): (10.0, 1.0), ("0.5", "0"): (18.0, 1.8), ("0.5", "1"): (22.0, 2.2)}
    assert any("at 0.5: 20.0" in said for said in places(done.page, "perplexity")), "the mean over seeds"
    assert (tmp_path / "out" / "perplexity.svg").is_file()
    assert "a.txt" in done.page.read_text(encoding="utf-8")
    assert not any("perplexity" in gap for gap in done.gaps)


def test_a_report_without_perplexities_has_neither(tmp_path: Path) -> None:
    write_plain(tmp_path / "run", {"icl_linear": RIGHT}, stamp="2026-01-01T00-00-00")
    report([tmp_path / "run"], tmp_path / "out", resamples=100)
    assert rows(tmp_path / "out", "perplexity") == []
    assert not (tmp_path / "out" / "perplexity.svg").exists()


def test_a_dense_model_is_compared_only_on_the_same_text(tmp_path: Path) -> None:
    write(tmp_path / "run", "0", 10.0)
    write(tmp_path / "run", "0.5", 40.0, seed=0, text="another")
    report([tmp_path / "run"], tmp_path / "out", resamples=100)
    by_sparsity = {row["sparsity"]: row for row in rows(tmp_path / "out", "perplexity")}
    assert by_sparsity["0.5"]["times_dense"] == ""
    assert by_sparsity["0.5"]["text"] != by_sparsity["0"]["text"]


def test_a_task_of_lm_eval_has_its_score_and_its_perplexity(tmp_path: Path) -> None:
    for sparsity, value in (("0", 5.0), ("0.5", 8.0)):
        file = write_plain(tmp_path / "run", {"lambada_openai": RIGHT}, sparsity, stamp=f"2026-01-01T00-0{sparsity[-1]}-00")
        results = json.loads(file.read_text(encoding="utf-8"))
        results["results"]["lambada_openai"]["perplexity,none"] = value
        results["results"]["wikitext"] = {"word_perplexity,none": 3 * value, "byte_perplexity,none": 1.5}
        results["configs"]["wikitext"] = {"metadata": {"version": 2.0}}
        file.write_text(json.dumps(results), encoding="utf-8")
    done = report([tmp_path / "run"], tmp_path / "out", resamples=100)
    found = {(row["task"], row["metric"], row["sparsity"]): float(row["perplexity"]) for row in rows(tmp_path / "out", "perplexity")}
    assert found == {
        ("lambada_openai", "perplexity", "0"): 5.0, ("lambada_openai", "perplexity", "0.5"): 8.0,
        ("wikitext", "word_perplexity", "0"): 15.0, ("wikitext", "word_perplexity", "0.5"): 24.0,
    }  # fmt: skip
    assert {row["task"] for row in rows(tmp_path / "out", "scores")} == {"lambada_openai"}
    assert not any("wikitext" in gap for gap in done.gaps)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_perplexity_that_is_no_finite_number_is_told_and_not_drawn(tmp_path: Path, value: float) -> None:
    write(tmp_path / "run", "0", 10.0)
    write(tmp_path / "run", "0.5", 20.0)
    write(tmp_path / "run", "0.9", value)
    done = report([tmp_path / "run"], tmp_path / "out", resamples=100)
    assert [row["perplexity"] for row in rows(tmp_path / "out", "perplexity")].count(str(value)) == 1
    assert any("perplexity" in gap and "0.9" in gap for gap in done.gaps)
    assert not any("at 0.9" in said for said in places(done.page, "perplexity"))


def test_two_perplexities_of_one_trial_that_differ_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "run", "0", 10.0)
    write(tmp_path / "again", "0", 10.5, stamp=1)
    with pytest.raises(ReportError, match=r"perplexity.*10\.5"):
        report([tmp_path / "run", tmp_path / "again"], tmp_path / "out", resamples=100)


def test_quantised_models_are_in_the_table(tmp_path: Path) -> None:
    write(tmp_path / "run", "0", 10.0)
    write(tmp_path / "more", "0", 15.0, bits=4, pruner="rtn", bits_of_model=1000)
    report([tmp_path / "run", tmp_path / "more"], tmp_path / "out", resamples=100)
    assert [float(row["times_dense"]) for row in rows(tmp_path / "out", "perplexity") if row["bits"]] == [1.5]


def test_a_score_that_no_task_has_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    write_plain(tmp_path / "run", {"icl_linear": RIGHT}, stamp="2026-01-01T00-00-00")
    with pytest.raises(ReportError, match=r"accc.*acc.*Did you mean 'acc'"):
        report([tmp_path / "run"], tmp_path / "out", metrics=["accc"], resamples=100)
