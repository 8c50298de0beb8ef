"""``harness-ext compare``: two methods on the same items, against an analysis by hand of the samples."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import report_folders
from click.testing import Result
from scipy.stats import binomtest
from sweeps import sweep
from typer.testing import CliRunner

from harness_ext.commands.cli import app
from harness_ext.report import report
from harness_ext.report.abilities import classify
from harness_ext.report.analysis import analyse
from harness_ext.report.compare import compare_results
from harness_ext.report.method_pairs import every_pair
from harness_ext.report.reading import read
from harness_ext.sweep import load

GRID = (0.3, 0.6, 0.8)


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, words)], env={"COLUMNS": "200"})


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def method(out: Path, recall: dict[float, list[int]], context: dict[float, list[int]], **options: object) -> Path:
    """A sweep of one method with given scores, without a dense trial."""
    for sparsity in GRID:
        scores = {"lab_facts_closed": recall[sparsity], "icl_linear": context[sparsity]}
        report_folders.write_trial(out, scores, f"{sparsity:g}", **options)
    return out


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    recall, context = report_folders.RECALL, report_folders.CONTEXT
    better = report_folders.falling(200, 0.9, {0.3: 1.0, 0.6: 0.8, 0.8: 0.4}, seed=1)
    return method(tmp_path / "first", recall, context), method(tmp_path / "second", better, context, pruner="wanda", seed=0)


@pytest.mark.slow
class TestAgainstAnAnalysisByHand:
    """Two pruners on lab-m."""

    @pytest.fixture(scope="class")
    def place(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        out = tmp_path_factory.mktemp("sweep") / "both"
        sweep(
            out, pretrained=["lab-m"], pruner=["magnitude", "wanda"], sparsity=["0", "0.6"], tasks=["lab_facts_closed", "icl_linear"],
            metadata={}, limit=48, options={"calibration.samples": 4},
        )  # fmt: skip
        return out

    def test_two_settings_of_one_sweep(self, place: Path, tmp_path: Path) -> None:
        result = run(f"{place}:pruner=magnitude", f"{place}:pruner=wanda", "--csv", tmp_path / "a.csv", "--json", tmp_path / "a.json")
        assert result.exit_code == 0, result.output
        found = {row["name"]: row for row in rows(tmp_path / "a.csv")}
        scores: dict[str, dict[str, dict[int, float]]] = {}
        for record in load(place):
            for task in record.tasks:
                of = scores.setdefault(task, {}).setdefault(str(record.pruner) if record.ratio else "dense", {})
                of |= {row["doc_id"]: row["acc"] for row in record.samples(task)}
        for task in ("lab_facts_closed", "icl_linear"):
            docs = sorted(scores[task]["magnitude"])
            first, second = (np.array([scores[task][pruner][doc] for doc in docs]) for pruner in ("magnitude", "wanda"))
            row = found[task]
            assert (row["first"], row["second"], row["kind"], int(row["items"])) == ("magnitude", "wanda", "task", 48)
            assert float(row["first_score"]) == pytest.approx(first.mean())
            assert float(row["difference"]) == pytest.approx((second - first).mean())
            lost, won = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
            assert (int(row["only_first_right"]), int(row["only_second_right"])) == (lost, won)
            assert float(row["mcnemar_p"]) == pytest.approx(binomtest(lost, lost + won).pvalue if lost + won else 1.0)
            generator, differences = np.random.default_rng(1), second - first
            for end, extra, share in (("low", -1.0, 0.025), ("high", 1.0, 0.975)):
                weights = generator.dirichlet(np.ones(49), 20_000)
                by_hand = np.quantile(weights @ np.append(differences, extra), share)
                assert float(row[end]) == pytest.approx(by_hand, abs=0.015) or lost + won == 0
        assert len({len(of) for of in scores["icl_linear"].values()}) == 1
        assert json.loads((tmp_path / "a.json").read_text())["second"] == "wanda"
        assert "lab_facts_closed" in result.stdout
        assert "in-context ability" in result.stdout


def test_the_dense_model_is_compared_if_it_is_named(tmp_path: Path) -> None:
    dense, pruned = report_folders.RECALL[0.0], report_folders.RECALL[0.6]
    report_folders.write_trial(tmp_path, {"lab_facts_closed": dense})
    for pruner in ("magnitude", "wanda"):
        report_folders.write_trial(tmp_path, {"lab_facts_closed": pruned}, "0.6", pruner=pruner)
    found = compare_results(f"{tmp_path}:sparsity=0", f"{tmp_path}:pruner=wanda")
    assert found.names == ("dense", "wanda")
    (pair,) = found.pairs
    assert pair.sparsities == ("0", "0.6")
    (task,) = pair.tasks
    assert task.first == pytest.approx(np.mean(dense))
    assert task.difference.value == pytest.approx(np.mean(pruned) - np.mean(dense))


def test_every_sparsity_that_both_have_is_compared(two: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(*two, "--csv", tmp_path / "all.csv")
    assert result.exit_code == 0, result.output
    found = rows(tmp_path / "all.csv")
    assert list(dict.fromkeys(row["first_sparsity"] for row in found)) == ["0.3", "0.6", "0.8"]
    at = {(row["first_sparsity"], row["name"]): row for row in found}
    assert float(at["0.6", "recall"]["difference"]) == pytest.approx(float(at["0.6", "lab_facts_closed"]["difference"]) / 0.75)
    assert {row["difference"] for row in found if row["name"] == "icl_linear"} == {"0.0"}


def test_seeds_are_paired_and_a_method_without_one_stands_beside_all(two: tuple[Path, Path], tmp_path: Path) -> None:
    for seed in (1, 2):
        method(two[1], report_folders.falling(200, 0.9, {0.3: 1.0, 0.6: 0.7, 0.8: 0.4}, seed=1), report_folders.CONTEXT,
               pruner="wanda", seed=seed)  # fmt: skip
    found = compare_results(str(two[0]), str(two[1]))
    assert found.pairs[0].seeds == (0, 1, 2)
    assert [len(one.mcnemar) for one in found.pairs[0].tasks] == [3, 3]
    part = compare_results(str(two[1]), f"{two[1]}:seed=2")
    assert part.pairs[0].seeds == (2,)
    assert any("seed 0, 1" in note for note in part.notes)
    one = compare_results(f"{two[1]}:seed=0", f"{two[1]}:seed=1")
    assert any("0 and 1" in note for note in one.notes)
    run(*two, "--csv", tmp_path / "a.csv")
    by_seed = [row for row in rows(tmp_path / "a.csv") if row["kind"] == "task, one seed" and row["first_sparsity"] == "0.3"]
    assert [row["seed"] for row in by_seed] == ["0", "1", "2"] * 2


@pytest.mark.usefixtures("quick_figures")
def test_the_p_values_of_a_comparison_are_corrected_for_their_number(two: tuple[Path, Path], tmp_path: Path) -> None:
    for seed in (1, 2):
        recall = report_folders.falling(200, 0.9, {0.3: 0.95, 0.6: 0.5, 0.8: 0.4}, seed=seed)
        method(two[1], recall, report_folders.CONTEXT, pruner="wanda", seed=seed)
    result = run(*two, "--csv", tmp_path / "a.csv", "--json", tmp_path / "a.json")
    tests = [row for row in rows(tmp_path / "a.csv") if row["mcnemar_p"]]
    assert len(tests) == 3 * 3 * 4  # sparsities, seeds, and two tasks with their abilities
    of_tasks, of_abilities = ([row for row in tests if row["kind"] == f"{kind}, one seed"] for kind in ("task", "ability"))
    by_size = sorted(of_tasks, key=lambda row: float(row["mcnemar_p"]))
    expected = np.maximum.accumulate([float(row["mcnemar_p"]) * (18 - rank) for rank, row in enumerate(by_size)]).clip(max=1)
    assert [float(row["mcnemar_p_holm"]) for row in by_size] == pytest.approx(expected)
    both = [
        [(row["tasks"], row["seed"], row["first_sparsity"], row["mcnemar_p_holm"]) for row in kind] for kind in (of_tasks, of_abilities)
    ]
    assert sorted(both[0]) == sorted(both[1]), "an ability of one task is the test of that task, and counts once"
    assert 0 < sum(expected < 0.05) < sum(float(row["mcnemar_p"]) < 0.05 for row in of_tasks)
    written = json.loads((tmp_path / "a.json").read_text())["comparisons"]
    in_json = [p for pair in written for one in (*pair["tasks"], *pair["abilities"]) for p in one["mcnemar_p_holm"]]
    assert in_json == pytest.approx([float(row["mcnemar_p_holm"]) for row in tests])
    assert "Holm" in result.stdout
    assert "18 tests" in result.stdout
    report_page = report([*two], tmp_path / "report", resamples=200).page
    assert "18 tests" in report_page.read_text(encoding="utf-8")


def test_one_p_value_needs_no_correction(tmp_path: Path) -> None:
    for name, pruner in (("a", "magnitude"), ("b", "wanda")):
        report_folders.write_trial(tmp_path / name, {"unclassified": report_folders.RECALL[0.6]}, "0.6", pruner=pruner)
    result = run(tmp_path / "a", tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert "McNemar p" in result.stdout
    assert "Holm" not in result.stdout
    assert "1.0" in result.stdout


def test_two_sparsities_of_one_method(two: tuple[Path, Path]) -> None:
    found = compare_results(f"{two[0]}:sparsity=0.3", f"{two[0]}:sparsity=0.8")
    assert found.pairs[0].sparsities == ("0.3", "0.8")
    assert found.pairs[0].tasks[0].difference.value < -0.5


def test_files_of_lm_eval_are_compared(tmp_path: Path) -> None:
    for name, recall in (("one", report_folders.RECALL[0.3]), ("other", report_folders.RECALL[0.6])):
        pruner = {"one": "magnitude", "other": "random"}[name]
        report_folders.write_plain(tmp_path / name, {"lab_facts_closed": recall}, "0.6", stamp="1", pruner=pruner)
    found = compare_results(str(tmp_path / "one"), str(tmp_path / "other"))
    wanted = np.mean(report_folders.RECALL[0.6]) - np.mean(report_folders.RECALL[0.3])
    assert found.pairs[0].tasks[0].difference.value == pytest.approx(wanted)


def test_a_task_that_one_side_lacks_is_noted(two: tuple[Path, Path]) -> None:
    report_folders.write_trial(two[0], {"kv_4": [0, 1] * 20}, "0.5")
    method(two[0], report_folders.RECALL, report_folders.CONTEXT, modules="ffn")
    found = compare_results(f"{two[0]}:modules=all", str(two[1]))
    assert [pair.sparsities[0] for pair in found.pairs] == ["0.3", "0.6", "0.8"]
    third = two[0].parent / "third"
    report_folders.write_trial(third, {"icl_linear": report_folders.CONTEXT[0.3]}, "0.3", pruner="random")
    noted = compare_results(str(two[0]) + ":modules=all", str(third))
    assert any("'lab_facts_closed'" in note and "random" in note for note in noted.notes)


def test_a_report_has_every_pair_of_methods(two: tuple[Path, Path]) -> None:
    trials, _ = read([*two])
    pairs, gaps = every_pair(analyse(trials, classify(trials), resamples=200), 200)
    assert [({pair.first, pair.second}, pair.sparsities[0]) for pair in pairs] == [({"magnitude", "wanda"}, f"{s:g}") for s in GRID]
    assert gaps == []
    alone = compare_results(str(two[0]), str(two[1]), resamples=200)
    sign = 1 if pairs[0].first == "magnitude" else -1
    by_hand = [one.difference.value for pair in alone.pairs for one in (*pair.tasks, *pair.abilities)]
    assert [sign * one.difference.value for pair in pairs for one in (*pair.tasks, *pair.abilities)] == pytest.approx(by_hand)


@pytest.mark.usefixtures("quick_figures")
def test_a_report_shows_the_methods_beside_each_other(two: tuple[Path, Path], tmp_path: Path) -> None:
    page = report([*two], tmp_path / "report", resamples=200).page
    found = report_folders.rows(page.parent, "methods")
    alone = compare_results(str(two[0]), str(two[1]), resamples=200)
    by_hand = sorted(abs(one.difference.value) for pair in alone.pairs for one in (*pair.tasks, *pair.abilities))
    assert sorted(abs(float(row["difference"])) for row in found) == pytest.approx(by_hand)
    assert "Methods compared with each other" in page.read_text(encoding="utf-8")


def test_sparsities_that_only_one_side_has_are_noted(two: tuple[Path, Path]) -> None:
    for sparsity in ("0.9", "2:4"):
        report_folders.write_trial(two[0], {"lab_facts_closed": report_folders.RECALL[0.8]}, sparsity)
    found = compare_results(str(two[0]), str(two[1]), resamples=200)
    assert [pair.sparsities[0] for pair in found.pairs] == ["0.3", "0.6", "0.8"]
    [note] = [note for note in found.notes if note.startswith("sparsity ")]
    assert all(part in note for part in ("0.9", "2:4", "magnitude is not compared", "wanda"))
    assert "0.3" not in note
    one = compare_results(f"{two[0]}:sparsity=0.3", str(two[1]), resamples=200)
    [note] = [note for note in one.notes if note.startswith("sparsity ")]
    assert "0.6, 0.8 of wanda" in note
    several = compare_results(f"{two[0]}:sparsity=0.3", f"{two[0]}:sparsity=0.8", resamples=200)
    assert not [note for note in several.notes if note.startswith("sparsity ")]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_caveat_of_two_seeds_is_on_the_terminal(two: tuple[Path, Path], count: int) -> None:
    for seed in range(1, count):
        method(two[1], report_folders.falling(200, 0.9, {0.3: 1.0, 0.6: 0.7, 0.8: 0.4}, seed=1), report_folders.CONTEXT,
               pruner="wanda", seed=seed)  # fmt: skip
    result = run(*two, "--resamples", 200)
    assert result.exit_code == 0, result.output
    assert ("over two calibration seeds" in result.stderr) == (count == 2)


def test_filters_in_another_order_are_compared(tmp_path: Path) -> None:
    for number, (name, order) in enumerate((("one", ("strict", "loose")), ("other", ("loose", "strict")))):
        sparsity = (0.3, 0.6)[number]
        recall = report_folders.RECALL[sparsity]
        file = report_folders.write_plain(
            tmp_path / name, {"lab_facts_closed": recall}, f"{sparsity:g}", stamp="1", pruner=("magnitude", "random")[number]
        )
        results = json.loads(file.read_text(encoding="utf-8"))
        results["results"]["lab_facts_closed"] = {
            f"acc,{filtered}": float(np.mean(recall)) if filtered == "strict" else 0.5 for filtered in order
        }
        file.write_text(json.dumps(results), encoding="utf-8")
        samples = file.with_name("samples_lab_facts_closed_1.jsonl")
        samples.write_text(samples.read_text(encoding="utf-8").replace('"filter": "none"', '"filter": "strict"'), encoding="utf-8")
    found = compare_results(str(tmp_path / "one"), str(tmp_path / "other"), resamples=200)
    [task] = found.pairs[0].tasks
    assert task.difference.value == pytest.approx(np.mean(report_folders.RECALL[0.6]) - np.mean(report_folders.RECALL[0.3]))


def test_pruned_models_without_a_common_sparsity_are_noted_unless_both_were_named(two: tuple[Path, Path], tmp_path: Path) -> None:
    for sparsity in (0.3, 0.8):
        report_folders.write_trial(tmp_path / f"at {sparsity}", {"lab_facts_closed": report_folders.RECALL[sparsity]}, str(sparsity))
    found = compare_results(str(tmp_path / "at 0.3"), f"{two[1]}:sparsity=0.6", resamples=200)
    [note] = [note for note in found.notes if "no sparsity in common" in note]
    assert "at 0.3 is compared with" in note
    assert note.endswith("at 0.6")
    named = compare_results(f"{two[0]}:sparsity=0.3", f"{two[1]}:sparsity=0.6", resamples=200)
    same = compare_results(str(tmp_path / "at 0.3"), str(two[1]), resamples=200)
    assert not [note for one in (named, same) for note in one.notes if "in common" in note]


BAD = {
    "no such folder": (["missing", "second"], ["missing", "no such file or folder"]),
    "an empty folder": (["first", "empty"], ["empty", "no results"]),
    "a file that is no results": (["first", "broken.json"], ["broken.json"]),
    "the same folder twice": (["first", "first"], ["the same results twice", "first:pruner=wanda"]),
    "the same setting twice": (["many:pruner=random", "many:pruner=random"], ["the same results twice"]),
    "the same folder by other names": (["first", "./first"], ["the same results twice"]),
    "several settings": (["many", "second"], ["2 settings", "many:pruner=magnitude", "pruner=random"]),
    "a misspelt setting": (["many:prunr=random", "second"], ["'prunr'", "Did you mean 'pruner'?"]),
    "a value that is not there": (["many:pruner=wanda", "second"], ["pruner=wanda", "magnitude, random"]),
    "a sparsity that is not there": (["first:sparsity=0.5", "second"], ["sparsity=0.5", "0.3, 0.6, 0.8"]),
    "a setting twice": (["first:pruner=random,pruner=magnitude", "second"], ["pruner", "twice"]),
    "a setting without a value": (["first:pruner=", "second"], ["'pruner='", "NAME=VALUE"]),
    "a setting without a name": (["first:pruner=magnitude,0.3", "second"], ["'0.3'", "NAME=VALUE"]),
    "other items": (["first", "short"], ["'lab_facts_closed'", "items", "200", "50"]),
    "another version": (["first", "newer"], ["version 1.0", "version 2.0"]),
    "no samples": (["first", "unlogged"], ["per-sample records", "--log_samples"]),
    "other tasks": (["first:sparsity=0.3", "other_task"], ["no task in common", "kv_4", "lab_facts_closed"]),
    "other sparsities": (["first", "grid"], ["no sparsity in common", "0.3, 0.6, 0.8", "0.31, 0.61"]),
    "other seeds": (["seeds", "reseeded"], ["no calibration seed in common", "1, 2", "5, 6"]),
    "a dense setting that is not there": (["first:sparsity=0", "second"], ["sparsity=0", "0.3, 0.6, 0.8"]),
    "a dense model with other tasks": (["dense:sparsity=0", "second:sparsity=0.3"], ["no task in common", "dense", "kv_4"]),
    "an unknown recall task": (["first", "second", "--recall", "lab_facts_clsd"], ["--recall", "Did you mean 'lab_facts_closed'?"]),
    "a task of both abilities": (["first", "second", "--recall", "icl_*", "--in-context", "icl_*"], ["'icl_linear'", "both"]),
    "an unknown metric": (["first", "second", "--metric", "bleu"], ["bleu"]),
    "no such limit": (["first", "second", "--limit", "7"], ["--limit 7", "all"]),
    "a limit that is no number": (["first", "second", "--limit", "few"], ["--limit few", "all"]),
    "too few resamples": (["first", "second", "--resamples", "5"], ["resamples=5"]),
    "a folder as the file": (["first", "second", "--json", "taken"], ["taken"]),
    "a file in no folder": (["first", "second", "--csv", "nowhere/a.csv"], ["nowhere/a.csv"]),
    "an empty name": (["", "second"], ["''"]),
    "a very long name": (["x" * 5000, "second"], ["xxx ... xxx"]),
}  # fmt: skip


class TestBadInput:
    """Each is one line that says what is wrong."""

    @pytest.fixture
    def place(self, two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = two[0].parent
        monkeypatch.chdir(folder)
        short = report_folders.falling(50, 0.9, {0.3: 0.9, 0.6: 0.5, 0.8: 0.1}, seed=3)
        method(folder / "short", short, short, pruner="random")
        method(folder / "newer", report_folders.RECALL, report_folders.CONTEXT, pruner="random", version=2.0)
        method(folder / "unlogged", report_folders.RECALL, report_folders.CONTEXT, pruner="random", logged=False)
        method(folder / "reseeded", report_folders.RECALL, report_folders.CONTEXT, pruner="wanda", seed=5)
        method(folder / "reseeded", report_folders.RECALL, report_folders.CONTEXT, pruner="wanda", seed=6)
        method(folder / "seeds", report_folders.RECALL, report_folders.CONTEXT, pruner="wanda", seed=1)
        method(folder / "seeds", report_folders.RECALL, report_folders.CONTEXT, pruner="wanda", seed=2)
        for sparsity in ("0.31", "0.61"):
            scores = {"lab_facts_closed": report_folders.RECALL[0.3]}
            report_folders.write_trial(folder / "grid", scores, sparsity, pruner="random")
        report_folders.write_trial(folder / "other_task", {"kv_4": report_folders.RECALL[0.3]}, "0.3", pruner="random")
        method(folder / "many", report_folders.RECALL, report_folders.CONTEXT)
        method(folder / "many", report_folders.RECALL, report_folders.CONTEXT, pruner="random")
        report_folders.write_trial(folder / "dense", {"kv_4": report_folders.RECALL[0.0]})
        (folder / "empty").mkdir()
        (folder / "broken.json").write_text("{")
        (folder / "taken").mkdir()
        return folder

    @pytest.mark.parametrize(("words", "parts"), BAD.values(), ids=BAD)
    def test_it_ends_in_one_line(self, place: Path, words: list[str], parts: list[str]) -> None:
        result = run(*words)
        lines = [line for line in result.stderr.splitlines() if line]
        assert result.exit_code == 1, result.output
        assert isinstance(result.exception, SystemExit)
        assert len(lines) == 1, result.stderr
        assert lines[0].partition(":")[0] in ("ReportError", "BadOptionError", "StatisticsError", "WriteError")
        assert not [part for part in parts if part not in lines[0]], lines[0]
        assert result.stdout == ""
        assert len(lines[0]) < 1500
