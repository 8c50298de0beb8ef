"""What a report says at equal difficulty, and critical sparsities against difficulty."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_folders import RECALL, ranked, rows, write_plain, write_trial

from harness_ext.report import report
from harness_ext.report.abilities import classify
from harness_ext.report.analysis import analyse
from harness_ext.report.reading import read
from harness_ext.report.run import Report
from harness_ext.statistics import Curve, by_difficulty, matched_disparity

pytestmark = pytest.mark.usefixtures("quick_figures")

ITEMS, GRID = 240, (0.0, 0.2, 0.4, 0.6, 0.8)
CHANCE = {"lab_facts_closed": 1 / 16, "icl_linear": 0.5}
MARGINS = {
    "lab_facts_closed": np.random.default_rng(0).uniform(0.2, 4, ITEMS).tolist(),
    "icl_linear": np.random.default_rng(1).uniform(1, 6, ITEMS).tolist(),
}
HALVES = {"lab_facts_closed": 0.25, "icl_linear": 0.55}


def scores(task: str, sparsity: float) -> list[int]:
    """Right in the dense model; harder items are lost earlier, and recall's at half the sparsity."""
    lost = HALVES[task] + 0.05 * np.array(MARGINS[task]) + 0.02 * np.random.default_rng(2).standard_normal(ITEMS)
    return (sparsity < lost).astype(int).tolist()


def write(out: Path, tasks: tuple[str, ...] = tuple(MARGINS), *, pretrained: str = "tiny", plain: bool = False, **options: Any) -> Path:
    """A sweep in which the records of the dense model have responses."""
    shown = {task: ranked(scores(task, 0.0), round(1 / CHANCE[task]), MARGINS[task]) for task in tasks}
    for number, sparsity in enumerate(GRID):
        given = {task: scores(task, sparsity) for task in tasks}
        answers = None if sparsity else options.get("answers", shown)
        if plain:
            write_plain(out, given, f"{sparsity:g}", stamp=str(number), chance=CHANCE, answers=answers)
        else:
            write_trial(out, given, f"{sparsity:g}", chance=CHANCE, answers=answers, pretrained=pretrained, dense=f"d {pretrained}")
    return out


def curves() -> tuple[list[Curve], list[Curve], dict[str, list[float]]]:
    """The same, for the statistics."""
    made = {task: Curve(task, GRID, [scores(task, sparsity) for sparsity in GRID], chance=CHANCE[task]) for task in MARGINS}
    return [made["lab_facts_closed"]], [made["icl_linear"]], MARGINS


