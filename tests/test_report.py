"""``harness-ext report``: the numbers in its tables, its page, and what it says where something cannot be computed."""

from __future__ import annotations

import csv
import itertools
import re
import shutil
import struct
import subprocess
import sys
from html.parser import HTMLParser
from math import comb
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from report_folders import LAYERS, falling, write_plain, write_trial
from typer.testing import CliRunner

from harness_ext.cli import app
from harness_ext.report import ReportError, report

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
RECALL = falling(200, 0.9, {0.3: 0.97, 0.6: 0.5, 0.8: 0.1}, seed=1)
CONTEXT = falling(200, 0.95, {0.3: 1.0, 0.6: 1.0, 0.8: 0.99}, seed=2)
VOID = {"meta", "link", "br", "hr", "img", "input"}


def sweep(out: Path, **options) -> Path:
    """A dense model and three sparsities: recall falls, the in-context ability does not within the grid."""
    for sparsity in RECALL:
        given = {"lab_facts_closed": RECALL[sparsity], "icl_linear": CONTEXT[sparsity]}
        write_trial(out, given, f"{sparsity:g}", **options)
    return out


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two models, one pruned as a whole and by its parts."""
    out = sweep(tmp_path_factory.mktemp("report") / "run")
    sweep_of_parts = [("attention", RECALL), ("ffn", CONTEXT)]
    for modules, recall in sweep_of_parts:
        for sparsity in (0.3, 0.6, 0.8):
            write_trial(out, {"lab_facts_closed": recall[sparsity], "icl_linear": CONTEXT[sparsity]}, f"{sparsity:g}", modules=modules)
    small = {"lab_facts_closed": RECALL[0.6], "icl_linear": CONTEXT[0.6]}
    write_trial(out, small, "0", pretrained="tinier", dense="d1", parameters=8800)
    return report([out], resamples=200).page.parent


class Reader(HTMLParser):
    """Checks that tags are closed in order, and collects them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read_page(folder: Path) -> tuple[str, Reader]:
    text = (folder / "index.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return text, reader


def test_the_table_of_scores_holds_what_an_independent_computation_gives(made: Path) -> None:
    found = {(row["series"], row["sparsity"], row["task"]): row for row in rows(made, "scores") if row["model"] == "tiny"}
    assert len(found) == 2 * (1 + 3 * 3)
    dense, pruned = np.array(RECALL[0.0]), np.array(RECALL[0.6])
    row = found["magnitude, all", "0.6", "lab_facts_closed"]
    assert float(row["score"]) == pytest.approx(pruned.mean())
    assert float(row["corrected"]) == pytest.approx((pruned.mean() - 0.25) / 0.75)
    assert float(row["retained"]) == pytest.approx((pruned.mean() - 0.25) / (dense.mean() - 0.25))
    assert float(row["retained_low"]) < float(row["retained"]) < float(row["retained_high"])
    lost, won = int((dense > pruned).sum()), int((dense < pruned).sum())
    assert (int(row["right_to_wrong"]), int(row["wrong_to_right"])) == (lost, won)
    few, total = min(lost, won), lost + won
    assert float(row["mcnemar_p"]) == pytest.approx(min(1.0, 2 * sum(comb(total, k) for k in range(few + 1)) / 2**total))
    assert found["", "0", "lab_facts_closed"]["retained"] == ""
    assert row["nonzero"] == str(10000 - 2 * 600)


def test_the_critical_sparsity_is_where_the_line_between_two_sparsities_falls_below_the_dense_score(made: Path) -> None:
    scores = [(np.mean(RECALL[s]) - 0.25) / 0.75 for s in RECALL]
    grid, threshold = list(RECALL), 0.95 * scores[0]
    assert all(a >= b for a, b in itertools.pairwise(scores))
    after = next(i for i, score in enumerate(scores) if score < threshold)
    crossing = grid[after - 1] + (scores[after - 1] - threshold) / (scores[after - 1] - scores[after]) * (grid[after] - grid[after - 1])
    row = next(r for r in rows(made, "critical") if r["series"] == "magnitude, all" and r["ability"] == "recall" and r["drop"] == "0.05")
    assert row["corrected"] == "True"
    assert float(row["critical_sparsity"]) == pytest.approx(crossing)
    assert float(row["low"]) <= crossing <= float(row["high"])


def test_an_ability_that_never_falls_so_far_is_censored_and_not_given_a_number(made: Path) -> None:
    row = next(r for r in rows(made, "critical") if r["ability"] == "in-context" and r["drop"] == "0.1" and r["series"] == "magnitude, all")
    assert (row["censored"], row["critical_sparsity"], row["high"], row["last"]) == ("True", "", "", "0.8")
    text, _ = read_page(made)
    assert "beyond 0.800" in text
    assert "does not fail up to 0.80, the largest sparsity measured" in text


def test_csv_and_parquet_hold_the_same(made: Path) -> None:
    for name in ("scores", "curves", "critical", "disparity", "layers", "ladder"):
        table = parquet.read_table(made / f"{name}.parquet")
        written = rows(made, name)
        assert table.num_rows == len(written) > 0
        for one, other in zip(table.to_pylist(), written, strict=True):
            assert {column: "" if value is None else str(value) for column, value in one.items()} == other


def test_curves_layers_and_the_ladder_are_those_of_the_trials(made: Path) -> None:
    curve = {float(r["sparsity"]): r for r in rows(made, "curves") if (r["series"], r["ability"]) == ("magnitude, all", "in-context")}
    for sparsity, values in CONTEXT.items():
        assert float(curve[sparsity]["corrected_score"]) == pytest.approx((np.mean(values) - 0.5) / 0.5)
    layers = [r for r in rows(made, "layers") if (r["series"], r["sparsity"]) == ("magnitude, all", "0.3")]
    assert {r["layer"]: float(r["layer_sparsity"]) for r in layers} == dict.fromkeys(LAYERS, 0.3)
    ladder = {(r["series"], r["model"], r["sparsity"]): r for r in rows(made, "ladder") if r["ability"] == "recall"}
    small, large = ((np.mean(values) - 0.25) / 0.75 for values in (RECALL[0.6], RECALL[0.0]))
    share = np.log(9400 / 8800) / np.log(10000 / 8800)
    found = ladder["magnitude, all", "tiny", "0.3"]
    assert float(found["dense_at_equal_nonzero"]) == pytest.approx(small + share * (large - small))
    assert ladder["magnitude, all", "tiny", "0.8"]["dense_at_equal_nonzero"] == ""


def test_the_page_is_whole_and_loads_nothing(made: Path) -> None:
    text, reader = read_page(made)
    for tag, attributes in reader.tags:
        assert tag not in ("script", "link", "iframe", "img", "object", "embed")
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"url\((?!#)|@import", text)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert set(linked) <= set(ids)


