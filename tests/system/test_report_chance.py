"""The chance of items, and dense models that are not above it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_folders import CONTEXT, RECALL, rows, write_plain, write_trial
from scipy.stats import binomtest

from harness_ext.report import report
from harness_ext.report.abilities import classify
from harness_ext.report.analysis import Analysis, analyse
from harness_ext.report.answers import chance_of
from harness_ext.report.reading import read
from harness_ext.report.trials import merge, share_chances

pytestmark = pytest.mark.usefixtures("quick_figures")

TASK, ITEMS = "lre_closed", 200
GENERATOR = np.random.default_rng(0)
CHOICES = GENERATOR.integers(2, 17, ITEMS).tolist()
OWN = float(np.mean([1 / count for count in CHOICES]))


def ranked(choices: list[int], *, text: bool = False) -> list[dict[str, Any]]:
    """Rows of a fact task: a completion, then the log-likelihood of every choice."""
    pair = ["-1.0", "False"] if text else [-1.0, False]
    return [{"target": "Paris", "filtered_resps": ["Rome", *[pair] * count]} for count in choices]


def test_the_chance_is_that_of_the_items() -> None:
    assert chance_of(ranked(CHOICES), [0.0] * ITEMS) == pytest.approx(OWN)
    assert chance_of(ranked(CHOICES, text=True), [1.0] * ITEMS) == pytest.approx(OWN)
    twice = [{"filtered_resps": [[-1.0, False]] * 8, "metrics": ["acc_mutual_info"], "target": 0}]
    assert chance_of(twice, [1.0]) == 1 / 4


@pytest.mark.parametrize(
    ("rows", "scores"),
    [
        ([], []),
        (ranked([1]), [1.0]),
        ([{"filtered_resps": ["Rome"], "target": "Rome"}], [1.0]),
        (ranked([4]), [0.5]),
        ([{"filtered_resps": [[-1.0, False]] * 4, "target": [0, 2]}], [1.0]),
        ([{}], [1.0]),
    ],
    ids=["no items", "one choice", "a completion", "a graded score", "several right ones", "no responses"],
)
def test_where_the_chance_of_an_item_is_not_known_there_is_none(rows: list, scores: list[float]) -> None:
    assert chance_of(rows, scores) is None


@pytest.mark.parametrize("plain", [False, True])
def test_scores_are_corrected_with_the_chance_of_the_items(tmp_path: Path, plain: bool) -> None:
    for number, sparsity in enumerate(RECALL):
        if plain:
            write_plain(tmp_path, {TASK: RECALL[sparsity]}, f"{sparsity:g}", stamp=str(number), answers={TASK: ranked(CHOICES, text=True)})
        else:
            write_trial(tmp_path, {TASK: RECALL[sparsity]}, f"{sparsity:g}", answers={TASK: ranked(CHOICES)})
    done = analysed(tmp_path)
    assert not any("chance is taken to be 0" in gap for gap in done.gaps)
    for row in done.rows:
        assert row.score.chance == pytest.approx(OWN)
        assert row.score.corrected == pytest.approx((row.score.value - OWN) / (1 - OWN))
    assert {curve.corrected for curve in done.curves.values()} == {True}


def test_items_overrule_what_a_task_declares_and_the_report_says_so(tmp_path: Path) -> None:
    write_trial(tmp_path, {TASK: RECALL[0.0]}, answers={TASK: ranked([4] * ITEMS)}, chance={TASK: 0.0625})
    done = analysed(tmp_path)
    assert done.rows[0].score.chance == 0.25
    assert any("0.0625" in gap and "0.25" in gap for gap in done.gaps)


def test_results_without_samples_have_the_chance_of_those_with_them(tmp_path: Path) -> None:
    write_plain(tmp_path, {TASK: RECALL[0.0]}, "0", stamp="0", answers={TASK: ranked(CHOICES)})
    write_plain(tmp_path, {TASK: RECALL[0.6]}, "0.6", stamp="1", logged=False)
    done = analysed(tmp_path)
    assert [row.score.chance for row in done.rows] == [pytest.approx(OWN)] * 2


def analysed(folder: Path) -> Analysis:
    trials, gaps = read([folder])
    share_chances(trials)
    trials = merge(trials)
    return analyse(trials, classify(trials), resamples=400, gaps=gaps)


def scores(share: float) -> list[int]:
    return [1] * round(share * ITEMS) + [0] * (ITEMS - round(share * ITEMS))


def write(folder: Path, dense: float, pruned: float) -> Path:
    """Recall with the given shares of right answers, and an in-context task that does not fall."""
    for sparsity, share in ((0.0, dense), (0.3, pruned), (0.6, pruned)):
        write_trial(folder, {"lab_facts_closed": scores(share), "icl_linear": CONTEXT[sparsity]}, f"{sparsity:g}")
    return folder


@pytest.mark.parametrize("dense", [0.2, 0.25, 0.29], ids=["below chance", "at chance", "above it within the interval"])
def test_a_dense_model_that_is_not_shown_to_be_above_chance_has_no_curve(tmp_path: Path, dense: float) -> None:
    done = analysed(write(tmp_path, dense, dense))
    [nothing] = done.not_above_chance
    assert nothing.lacks_items == (dense > 0.25)
    assert (nothing.ability, nothing.whole, [task.task for task in nothing.tasks]) == ("recall", True, ["lab_facts_closed"])
    assert not any(key[1] == "recall" for key in done.critical)
    assert done.disparities == {}


def test_a_dense_model_above_chance_has_something_to_lose(tmp_path: Path) -> None:
    done = analysed(write(tmp_path, 0.4, 0.4))
    assert done.not_above_chance == []
    assert any(key[1] == "recall" for key in done.critical)


def test_the_first_words_of_the_page_say_that_there_is_nothing_to_lose(tmp_path: Path) -> None:
    made = report([write(tmp_path, 0.25, 0.25)], resamples=200)
    text = made.page.read_text(encoding="utf-8")
    heading = text[text.index("<h1>") : text.index("</h1>")]
    assert heading.startswith("<h1>There is nothing to lose in recall: the dense tiny is not above chance")
    assert "recall of this model" not in heading.lower()
    assert "0.25, 95 % CI" in text
    assert not any(row["ability"] == "recall" for row in rows(made.page.parent, "critical"))


def test_a_task_at_chance_is_named_and_is_in_no_mean(tmp_path: Path) -> None:
    for sparsity in (0.0, 0.3, 0.6):
        given = {"lab_facts_closed": RECALL[sparsity], "kv_512": scores(0.25), "kv_4": CONTEXT[sparsity], "odd": scores(0.1)}
        write_trial(tmp_path, given, f"{sparsity:g}", chance={"kv_512": 0.25, "kv_4": 0.25, "lab_facts_closed": 0.25, "odd": 0.2})
    done = analysed(tmp_path)
    assert [(one.ability, one.whole, [task.task for task in one.tasks]) for one in done.not_above_chance] == [
        ("in-context", False, ["kv_512"]), (None, True, ["odd"]),
    ]  # fmt: skip
    assert [tasks for (_, ability), tasks in done.used.items() if ability == "in-context"] == [["kv_4"]]
    assert "kv_512" in done.not_above_chance[0].sentence()


@pytest.mark.parametrize(("right", "items"), [(1, 1), (6, 12), (180, 200), (0, 1), (50, 200)])
def test_nothing_to_lose_is_said_only_where_the_score_is_not_above_chance(tmp_path: Path, right: int, items: int) -> None:
    for sparsity, kept in (("0", right), ("0.3", right // 2), ("0.6", 0)):
        given = {"lab_facts_closed": [1] * kept + [0] * (items - kept), "icl_linear": CONTEXT[0.0]}
        write_trial(tmp_path, given, sparsity)
    done = report([tmp_path], resamples=200)
    text = done.page.read_text(encoding="utf-8")
    score, [low, *_] = right / items, binomtest(right, items).proportion_ci(method="exact")
    assert ("nothing to lose" in text) == (score <= 0.25)
    assert ("not shown to be above chance" in text) == ("too few items" in text) == (score > 0.25 >= low)
    if score > 0.25 >= low:
        [gap] = [gap for gap in done.gaps if "not shown to be above chance" in gap]
        assert f"{score:.4g}" in gap
        assert f"{items} item" in gap
        assert "95 % CI" in gap
        assert "recall" in text[text.index("<h1>") : text.index("</h1>")]


def test_tasks_at_chance_and_tasks_with_too_few_items_are_told_apart(tmp_path: Path) -> None:
    for sparsity in (0.0, 0.3, 0.6):
        given = {"lab_facts_closed": RECALL[sparsity], "kv_512": scores(0.25), "kv_4": scores(0.29)}
        write_trial(tmp_path, given, f"{sparsity:g}", chance={"kv_512": 0.25, "kv_4": 0.25, "lab_facts_closed": 0.25})
    found = [([task.task for task in one.tasks], one.lacks_items, one.whole) for one in analysed(tmp_path).not_above_chance]
    assert found == [(["kv_512"], False, False), (["kv_4"], True, False)]
