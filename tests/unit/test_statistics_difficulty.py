"""Critical sparsities of items in bins of their margin in the dense model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from simulated_scores import GRID

from harness_ext.statistics import Curve, StatisticsError, by_difficulty, critical_sparsity

ITEMS = 300


def curve(name="facts", seed=0, lost_at=lambda margin: 0.1 + 0.15 * margin, ids=None):
    """Items with margins from 0 to 5; each is lost at a sparsity that depends on its margin."""
    margins = np.random.default_rng(seed).uniform(0, 5, ITEMS)
    return Curve(name, GRID, (np.array(GRID)[:, None] < lost_at(margins)).astype(float), ids), margins


def test_bins_have_equally_many_items_by_rising_margin():
    facts, margins = curve()
    bins = by_difficulty([facts], {"facts": margins}, drop=0.5)
    assert [one.items for one in bins] == [38, 38, 38, 38, 37, 37, 37, 37]
    ordered = np.sort(margins)
    assert [one.low for one in bins] == [ordered[start] for start in np.cumsum([0, *(one.items for one in bins)])[:-1]]
    assert [one.high for one in bins] == [ordered[end - 1] for end in np.cumsum([one.items for one in bins])]
    assert all(one.low <= one.middle <= one.high for one in bins)
    assert json.loads(json.dumps(bins[0].to_dict(), allow_nan=False)) == bins[0].to_dict()


def test_a_bin_is_the_critical_sparsity_of_its_items_alone():
    facts, margins = curve()
    order = np.argsort(margins)
    bins = by_difficulty([facts], {"facts": margins}, drop=0.5, resamples=4000)
    for members, one in zip(np.array_split(order, len(bins)), bins, strict=True):
        alone = critical_sparsity(GRID, np.asarray(facts.values)[0][:, members], drop=0.5, resamples=4000)
        assert (one.critical.cell, one.critical.low) == (alone.cell, alone.low)
        assert one.critical.high <= alone.high  # there, one more item may be one that the dense model gets wrong
        assert one.critical.sparsity == (alone.sparsity if alone.sparsity is None else pytest.approx(alone.sparsity))


def test_easy_items_are_lost_later():
    facts, margins = curve()
    found = [one.critical.sparsity for one in by_difficulty([facts], {"facts": margins}, drop=0.5)]
    assert found == sorted(found)
    assert found[-1] - found[0] > 0.4


def test_families_weigh_items_as_in_the_score():
    """Of two tasks in one bin, one is lost at 0.3 and the other never: the score of the bin is that of the weights of the families."""
    lost, _ = curve("lost", lost_at=lambda margin: np.full(len(margin), 0.25))
    held, _ = curve("held", lost_at=lambda margin: np.full(len(margin), 1.0))
    more, _ = curve("more", lost_at=lambda margin: np.full(len(margin), 1.0))
    margins = {name: np.ones(ITEMS) for name in ("lost", "held", "more")}
    families = {"lost": "a", "held": "b", "more": "b"}
    for drop, cell in ((0.45, (0.2, 0.3)), (0.55, (0.9, None))):
        (one,) = by_difficulty([lost, held, more], margins, drop=drop, families=families, most=1)
        assert one.critical.cell == cell
    (one,) = by_difficulty([lost, held, more], margins, drop=0.45, most=1)
    assert one.critical.cell == (0.9, None)


def test_the_same_item_in_two_tasks_is_resampled_once():
    """Two copies of every item tell no more than one."""
    ids = [f"item {number}" for number in range(ITEMS)]
    generator = np.random.default_rng(1)
    values = (generator.random(ITEMS) < np.linspace(1, 0.4, 10)[:, None]).astype(float)
    values[0] = 1
    once, twice = Curve("a", GRID, values, ids), Curve("b", GRID, values, ids)
    margins = {name: np.ones(ITEMS) for name in ("a", "b")}
    one, two = (by_difficulty(curves, margins, drop=0.2, most=1)[0].critical for curves in ([once], [once, twice]))
    assert (one.low, one.high) == (two.low, two.high)
    (apart,) = by_difficulty([once, Curve("b", GRID, values)], margins, drop=0.2, most=1)
    assert apart.critical.high - apart.critical.low <= two.high - two.low


@pytest.mark.parametrize(("fewest", "most", "bins"), [(30, 8, 8), (100, 8, 3), (150, 8, 2), (301, 8, 0), (30, 1, 1)])
def test_the_number_of_bins(fewest, most, bins):
    facts, margins = curve()
    assert len(by_difficulty([facts], {"facts": margins}, drop=0.5, fewest=fewest, most=most)) == bins


@pytest.mark.parametrize("options", [{"drop": 1.0}, {"drop": 0.5, "fewest": 0}, {"drop": 0.5, "most": True}, {"drop": 0.5, "level": 0.2}])
def test_wrong_options_are_refused(options):
    facts, margins = curve()
    with pytest.raises(StatisticsError):
        by_difficulty([facts], {"facts": margins}, **options)