@pytest.fixture(scope="module")
def of_sweep(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return report([write(tmp_path_factory.mktemp("sweep"))])


@pytest.mark.parametrize("plain", [False, True])
def test_the_disparity_at_equal_margin_is_that_of_the_statistics(tmp_path: Path, of_sweep: Report, plain: bool) -> None:
    done = report([write(tmp_path, plain=True)]) if plain else of_sweep
    table = {float(row["drop"]): row for row in rows(done.page.parent, "matched")}
    assert set(table) == {0.02, 0.05, 0.1, 0.5}
    recall, other, margins = curves()
    for drop, row in table.items():
        expected = matched_disparity(recall, other, margins, drop=drop, corrected=True)
        assert expected.disparity is not None
        assert float(row["difference"]) == pytest.approx(expected.disparity.difference)
        assert row["finding"] == expected.disparity.finding
        assert float(row["recall_share"]) == pytest.approx(expected.overlap.shares[0])
        assert float(row["in_context_effective"]) == pytest.approx(expected.overlap.effective[1])
        assert row["unit"] == "nats"
        assert row["refusal"] == ""
    assert table[0.5]["finding"] == "in-context outlasts recall"
    disparities = {float(row["drop"]): row for row in rows(done.page.parent, "disparity") if row["corrected"] == "True"}
    for drop, row in disparities.items():
        assert [table[drop][f"raw_{name}"] for name in ("low", "high", "finding")] == [row[name] for name in ("low", "high", "finding")]


def test_the_page_says_it_beside_the_headline_among_the_comparisons_and_in_a_table(of_sweep: Report) -> None:
    done = of_sweep
    page = html.unescape(done.page.read_text(encoding="utf-8"))
    sentence = done.analysis.difficulty.sentence("magnitude", 0.05)
    assert sentence is not None
    assert "of recall and" in sentence
    assert "at a 5 % drop, " in sentence
    assert "At a 50 % drop, in-context ability outlasts recall by " in sentence
    notes = page[page.index('<p class="notes">') : page.index("What the intervals do not cover")]
    assert sentence in notes
    assert page.count(sentence) == 2
    assert "Disparity at equal dense margin" in page
    assert "Critical sparsity against difficulty" in page
    limits = page[page.index('id="limits"') :]
    assert "At equal dense margin" in limits


def test_the_figure_has_a_line_for_each_ability_and_a_row_for_each_bin(of_sweep: Report) -> None:
    done = of_sweep
    for ending in ("svg", "png"):
        assert (done.page.parent / f"difficulty.{ending}").is_file()
    found = rows(done.page.parent, "difficulty")
    recall, other, margins = curves()
    for ability, given in (("recall", recall), ("in-context", other)):
        own = [row for row in found if row["ability"] == ability]
        expected = by_difficulty(given, margins, drop=0.5, corrected=True)
        assert [float(row["margin_middle"]) for row in own] == pytest.approx([one.middle for one in expected])
        assert [int(row["items"]) for row in own] == [30] * 8
        assert [row["critical_sparsity"] for row in own] == [
            "" if one.critical.censored else repr(one.critical.sparsity) for one in expected
        ]
    text = html.unescape(done.page.read_text(encoding="utf-8"))
    (caption,) = [part for part in text.split("figcaption>") if "coincide" in part]
    assert "difficulty does not explain the split" in caption


def test_only_the_records_of_the_dense_model_are_read_for_margins(tmp_path: Path) -> None:
    trials, _ = read([write(tmp_path)])
    for trial in trials:
        assert all((score.margins is not None) == trial.is_dense for score in trial.tasks.values())


def test_records_without_responses_have_no_difficulty_and_the_report_says_so(tmp_path: Path) -> None:
    done = report([write(tmp_path, answers=None)], resamples=200)
    assert any("'icl_linear': its items have no difficulty" in gap and "no log-likelihoods" in gap for gap in done.gaps)
    assert any("no disparity at equal dense margin, no task of recall or of in-context ability has margins" in gap for gap in done.gaps)
    assert rows(done.page.parent, "matched") == rows(done.page.parent, "difficulty") == []
    assert not (done.page.parent / "difficulty.png").exists()
    assert "At equal difficulty" not in done.page.read_text(encoding="utf-8")
    assert done.analysis.disparities


def test_tasks_that_generate_have_no_difficulty(tmp_path: Path) -> None:
    """Only recall is generated: nothing can be matched, and in-context ability still has its line."""
    answers = {
        "lab_facts_closed": [{"filtered_resps": ["Paris"], "target": "Paris"}] * ITEMS,
        "icl_linear": ranked(scores("icl_linear", 0.0), 2, MARGINS["icl_linear"]),
    }
    done = report([write(tmp_path, answers=answers)], resamples=200)
    assert any("no disparity at equal dense margin, no task of recall has margins" in gap for gap in done.gaps)
    assert {row["ability"] for row in rows(done.page.parent, "difficulty")} == {"in-context"}
    assert rows(done.page.parent, "matched") == []


def test_one_ability_alone_has_a_line_and_nothing_to_match(tmp_path: Path) -> None:
    done = report([write(tmp_path, ("icl_linear",))], resamples=200)
    assert {row["ability"] for row in rows(done.page.parent, "difficulty")} == {"in-context"}
    assert rows(done.page.parent, "matched") == []


def test_dense_trials_alone_have_nothing_at_equal_difficulty(tmp_path: Path) -> None:
    task = "icl_linear"
    write_trial(tmp_path, {task: scores(task, 0.0)}, "0", chance=CHANCE, answers={task: ranked(scores(task, 0.0), 2, MARGINS[task])})
    done = report([tmp_path], resamples=200)
    assert rows(done.page.parent, "matched") == rows(done.page.parent, "difficulty") == []


def test_margins_that_do_not_overlap_are_said_to_leave_nothing_to_match_on(tmp_path: Path) -> None:
    far = {task: ranked(scores(task, 0.0), round(1 / CHANCE[task]), (np.array(MARGINS[task]) + 100 * place).tolist())
           for place, task in enumerate(MARGINS)}  # fmt: skip
    done = report([write(tmp_path, answers=far)], resamples=200)
    page = html.unescape(done.page.read_text(encoding="utf-8"))
    assert (
        page.count("At equal difficulty there is no overlap to match on: 0 % of recall have a margin that the other ability has too") == 2
    )
    (row, *_) = rows(done.page.parent, "matched")
    assert (row["kind"], row["difference"], row["low"], row["high"], row["finding"]) == ("no overlap", "", "", "", "")
    assert row["refusal"]


def test_few_items_have_no_line_and_the_report_says_why(tmp_path: Path) -> None:
    for sparsity, values in RECALL.items():
        given = {"lab_facts_closed": values[:25]}
        answers = {"lab_facts_closed": ranked(values[:25], 16)}
        write_trial(tmp_path, given, f"{sparsity:g}", chance=CHANCE, answers=None if sparsity else answers)
    done = report([tmp_path], resamples=200)
    assert any("no critical sparsity of recall against difficulty" in gap and "fewer than 30" in gap for gap in done.gaps)


def test_margins_of_two_scales_are_not_matched(tmp_path: Path) -> None:
    trials, _ = read([write(tmp_path)])
    for trial in trials:
        score = trial.tasks["icl_linear"]
        if score.margins:
            trial.tasks["icl_linear"] = replace(score, margins=replace(score.margins, unit="nats per character"))
    analysis = analyse(trials, classify(trials), resamples=200)
    assert analysis.difficulty.matched == analysis.difficulty.bins == {}
    assert any("lab_facts_closed in nats and those of icl_linear in nats per character" in gap for gap in analysis.gaps)


def test_over_replicates_every_model_is_matched_on_its_own_margins(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path, pretrained=name)
    done = report([tmp_path], replicates=[["one", "two"]], resamples=400)
    label = next(label for label, _, _ in done.analysis.over_models)
    sentence = done.analysis.difficulty.sentence(label, 0.05)
    assert sentence is not None
    assert sentence.startswith("Over 2 trained models, between items of equal difficulty")
    row = next(row for row in rows(done.page.parent, "matched") if row["series"] == label and float(row["drop"]) == 0.5)
    assert (row["kind"], row["models"], row["finding"]) == ("over models", "2", "in-context outlasts recall")
    page = html.unescape(done.page.read_text(encoding="utf-8"))
    notes = page[page.index('<p class="notes">') : page.index("What the intervals do not cover")]
    assert "Over 2 trained models, between items of equal difficulty" in notes
