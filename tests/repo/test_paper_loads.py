"""What the page of results says of memory loads, on simulated sweeps of known truth."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import paper_claims
import paper_figures
import paper_loads
from paper_scores import Cell, Scores
from train_family import LOADED

from harness_ext.tasks.people import population

GRID = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def scores_of(task: str, people: int, seed: int, breaks_at: float, scores: Scores) -> None:
    """A model that loses a task whole beyond one sparsity, and nothing before."""
    name = f"build/lab-xs-{people}-people-{seed}/model"
    for ratio in (0.0, *GRID):
        cell = Cell(name, "sparsegpt", ratio) if ratio else Cell(name)
        scores.add(cell, task, 0, {(task, item): float(ratio <= breaks_at) for item in range(50)}, 0.0)


@pytest.fixture(scope="module")
def measured():
    """Recall breaks 0.1 earlier with each doubling of the load, reading never moves."""
    scores = Scores()
    for step, people in enumerate((200, 400, 800)):
        for seed in range(3):
            for task in paper_loads.TASKS:
                scores_of(task, people, seed, 0.4 - 0.1 * step if task == "lab_facts_closed" else 0.5, scores)
    names = paper_loads.models(scores)
    curves = {
        (people, name): {task: paper_loads.curve(scores, name, task) for task in paper_loads.TASKS}
        for people in names
        for name in names[people]
    }
    return paper_loads.rows_of(curves) | {"abilities": list(paper_loads.ABILITIES), "seeds": 3, "asked": 50}


def test_a_slope_is_the_change_with_each_doubling():
    assert paper_loads.slope([0.25, 0.5, 1.0], [0.6, 0.5, 0.4]) == pytest.approx(-0.1)


def test_recall_that_breaks_earlier_with_each_doubling_has_that_slope_and_reading_none(measured):
    for row in measured["slopes"]:
        assert row["slopes"]["recall"].mean == pytest.approx(-0.1, abs=0.005)
        assert row["slopes"]["reading"].mean == pytest.approx(0, abs=1e-9)
        assert row["difference"].mean == pytest.approx(-0.1, abs=0.005)
        assert len(row["difference"].values) == 3


def test_critical_sparsities_lie_in_the_cell_of_the_grid_where_the_score_breaks(measured):
    for row in measured["critical"]:
        breaks = 0.4 - 0.1 * [200, 400, 800].index(row["people"])
        assert breaks <= row["critical"]["recall"].mean <= breaks + 0.1
        assert 0.5 <= row["critical"]["reading"].mean <= 0.6


def test_a_load_is_its_bits_over_the_decoder_weights():
    assert [round(paper_loads.load_of(people), 2) for people in LOADED] == [0.07, 0.2, 0.4, 0.6, 1.0]


def test_facts_asked_of_a_load_are_about_people_of_whom_it_was_told():
    everyone = population(0)
    told = {str(person) for person in everyone.memorised[: LOADED[0]]}
    ids = paper_loads.facts_told(LOADED[0])
    assert len(set(ids)) == len(ids) == paper_loads.ASKED
    assert {name.partition("/")[2] for name in ids} <= told
    assert len(paper_loads.facts_told(2)) == 8


def test_models_of_a_load_are_in_the_order_of_their_seeds():
    scores = Scores()
    for people, seed in ((800, 1), (200, 10), (200, 2), (800, 0)):
        scores_of("kv_32", people, seed, 0.5, scores)
    seeds = {people: [name.partition("-people-")[2] for name in names] for people, names in paper_loads.models(scores).items()}
    assert seeds == {200: ["2/model", "10/model"], 800: ["0/model", "1/model"]}


def test_the_page_has_a_row_for_each_load_and_each_drop(measured):
    values = {"claims": [], "summary": [], "critical": [], "drops": (0.05,), "rows": [], "tasks": (), "equal": [], "figures": []}
    page = paper_claims.render(**values, counts={}, facts={"trials": "1", "minutes": "1"}, seeds=3, loads=measured)
    section = page[page.index("## Memory load") : page.index("## Calibration text")]
    assert section.count("\n| 200 |") == 1
    assert section.count("| 5 % |") == 4
    assert "-0.10 (-0.1" in section


def test_a_figure_has_a_point_for_each_seed(measured):
    pytest.importorskip("matplotlib")
    figure = paper_figures.loads(measured)
    points = sum(len(collection.get_offsets()) for axes in figure.axes for collection in axes.collections)
    assert points == 2 * 3 * 3 * len(paper_loads.ABILITIES)


def test_sweeps_of_different_models_are_refused(tmp_path, monkeypatch):
    context, recall = Scores(), Scores()
    scores_of("lab_unseen_open", LOADED[0], 0, 0.5, context)
    scores_of("lab_facts_closed", LOADED[0], 1, 0.5, recall)
    (tmp_path / f"loads-recall-{LOADED[0]}").mkdir()
    monkeypatch.setattr(paper_loads, "read", lambda folders: context if folders[0].name == "loads-context" else recall)
    with pytest.raises(ValueError, match=f"other models at {LOADED[0]} people"):
        paper_loads.measured(tmp_path)
