"""What the page on the fine grid says, on simulated sweeps of known truth."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import fine_grid
from paper_scores import Cell, MissingError, Scores, chance

from harness_ext.sweep.fields import read as read_fields

pytestmark = pytest.mark.slow  # they simulate whole grids

GRIDS = {"facts": np.arange(4, 29) / 40, "context": np.arange(12, 29) / 40}
RECALL_BREAKS, CONTEXT_BREAKS = 0.21, 0.51


def simulated(seeds: int = 3, items: int = 600, recall_breaks: tuple[float, ...] = (RECALL_BREAKS,)) -> Scores:
    """All items are right up to one sparsity, and at chance beyond it; recall may break elsewhere with each calibration seed."""
    scores = Scores()
    rng = np.random.RandomState(0)
    for task in fine_grid.FAMILIES:
        recall = task in fine_grid.ABILITIES["recall"]
        floor = fine_grid.CHANCE_OF_FOUR if task in fine_grid.ABILITIES[fine_grid.FOUR_LABELS] else chance(task, "exact_match")
        ids = fine_grid.facts_drawn(task, items) if task.startswith("lab") else [(task, item) for item in range(items)]
        guess = rng.rand(items) < floor
        for seed in range(seeds):
            breaks = recall_breaks[seed % len(recall_breaks)] if recall else CONTEXT_BREAKS
            for ratio in (0.0, *GRIDS["facts" if recall else "context"].tolist()):
                if ratio == 0 and seed:
                    continue  # the dense model has one trial
                cell = Cell("lab-m", "sparsegpt", ratio) if ratio else Cell("lab-m")
                right = np.ones(items) if ratio < breaks else guess
                scores.add(cell, task, seed, dict(zip(ids, right.astype(float), strict=True)), chance(task, "exact_match"))
    scores.facts = {"trials": "1", "minutes": "1", "devices": "cpu"}
    return scores


@pytest.fixture(scope="module")
def measured():
    return fine_grid.measured(simulated())


def test_each_ability_fails_in_the_step_in_which_it_breaks(measured):
    for drop in fine_grid.DROPS:
        for ability in fine_grid.ABILITIES:
            found = measured["critical"][drop][ability]
            expected = (0.2, 0.225) if ability == "recall" else (0.5, 0.525)
            assert found.cell == pytest.approx(expected), ability
            assert (found.low, found.high) == pytest.approx(expected)
            assert measured["deviations"][drop][ability] == pytest.approx(0)


def test_the_difference_reaches_over_both_steps(measured):
    for drop in fine_grid.DROPS:
        for ability in set(fine_grid.ABILITIES) - {"recall"}:
            found = measured["splits"][drop][ability]
            assert (found.low, found.high) == pytest.approx((0.5 - 0.225, 0.525 - 0.2))
            assert found.finding == "in-context outlasts recall"


def test_thinned_out_curves_have_the_steps_of_the_other_page(measured):
    for drop in fine_grid.DROPS:
        assert (measured["coarse"][drop]["recall"].low, measured["coarse"][drop]["recall"].high) == pytest.approx((0.2, 0.3))
        assert (measured["coarse"][drop]["lookup"].low, measured["coarse"][drop]["lookup"].high) == pytest.approx((0.5, 0.6))
    curves = fine_grid.curves_of(simulated(seeds=5))
    linear, recall = (fine_grid.thinned(curves[task]) for task in ("icl_linear", "lab_facts_closed"))
    assert np.asarray(linear.values).shape == (3, 6, 256)
    assert linear.sparsities == pytest.approx((0, 0.3, 0.4, 0.5, 0.6, 0.7))
    assert linear.ids == curves["icl_linear"].ids[:256]
    assert list(recall.ids) == fine_grid.facts_drawn("lab_facts_closed", 512)
    whole = curves["lab_facts_closed"]
    places = [whole.ids.index(item) for item in recall.ids]
    assert np.array_equal(np.asarray(recall.values)[:, 1:], np.asarray(whole.values)[:3, 1::4][:, :, places])


def test_chance_of_four_labels_is_theirs(measured):
    curves = measured["curves"]
    lost = [curves[name].scores[-1].value for name in ("functions", fine_grid.FOUR_LABELS)]
    assert lost == pytest.approx([0, 0], abs=0.06)


def test_calibration_seeds_that_differ_are_in_the_deviation_and_the_interval():
    curves = fine_grid.curves_of(simulated(recall_breaks=(0.16, 0.21, 0.26)))
    assert fine_grid.between_seeds(curves, "recall", 0.05) == pytest.approx(np.std([0, 0.05, 0.1], ddof=1))
    one = fine_grid.found(curves, "recall", 0.5)
    assert one.low <= 0.15
    assert one.high >= 0.275


def test_the_order_holds_where_it_is_simulated_and_only_there(measured):
    for drop in fine_grid.DROPS:
        outcomes = {what: outcome for what, _, outcome in measured["order"][drop]}
        assert {what for what, outcome in outcomes.items() if outcome == "shown"} == {"recall before reading", "recall before functions"}
        assert set(outcomes.values()) == {"shown", "not shown"}
        assert len(outcomes) == len(fine_grid.ORDER)


def test_a_trial_that_is_missing_is_named():
    scores = simulated(items=40)
    del scores.values[Cell("lab-m", "sparsegpt", 0.5), "icl_nn"][2]
    with pytest.raises(MissingError, match=r"icl_nn at 0\.5 lacks the calibration seed 2"):
        fine_grid.curves_of(scores)
    scores = simulated(items=40)
    for cell, task in scores.values:
        if task == "lab_facts_closed" and cell.ratio:
            del scores.values[cell, task][2]
    with pytest.raises(MissingError, match="different calibration seeds"):
        fine_grid.curves_of(scores)


def test_a_page_holds_the_seeds_of_which_both_sweeps_are_there(tmp_path):
    for name in ("facts-0", "context-0", "facts-10", "context-10", "facts-2", "context-3", "texts"):
        (tmp_path / name).mkdir()
    assert [path.name for path in fine_grid.sweeps_of(tmp_path)] == ["facts-0", "context-0", "facts-10", "context-10"]
    with pytest.raises(MissingError, match="facts-SEED, context-SEED"):
        fine_grid.sweeps_of(tmp_path / "texts")


def test_the_grids_are_those_of_the_page():
    for name, grid in GRIDS.items():
        fields = read_fields(Path(fine_grid.__file__).parent / "fine_grid" / f"{name}.yaml")
        first, last, step = (float(part) for part in str(fields["sparsity"]).split(":"))
        assert np.arange(round(first / step), round(last / step) + 1) * step == pytest.approx(grid)
        assert fields["seeds"] == list(range(10))
        tasks = fields["tasks"]
        assert set(tasks) == {task for task in fine_grid.FAMILIES if (task in fine_grid.ABILITIES["recall"]) == (name == "facts")}


def test_the_page_and_its_figure(measured, tmp_path):
    pytest.importorskip("matplotlib")
    page = fine_grid.render(measured, "figure.png")
    assert "| recall | 0.2 and 0.225 | 0.2 to 0.225 |" in page
    assert page.count("in-context ability outlasts recall by 0.275 to 0.325") == len(fine_grid.DROPS)
    assert "At a 50 % drop, recall fails between 0.2 and 0.225 (95 % interval 0.2 to 0.225)." in page
    fine_grid.save(fine_grid.draw, measured, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
