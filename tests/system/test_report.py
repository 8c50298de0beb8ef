"""``harness-ext report``: the numbers in its tables, its page, and what it says where something cannot be computed."""

from __future__ import annotations

import itertools
from math import comb
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from report_folders import CONTEXT, LAYERS, RECALL, falling, rows, sweep, write_plain, write_trial
from typer.testing import CliRunner

from harness_ext.commands.cli import app
from harness_ext.report import report


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
    text = (made / "index.html").read_text(encoding="utf-8")
    assert "beyond 0.8<" in text
    assert "does not fail up to 0.8, the largest sparsity measured" in text


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


def test_the_same_results_give_the_same_files(made: Path, tmp_path: Path) -> None:
    again = report([made.parent], tmp_path / "again", resamples=200).page.parent
    for name in ("abilities.svg", "critical.png", "scores.csv", "critical.parquet"):
        assert (again / name).read_bytes() == (made / name).read_bytes()


@pytest.mark.usefixtures("quick_figures")
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


@pytest.mark.usefixtures("quick_figures")
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


@pytest.mark.usefixtures("quick_figures")
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