def test_every_figure_has_a_text_in_its_place_and_every_table_headers(made: Path) -> None:
    text, reader = read_page(made)
    figures = [attributes for tag, attributes in reader.tags if tag == "svg"]
    assert len(figures) == text.count("<figure>") == len(list(made.glob("*.png"))) == 6
    for attributes in figures:
        assert attributes["role"] == "img"
        said = re.search(f'<title id="{attributes["aria-labelledby"]}">([^<]{{40,}})</title>', text)
        assert said
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in reader.tags if tag == "th")
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_same_results_give_the_same_files(made: Path, tmp_path: Path) -> None:
    again = report([made.parent], tmp_path / "again", resamples=200).page.parent
    for name in ("abilities.svg", "critical.png", "scores.csv", "critical.parquet"):
        assert (again / name).read_bytes() == (made / name).read_bytes()


def test_plain_results_of_lm_eval_give_the_numbers_of_a_sweep(tmp_path: Path) -> None:
    sweep(tmp_path / "sweep")
    for number, sparsity in enumerate(RECALL):
        given = {"lab_facts_closed": RECALL[sparsity], "icl_linear": CONTEXT[sparsity]}
        write_plain(tmp_path / "plain" / str(number), given, f"{sparsity:g}", stamp=f"2026-01-0{number + 1}T00-00-00")
    one = report([tmp_path / "sweep"], tmp_path / "a", resamples=200).page.parent
    other = report([*sorted((tmp_path / "plain").iterdir())], tmp_path / "b", resamples=200).page.parent
    for name in ("scores", "critical", "disparity"):
        drop = ("source",)
        found = [[{k: v for k, v in row.items() if k not in drop} for row in rows(folder, name)] for folder in (one, other)]
        assert found[0] == found[1]


