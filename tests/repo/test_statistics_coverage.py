"""Intervals hold the truth as often as they say, over simulated experiments, and equal curves are not told apart.

``scripts/check_coverage.py`` does the same for more situations and more simulations. The methods were not chosen on the simulations here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from check_coverage import Ability, coverage, crossings, differences, pairs
from coverage_grids import SHAPES, critical_coverage, disparity_coverage, model_coverage
from coverage_matching import FAILS, MARGINS, World
from coverage_matching import coverage as matching_coverage

from harness_ext.statistics import Matching
from harness_ext.statistics.weighting import Block


def slow(*values):
    """One more case of a test that has a quick one."""
    return pytest.param(*values, marks=pytest.mark.slow)


def held(simulation, first, simulations=500):
    missed = coverage(simulation, simulations, first)
    return {name: 1 - (below + above) / simulations for name, (below, above) in missed.items()}


def at_least(share, level, simulations):
    """Whether so many of the simulations may come of an interval that holds the truth that often."""
    return stats.binomtest(round(share * simulations), simulations, level, alternative="less").pvalue > 0.01


@pytest.mark.parametrize(("level", "most"), [slow(0.8, 0.87), (0.95, 0.985), slow(0.99, 1.0)])
def test_the_retained_fraction_and_the_difference_are_covered_at_every_level(level, most):
    shares = held(pairs(Ability(), 5, level=level), 50_000)
    assert set(shares) == {"retained", "difference"}
    assert all(at_least(share, level, 500) and share <= most for share in shares.values()), shares


@pytest.mark.parametrize("level", [slow(0.8), 0.95, slow(0.9917)])
def test_means_over_three_calibration_seeds_are_covered_at_every_level(level):
    shares = held(pairs(Ability(seeds=3, seed_sd=0.01, rest=0.1), 5, seeds=True, level=level), 80_000)
    assert all(at_least(share, level, 500) for share in shares.values()), shares


@pytest.mark.parametrize("rest", [0.05, slow(0.5)])
def test_the_critical_sparsity_is_covered(rest):
    (share,) = held(crossings([Ability(rest=rest)], 0.05), 60_000, 200).values()
    assert at_least(share, 0.95, 200)


def test_equal_curves_show_no_disparity_beyond_the_level_of_the_test():
    shares = held(differences(Ability(), Ability(), 0.05), 70_000, 200)
    assert set(shares) == {"disparity at 5%", "disparity at 5% not shown"}
    assert all(at_least(share, 0.95, 200) for share in shares.values()), shares


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("points", "items"), [(4, 512), (7, 128), slow(12, 512)])
def test_intervals_hold_the_truth_on_every_grid_and_are_not_much_wider_than_needed(shape, points, items):
    """Where it is hardest: the score at a measured sparsity is just at the threshold."""
    found = critical_coverage(shape, points, items, "at a sparsity", 60, first=90_000)
    assert at_least(found.held, 0.95, 60)
    assert found.width <= 1.25 * found.normal


@pytest.mark.parametrize("shapes", [("knee", "cliff"), slow(("sigmoid", "sigmoid"))])
def test_differences_hold_the_truth_on_grids(shapes):
    equal, apart = (disparity_coverage(shapes, 6, 512, distance, 60, first=90_000) for distance in (0.0, 0.3))
    assert at_least(equal.held, 0.95, 60)
    assert at_least(1 - equal.shown, 0.95, 60)
    assert at_least(apart.held, 0.95, 60)
    assert apart.shown > 0.5  # nor is the test blind


@pytest.mark.parametrize("between", [0.01, slow(0.02), slow(0.03), 0.05])
def test_models_with_equal_abilities_in_expectation_show_no_disparity(between):
    found = model_coverage(between, 3, 7, 40, first=90_000, items=256)
    assert at_least(1 - found.shown, 0.95, 40)
    assert at_least(found.held, 0.95, 40)


def test_models_with_abilities_apart_show_a_disparity():
    assert model_coverage(0.02, 5, 10, 20, first=90_000, apart=0.3, items=1024).shown > 0.5


def test_half_of_the_noise_would_be_noticed(monkeypatch):
    draw = Block.draw

    def half(block, generator, resamples):
        sums, totals, one_more = draw(block, generator, resamples)
        centre = block.counts @ block.patterns / block.table_sizes
        return totals * (centre + (sums / totals - centre) / 2), totals, 0 * one_more

    monkeypatch.setattr(Block, "draw", half)
    assert all(share < 0.85 for share in held(pairs(Ability(), 5), 50_000, 200).values())


EQUAL, SPLIT = FAILS.values()


@pytest.mark.parametrize(("items", "seeds"), [(128, 1), (512, 3)])
def test_abilities_that_are_equal_at_equal_margin_are_not_told_apart_where_raw_curves_are(items, seeds):
    found = matching_coverage(World(MARGINS["2 SD"], EQUAL, (items, items), seeds), (0.05, 0.5), 40, first=95_000)
    for one in found.values():
        assert at_least(1 - one.shown, 0.95, 40)
        assert at_least(one.held, 0.95, 40)
        assert one.raw >= 0.5
        assert one.refused == 0


def test_a_split_at_equal_margin_is_found():
    found = matching_coverage(World(MARGINS["2 SD"], SPLIT, (256, 256)), (0.5,), 40, first=96_000)[0.5]
    assert found.shown > 0.9
    assert at_least(found.held, 0.95, 40)


def test_with_partial_overlap_nothing_is_found_falsely_and_without_overlap_nothing_is_computed():
    partial = matching_coverage(World(MARGINS["4 SD"], EQUAL, (1024, 1024)), (0.5,), 20, first=97_000)[0.5]
    assert partial.raw == 1
    assert at_least(1 - partial.shown, 0.95, 20)
    assert matching_coverage(World(MARGINS["10 SD"], EQUAL, (1024, 1024)), (0.5,), 10, first=98_000)[0.5].refused == 1


def test_without_matching_the_same_worlds_would_be_told_apart(monkeypatch):
    """The check above can fail."""
    monkeypatch.setattr(Matching, "_factors", lambda self, weights: tuple(np.ones((len(one), 999)) for one in weights))
    assert matching_coverage(World(MARGINS["2 SD"], EQUAL), (0.5,), 10, first=99_000)[0.5].shown > 0.5
