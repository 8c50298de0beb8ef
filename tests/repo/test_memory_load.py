"""What the page on the load of the memory says, on simulated sweeps of known truth."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import memory_load
import paper_family
from paper_scores import Cell, Scores
from train_family import LOADED

from harness_ext.statistics import Curve
from harness_ext.sweep.fields import read as read_fields
from harness_ext.tasks.people import population

SCRIPTS = Path(__file__).parents[2] / "scripts"
GRID = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def scores_of(task: str, people: int, seed: int, breaks_at: float | Sequence[float], scores: Scores) -> None:
    """A model that loses a task whole beyond one sparsity, which may be another one with each calibration seed, and nothing before."""
    name = f"build/lab-xs-{people}-people-{seed}/model"
    for draw, end in enumerate(np.atleast_1d(breaks_at)):
        for ratio in (0.0, *GRID) if draw == 0 else GRID:
            cell = Cell(name, "sparsegpt", ratio) if ratio else Cell(name)
            scores.add(cell, task, draw, {(task, item): float(ratio <= end) for item in range(50)}, 0.0)


def curves_of(scores: Scores, draws: int = 1) -> dict[tuple[int, str], list[dict[str, Curve]]]:
    return {
        (people, name): [{task: paper_family.curve(scores, name, task, draw) for task in memory_load.TASKS} for draw in range(draws)]
        for people, names in memory_load.models(scores).items()
        for name in names
    }


@pytest.fixture(scope="module")
def measured():
    """Recall breaks 0.1 earlier with each doubling of the load, reading never moves."""
    scores = Scores()
    for step, people in enumerate((200, 400, 800)):
        for seed in range(3):
            for task in memory_load.TASKS:
                scores_of(task, people, seed, 0.4 - 0.1 * step if task == "lab_facts_closed" else 0.5, scores)
    return memory_load.rows_of(curves_of(scores))


def test_a_slope_is_the_change_with_each_doubling():
    assert memory_load.slope([0.25, 0.5, 1.0], [0.6, 0.5, 0.4]) == pytest.approx(-0.1)


def test_recall_that_breaks_earlier_with_each_doubling_has_that_slope_and_reading_none(measured):
    for drop in measured["drops"]:
        slopes = measured["slopes"][drop]
        assert slopes["recall"].mean == pytest.approx(-0.1, abs=0.005)
        assert slopes["reading"].mean == pytest.approx(0, abs=1e-9)
        assert measured["differences"][drop].mean == pytest.approx(-0.1, abs=0.005)
        assert len(measured["differences"][drop].values) == 3


def test_critical_sparsities_lie_in_the_cell_of_the_grid_where_the_score_breaks(measured):
    for row in measured["rows"]:
        breaks = 0.4 - 0.1 * [200, 400, 800].index(row["people"])
        for found in row["critical"].values():
            assert breaks <= found["recall"].mean <= breaks + 0.1
            assert 0.5 <= found["reading"].mean <= 0.6
        assert all(gap.mean == pytest.approx(0.5 - breaks, abs=0.01) for gap in row["gaps"].values())


def test_a_model_has_the_mean_over_calibration_seeds_and_both_spreads_are_told():
    """Recall of the three models breaks at 0.2, 0.3, 0.4, and 0.1 later with each calibration seed; reading never moves."""
    scores = Scores()
    for people in (200, 400):
        for seed in range(3):
            for task in memory_load.TASKS:
                breaks = [0.2 + 0.1 * (seed + draw) for draw in range(3)] if task == "lab_facts_closed" else [0.6] * 3
                scores_of(task, people, seed, breaks, scores)
    found = memory_load.rows_of(curves_of(scores, draws=3))
    assert found["draws"] == 3
    for drop in found["drops"]:
        first = found["rows"][0]["critical"][drop]["recall"].values
        assert np.diff(first) == pytest.approx(0.1)
        assert 0.3 <= first[0] <= 0.4  # the mean of 0.2, 0.3 and 0.4, each within the cell that follows
        spread = found["spreads"][drop]
        assert (spread["recall"].draws, spread["recall"].models) == pytest.approx((0.1, 0.1))
        assert (spread["reading"].draws, spread["reading"].models) == pytest.approx((0, 0), abs=1e-9)
    assert "between calibration seeds of one model" in memory_load.render(found | {"notes": ""}, "figure.png")


def test_a_model_whose_score_does_not_fall_so_far_with_one_calibration_seed_is_marked():
    scores = Scores()
    for people in (200, 400):
        for seed in range(2):
            for task in memory_load.TASKS:
                scores_of(task, people, seed, [0.2, 0.7 if (people, seed) == (400, 1) else 0.3], scores)
    rows = memory_load.rows_of(curves_of(scores, draws=2))["rows"]
    assert [row["critical"][0.5]["recall"].beyond for row in rows] == [0, 1]
    assert "1 of 2 beyond the grid" in str(rows[1]["critical"][0.5]["recall"])


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((-0.10, -0.11, -0.12), "shown"),
        ((0.10, 0.11, 0.12), "the reverse is shown"),
        ((-0.1, 0.0, 0.1), "not shown"),
        ((-0.1,), "not shown"),
    ],
)
def test_a_fall_is_shown_where_the_interval_over_seeds_lies_below_zero(values, verdict):
    assert paper_family.shown(paper_family.OverSeeds(values), -1) == verdict


def test_a_load_is_its_bits_over_the_decoder_weights():
    assert [round(memory_load.load_of(people), 2) for people in LOADED] == [0.07, 0.2, 0.4, 0.6, 1.0]


def test_facts_asked_of_a_load_are_about_people_of_whom_it_was_told():
    everyone = population(0)
    told = {str(person) for person in everyone.memorised[: LOADED[0]]}
    ids = memory_load.facts_told(LOADED[0])
    assert len(set(ids)) == len(ids) == memory_load.ASKED
    assert {name.partition("/")[2] for name in ids} <= told
    assert len(memory_load.facts_told(2)) == 8


def test_models_of_a_load_are_in_the_order_of_their_seeds():
    scores = Scores()
    for people, seed in ((800, 1), (200, 10), (200, 2), (800, 0)):
        scores_of("kv_32", people, seed, 0.5, scores)
    seeds = {people: [name.partition("-people-")[2] for name in names] for people, names in memory_load.models(scores).items()}
    assert seeds == {200: ["2/model", "10/model"], 800: ["0/model", "1/model"]}


def test_the_page_has_a_row_for_each_load_and_the_verdicts(measured):
    page = memory_load.render(measured | {"notes": ""}, "figure.png")
    assert page.count("\n| 200 |") == page.count("\n| 800 |") == 3
    assert page.count("earlier recall fails") == page.count("more than in-context ability") == len(measured["drops"])
    assert "(figure.png)" in page


def test_a_figure_has_a_point_for_each_seed(measured):
    pytest.importorskip("matplotlib")
    figure = memory_load.draw(measured)
    points = sum(len(collection.get_offsets()) for axes in figure.axes for collection in axes.collections)
    assert points == 2 * 3 * 3 * len(memory_load.ABILITIES)


def test_sweeps_of_different_models_are_refused(tmp_path, monkeypatch):
    context, recall = Scores(), Scores()
    scores_of("lab_unseen_open", LOADED[0], 0, 0.5, context)
    scores_of("lab_facts_closed", LOADED[0], 1, 0.5, recall)
    (tmp_path / f"recall-{LOADED[0]}").mkdir()
    monkeypatch.setattr(memory_load, "read", lambda folders: context if folders[0].name == "context" else recall)
    with pytest.raises(ValueError, match=f"other models at {LOADED[0]} people"):
        memory_load.measured(tmp_path)


def test_sweeps_of_different_calibration_seeds_are_refused(tmp_path, monkeypatch):
    context, recall = Scores(), Scores()
    for task in memory_load.TASKS[1:]:
        scores_of(task, LOADED[0], 0, [0.5, 0.5], context)
    scores_of("lab_facts_closed", LOADED[0], 0, [0.5, 0.5, 0.5], recall)
    (tmp_path / f"recall-{LOADED[0]}").mkdir()
    monkeypatch.setattr(memory_load, "read", lambda folders: context if folders[0].name == "context" else recall)
    with pytest.raises(ValueError, match="calibration seeds"):
        memory_load.measured(tmp_path)


def test_each_load_has_a_file_of_the_facts_that_its_models_were_told(tmp_path):
    assert CliRunner().invoke(memory_load.app, ["facts", str(tmp_path)]).exit_code == 0
    files = {people: json.loads((tmp_path / f"facts-{people}.json").read_text())["known"] for people in LOADED}
    assert files == {people: memory_load.facts_told(people) for people in LOADED}


def test_the_grids_have_the_tasks_of_the_page_and_recall_the_finer_one():
    grids = {path.stem: read_fields(path) for path in (SCRIPTS / "memory_load").glob("*.yaml")}
    assert set(grids["context"]["sparsity"]) < set(grids["recall"]["sparsity"])
    assert grids["context"]["seeds"] == grids["recall"]["seeds"] == [0, 1, 2]
    assert sorted(task for grid in grids.values() for task in grid["tasks"]) == sorted(memory_load.TASKS)


def test_the_script_says_how_it_is_called():
    found = subprocess.run(["bash", str(SCRIPTS / "memory_load.sh"), "--quick"], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "usage" in found.stderr
