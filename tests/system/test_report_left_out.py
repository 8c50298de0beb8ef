"""Points that were measured and cannot be used: which seeds make a curve, and where the page names what is left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from report_folders import CONTEXT, RECALL, falling, write_plain, write_trial

from harness_ext.report import report
from harness_ext.report.abilities import classify
from harness_ext.report.analysis import analyse
from harness_ext.report.reading import read
from harness_ext.report.run import Report
from harness_ext.report.words import headline

pytestmark = pytest.mark.usefixtures("quick_figures")

ITEMS = 200
GRID = (0.1, 0.3, 0.5, 0.7, 0.9)
WRONG = falling(ITEMS, 0.9, {0.1: 1.0, 0.3: 0.8, 0.5: 0.6, 0.7: 0.4, 0.9: 0.2}, seed=1)
KEPT = falling(ITEMS, 0.95, {0.1: 1.0, 0.3: 1.0, 0.5: 1.0, 0.7: 0.5, 0.9: 0.2}, seed=2)


def write(folder: Path, seeds: dict[float, Sequence[int]]) -> Path:
    """One method with the given calibration seeds at each sparsity, which score alike."""
    write_trial(folder, {"lab_facts_closed": WRONG[0.0], "icl_linear": KEPT[0.0]})
    for sparsity, here in seeds.items():
        for seed in here:
            write_trial(
                folder, {"lab_facts_closed": WRONG[sparsity], "icl_linear": KEPT[sparsity]}, f"{sparsity:g}", pruner="wanda", seed=seed
            )
    return folder


def made(folder: Path) -> Report:
    return report([folder], folder / "report", resamples=200)


def first_words(done: Report) -> str:
    text = done.page.read_text(encoding="utf-8")
    return text[text.index("<h1>") : text.index("</h1>")].replace("\u2011", "-")


def test_a_sweep_stopped_half_way_says_what_its_complete_seeds_say(tmp_path: Path) -> None:
    half = made(write(tmp_path / "half", {0.1: (0, 1, 2), **dict.fromkeys(GRID[1:], (0, 1))}))
    whole = made(write(tmp_path / "whole", dict.fromkeys(GRID, (0, 1))))
    assert first_words(half) == first_words(whole)
    assert half.analysis.critical == whole.analysis.critical
    assert half.analysis.left_out_seeds == {"wanda": (2,)}
    [gap] = [gap for gap in half.gaps if "seed 2" in gap and "in no curve" in gap]
    assert all(part in gap for part in ("0.3, 0.5, 0.7, 0.9", "run the missing trials"))
    assert "0.1," not in gap
    [note] = [note for note in headline(half.analysis, 0.05).notes if "left out" in note]
    assert "seed 2" in note
    assert not any("left out" in note for note in headline(whole.analysis, 0.05).notes)


@pytest.mark.parametrize(
    ("seeds", "used", "grid"),
    [
        ({0.1: (0, 1), 0.3: (0, 1), 0.5: (0, 1)}, 2, (0.1, 0.3, 0.5)),
        ({0.1: (0, 1, 2), 0.3: (0, 1), 0.5: (1, 2)}, 2, (0.1, 0.3)),
        ({0.1: (0, 1, 2), 0.3: (0, 1, 2), 0.5: (0, 1, 2), 0.7: (0,)}, 3, (0.1, 0.3, 0.5)),
        ({0.1: (0, 1), 0.3: (0,), 0.5: (0,)}, 1, (0.1, 0.3, 0.5)),
        ({0.1: (0, 1), 0.3: (2, 3), 0.5: (2, 3), 0.7: (0, 1, 2, 3)}, 2, (0.3, 0.5, 0.7)),
    ],
)
def test_the_seeds_that_keep_the_most_trials_are_used(tmp_path: Path, seeds: dict, used: int, grid: tuple) -> None:
    trials, _ = read([write(tmp_path, seeds)])
    for curve in analyse(trials, classify(trials), resamples=200).curves.values():
        assert curve.seeds == used
        assert curve.sparsities == (0.0, *grid)


def test_a_different_seed_at_each_sparsity_makes_no_curve_and_says_what_is_missing(tmp_path: Path) -> None:
    done = made(write(tmp_path, {0.1: (0,), 0.3: (1,), 0.5: (2,)}))
    assert done.analysis.curves == {}
    [gap] = [gap for gap in done.gaps if "no calibration seed" in gap]
    assert all(part in gap for part in ("0.1: seed 0", "0.3: seed 1", "0.5: seed 2", "run one seed at all of them"))
    assert "kept" not in first_words(done)


def damaged(folder: Path, how: str, at: float) -> Path:
    """Results of lm_eval at four sparsities. At one of them, samples are missing or a score is not a number."""
    for number, sparsity in enumerate((0.0, 0.3, 0.5, 0.7)):
        given = {"lab_facts_closed": WRONG[sparsity], "icl_linear": KEPT[0.0]}
        file = write_plain(folder, given, f"{sparsity:g}", stamp=str(number), logged=how != "samples" or sparsity != at)
        if how == "nan" and sparsity == at:
            results = json.loads(file.read_text(encoding="utf-8"))
            results["results"]["lab_facts_closed"]["acc,none"] = float("nan")
            file.write_text(json.dumps(results), encoding="utf-8")
    return folder


@pytest.mark.parametrize("how", ["samples", "nan"])
def test_a_measured_sparsity_that_cannot_be_used_is_named_beside_the_loss(tmp_path: Path, how: str) -> None:
    done = made(damaged(tmp_path, how, 0.3))
    heading = first_words(done)
    assert "lost from 0.5 on (0.3 could not be used)" in heading
    assert 0.25 not in done.analysis.critical["magnitude", "recall", 0.05, True].add
    assert done.analysis.disparities["magnitude", 0.05, True].add == done.analysis.critical["magnitude", "in-context", 0.05, True].add
    assert any("0.3" in note and "run the missing trials" in note.lower() for note in headline(done.analysis, 0.05).notes)
    sentences = done.page.read_text(encoding="utf-8").partition('id="comparisons"')[2].partition('id="details"')[0]
    assert "left out: 0.3 of recall" in sentences


def test_the_largest_sparsity_that_cannot_be_used_is_named_beside_what_is_kept(tmp_path: Path) -> None:
    heading = first_words(made(damaged(tmp_path, "samples", 0.7)))
    assert "kept up to 0.5 (0.7 could not be used)" in heading


def test_abilities_that_were_measured_to_different_sparsities_are_kept_to_their_own(tmp_path: Path) -> None:
    for sparsity, recall in (("0", True), ("0.3", True), ("0.6", False)):
        given = {"icl_linear": CONTEXT[0.0]} | ({"lab_facts_closed": RECALL[0.0]} if recall else {})
        write_trial(tmp_path, given, sparsity)
    heading = first_words(made(tmp_path))
    assert "kept up to 0.3" in heading
    assert "up to 0.6" in heading
