"""What the page of results says of training seeds, on simulated sweeps of known truth."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import paper_claims
import paper_family
from paper_family import OverSeeds
from paper_scores import ABILITIES, TASKS, Cell, Scores

GRID = [round(0.1 * step, 1) for step in range(1, 10)]


@pytest.fixture(scope="module")
def scores():
    """Two sizes with three seeds: a model has a share of its items at each sparsity, and loses recall at 0.3 and the rest at 0.6."""
    found = Scores()
    for size, recall in (("lab-xs", 0.4), ("lab-m", 1.0)):
        for seed in range(3):
            for ratio in (0.0, *GRID):
                cell = Cell(f"build/{size}-{seed}/model", "sparsegpt", ratio) if ratio else Cell(f"build/{size}-{seed}/model")
                for task in TASKS:
                    is_recall = task in ABILITIES["recall"]
                    held = (recall if is_recall else 0.9) * (ratio < (0.3 if is_recall else 0.6) + 0.1 * (seed == 2))
                    rights = np.arange(100) < round(100 * held)
                    found.add(cell, task, 0, {(task, item): float(right) for item, right in enumerate(rights)}, 0.0)
    return found


def test_an_interval_over_seeds_is_student_s():
    values = (0.1, 0.4, 0.25)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    found = OverSeeds(values)
    assert found.half_width == pytest.approx((high - low) / 2)
    assert found.mean == pytest.approx((high + low) / 2)
    assert OverSeeds((0.3,)).half_width is None
    assert str(OverSeeds((0.3,))) == "0.30"


def test_an_interval_over_three_seeds_holds_the_mean_in_19_of_20_cases():
    rng = np.random.default_rng(0)
    draws = [OverSeeds(tuple(rng.normal(size=3))) for _ in range(4000)]
    assert np.mean([abs(draw.mean) <= draw.half_width for draw in draws]) == pytest.approx(0.95, abs=0.012)


def test_models_are_those_of_each_size_the_smallest_first(scores):
    assert {size: len(names) for size, names in paper_family.models(scores).items()} == {"lab-xs": 3, "lab-m": 3}
    assert list(paper_family.models(scores)) == ["lab-xs", "lab-m"]


def test_the_dense_ladder_has_weights_loads_and_scores(scores):
    small, large = paper_family.dense_rows(scores)
    assert (small["weights"], large["weights"]) == (147_456, 786_432)
    assert (round(small["load"], 2), round(large["load"], 2)) == (2.67, 0.5)
    assert small["scores"]["recall"].mean == pytest.approx(0.4)
    assert small["scores"]["in-context"].mean == pytest.approx(0.9)


def test_what_a_smaller_model_lost_is_its_share_of_the_largest(scores):
    (row,) = paper_family.split_rows(scores)
    assert row["difference"].mean == pytest.approx(1.0 - 0.4)
    assert row["difference"].half_width == pytest.approx(0, abs=1e-9)


def test_critical_sparsities_vary_with_the_training_seed(scores):
    rows = paper_family.critical_rows(scores)
    assert [(row["size"], row["drop"]) for row in rows] == [(size, drop) for size in ("lab-xs", "lab-m") for drop in paper_family.DROPS]
    for row in rows:
        assert row["later"] == row["seeds"] == 3
        assert row["difference"].mean == pytest.approx(0.3, abs=0.01)
        assert np.ptp(row["critical"]["recall"].values) == pytest.approx(0.1, abs=1e-6)
        assert 0.2 < row["critical"]["recall"].mean < 0.35


def test_the_page_has_a_row_for_each_size_and_drop(scores):
    family = {
        "dense": paper_family.dense_rows(scores), "split": paper_family.split_rows(scores),
        "critical": paper_family.critical_rows(scores), "abilities": list(ABILITIES),
    }  # fmt: skip
    values = {"claims": [], "summary": [], "critical": [], "drops": (0.05,), "rows": [], "tasks": TASKS, "equal": [], "figures": []}
    page = paper_claims.render(**values, counts={}, facts={"trials": "1", "minutes": "1"}, seeds=3, family=family)
    section = page[page.index("## Other training seeds") : page.index("## Calibration text")]
    assert section.count("\n| lab-xs |") == section.count("\n| lab-m |") + 1 == 4
    assert "147,456" in section