def test_calibration_seeds_are_one_curve(tmp_path: Path) -> None:
    write_trial(tmp_path, {"lab_facts_closed": RECALL[0.0]})
    for seed in (0, 1, 2):
        for sparsity in (0.3, 0.6):
            values = falling(200, 0.9, {0.3: 0.95, 0.6: 0.4 + 0.1 * seed}, seed=1)[sparsity]
            write_trial(tmp_path, {"lab_facts_closed": values}, f"{sparsity:g}", pruner="wanda", seed=seed)
    folder = report([tmp_path], resamples=200).page.parent
    curve = rows(folder, "curves")
    assert [row["seeds"] for row in curve] == ["3"] * 3
    by_seed = [float(r["corrected"]) for r in rows(folder, "scores") if r["sparsity"] == "0.6"]
    assert float(curve[2]["corrected_score"]) == pytest.approx(np.mean(by_seed))


def test_without_a_dense_trial_the_report_says_what_is_missing(tmp_path: Path) -> None:
    write_trial(tmp_path, {"lab_facts_closed": RECALL[0.3]}, "0.3")
    done = report([tmp_path], resamples=200)
    assert any("there is no dense trial" in gap and "cannot be computed" in gap for gap in done.gaps)
    assert rows(done.page.parent, "scores")[0]["retained"] == ""
    assert rows(done.page.parent, "critical") == []
    assert "there is no dense trial" in read_page(done.page.parent)[0]


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
    assert "0 (assumed)" in read_page(done.page.parent)[0]


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


def test_the_command_takes_abilities_and_says_errors_in_one_line(tmp_path: Path) -> None:
    run, out = sweep(tmp_path / "run"), tmp_path / "out"
    ran = CliRunner().invoke(
        app, ["report", str(run), "--out", str(out), "--recall", "icl_*", "--in-context", "*_closed", "--resamples", "200"]
    )
    assert ran.exit_code == 0, ran.output
    assert {(r["task"], r["ability"]) for r in rows(out, "scores")} == {("icl_linear", "recall"), ("lab_facts_closed", "in-context")}
    assert "the reverse of the claim is shown" in (out / "index.html").read_text(encoding="utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "results_x.json").write_text("{", encoding="utf-8")
    for arguments, said in [
        ([str(tmp_path / "empty")], "no results in it"),
        ([str(tmp_path / "absent")], "no such file or folder"),
        ([str(tmp_path / "results_x.json")], "cannot be read"),
        ([str(run), "--recall", "icl_liner"], "Did you mean 'icl_linear'?"),
    ]:
        ran = CliRunner().invoke(app, ["report", *arguments])
        assert ran.exit_code == 1
        assert said in ran.stderr
        assert ran.stderr.count("\n") == 1


def test_without_matplotlib_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ReportError, match=r"pip install 'lm-eval-pruned\[report\]'"):
        report([sweep(tmp_path)])


if Path(CHROMIUM).exists():

    def test_a_browser_shows_the_page(made: Path, tmp_path: Path) -> None:
        image = tmp_path / "page.png"
        command = [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1200,900",
            f"--user-data-dir={tmp_path / 'profile'}",
        ]
        subprocess.run([*command, f"--screenshot={image}", (made / "index.html").as_uri()], check=True, capture_output=True, timeout=120)
        content = image.read_bytes()
        assert struct.unpack(">II", content[16:24]) == (1200, 900)
        assert len(content) > 20000  # a blank page has a few thousand
