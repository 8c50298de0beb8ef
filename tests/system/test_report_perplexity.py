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


def write(
    folder: Path,
    sparsity: str,
    value: float,
    seed: int | None = None,
    *,
    stamp: int = 0,
    text: str = "d1",
    name: str = "a.txt",
    tokens: str | None = None,
    **options: Any,
) -> None:
    """Results with a task and the perplexity of a text, as a sweep with ``--perplexity`` records it."""
    file = write_plain(
        folder, {"icl_linear": RIGHT}, sparsity, stamp=f"2026-01-0{1 + (seed or 0)}T0{stamp}-0{sparsity[-1]}-00", seed=seed, **options
    )
    results = json.loads(file.read_text(encoding="utf-8"))
    metadata = {"version": 1, "text": name, "text_digest": text, "window": 2048, "bos": "text"}
    results["results"]["perplexity"] = {"alias": "perplexity", "token_perplexity,none": value, "token_perplexity_stderr,none": 0.1}
    results["configs"]["perplexity"] = {"task": "perplexity", "metadata": metadata}
    results["versions"]["perplexity"] = 1
    results |= {"perplexity": {"tokens_digest": tokens}} if tokens else {}
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
    assert by_sparsity["0.5"]["identity"] != by_sparsity["0"]["identity"]


def test_sweeps_with_different_texts_are_one_report(tmp_path: Path) -> None:
    """The dense model is in both, with a perplexity of each text."""
    for number, text in enumerate(("one", "two")):
        write(tmp_path / text, "0", 10.0 + number, stamp=number, text=text)
        write(tmp_path / text, "0.5", 20.0 + number, stamp=number, text=text)
    done = report([tmp_path / "one", tmp_path / "two"], tmp_path / "out", resamples=100)
    found = {(row["sparsity"], row["identity"].split()[0]): row["times_dense"] for row in rows(tmp_path / "out", "perplexity")}
    assert found == {("0", "one"): "1.0", ("0", "two"): "1.0", ("0.5", "one"): "2.0", ("0.5", "two"): str(21 / 11)}
    page = done.page.read_text(encoding="utf-8")
    assert all(f"a.txt, windows of 2048 tokens ({number} of 2)" in page for number in (1, 2))


def test_the_path_to_a_text_and_rounding_do_not_matter(tmp_path: Path) -> None:
    write(tmp_path / "run", "0", 10.0, name="a.txt")
    write(tmp_path / "again", "0", 10.0000001, stamp=1, name="./a.txt")
    report([tmp_path / "run", tmp_path / "again"], tmp_path / "out", resamples=100)
    assert len(rows(tmp_path / "out", "perplexity")) == 1


def test_other_tokens_of_one_text_do_not_compare(tmp_path: Path) -> None:
    write(tmp_path / "run", "0", 10.0, tokens="t1")
    write(tmp_path / "run", "0.5", 40.0, tokens="t2")
    report([tmp_path / "run"], tmp_path / "out", resamples=100)
    assert [row["times_dense"] for row in rows(tmp_path / "out", "perplexity") if row["sparsity"] == "0.5"] == [""]


@pytest.mark.parametrize("name", ["p$x_{$.txt", "$5_vs_$6 100%.txt", "a\x01b.txt", "a\udcffb.txt", "x" * 300, "<b>.txt"])
def test_any_name_of_a_text_can_be_drawn(tmp_path: Path, name: str) -> None:
    write(tmp_path / "run", "0", 10.0, name=name)
    write(tmp_path / "run", "0.5", 20.0, name=name)
    done = report([tmp_path / "run"], tmp_path / "out", resamples=100)
    assert (tmp_path / "out" / "perplexity.svg").stat().st_size > 1000
    assert "<b>.txt" not in done.page.read_text(encoding="utf-8")


def test_a_line_ends_where_one_seed_is_infinite(tmp_path: Path) -> None:
    write(tmp_path / "run", "0", 10.0)
    for sparsity, of_second in (("0.3", 12.0), ("0.5", float("inf")), ("0.7", 30.0)):
        write(tmp_path / "run", sparsity, 12.0, seed=0)
        write(tmp_path / "run", sparsity, of_second, seed=1)
    done = report([tmp_path / "run"], tmp_path / "out", resamples=100)
    said = places(done.page, "perplexity")
    assert any("at 0.3: 12.0" in point for point in said)
    assert any("at 0.7: 21.0" in point for point in said)
    assert not any("at 0.5" in point for point in said)


def test_results_with_perplexities_alone_are_a_report(tmp_path: Path) -> None:
    for sparsity, value in (("0", 10.0), ("0.5", 20.0)):
        write(tmp_path / "run", sparsity, value)
    for file in (tmp_path / "run").glob("results_*.json"):
        results = json.loads(file.read_text(encoding="utf-8"))
        results["results"].pop("icl_linear")
        file.write_text(json.dumps(results), encoding="utf-8")
    done = report([tmp_path / "run"], tmp_path / "out", resamples=100)
    assert len(rows(tmp_path / "out", "perplexity")) == 2
    assert "<h1>2 perplexities were read" in done.page.read_text(encoding="utf-8")
    assert any("at 0.5: 20.0" in said for said in places(done.page, "perplexity"))


@pytest.mark.parametrize("value", [0, -20.0, 1.7e308, 10**400])
def test_a_value_that_is_no_perplexity_is_told(tmp_path: Path, value: float) -> None:
    write(tmp_path / "run", "0", value)
    write(tmp_path / "run", "0.5", 20.0)
    done = report([tmp_path / "run"], tmp_path / "out", resamples=100)
    assert any("not in the figure of perplexities" in gap for gap in done.gaps)
    assert [row["times_dense"] for row in rows(tmp_path / "out", "perplexity") if row["sparsity"] == "0.5"] == [""]


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
    done = report([tmp_path / "run", tmp_path / "more"], tmp_path / "out", resamples=100)
    assert [float(row["times_dense"]) for row in rows(tmp_path / "out", "perplexity") if row["bits"]] == [1.5]
    assert any("which is over sparsities" in gap and "rtn" in gap for gap in done.gaps)


def test_a_score_that_no_task_has_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    write_plain(tmp_path / "run", {"icl_linear": RIGHT}, stamp="2026-01-01T00-00-00")
    with pytest.raises(ReportError, match=r"accc.*acc.*Did you mean 'acc'"):
        report([tmp_path / "run"], tmp_path / "out", metrics=["accc"], resamples=100)
