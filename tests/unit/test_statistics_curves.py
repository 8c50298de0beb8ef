"""Critical sparsities and disparities: the monotone fit against pooling by hand, crossings and bounds against arithmetic."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import raises_line
from scipy.optimize import isotonic_regression

from harness_ext.statistics import (
    Curve,
    StatisticsError,
    ability_critical,
    ability_curve,
    critical_sparsity,
    disparity,
    isotonic,
)
from harness_ext.statistics.curves import Crossing


def pooled(values):
    """Pool adjacent violators, as in Barlow et al.: whoever rises is merged with the one before."""
    blocks = []
    for value in values:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            (one, n), (other, m) = blocks[-2:]
            blocks[-2:] = [[(one * n + other * m) / (n + m), n + m]]
    return [mean for mean, size in blocks for _ in range(size)]


def steps(*right, items=100):
    """[sparsity, item] with so many items right; those that are lost stay lost."""
    return np.array([[1.0] * count + [0.0] * (items - count) for count in right])


def noisy(middle, *, items=300, dense=0.9, seed=0, seeds=None):
    """[(seed,) sparsity, item] of a logistic curve over ten sparsities."""
    generator = np.random.default_rng(seed)
    means = dense / (1 + np.exp((np.arange(10) / 10 - middle) / 0.06))
    values = (generator.random(items) < means[:, None]).astype(float)
    more = [(generator.random(items) < means[:, None] * (0.97 + 0.03 * number)) & (values > 0) for number in range(seeds or 0)]
    return np.stack([np.vstack([values[:1], other[1:]]) for other in more]) if seeds else values


GRID = [index / 10 for index in range(10)]


class TestIsotonic:
    @given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    def test_is_pooling_adjacent_violators(self, fifths):
        values = np.array(fifths) / 5
        assert isotonic(values) == pytest.approx(pooled(values))
        assert isotonic(values) == pytest.approx(isotonic_regression(values, increasing=False).x)

    def test_fits_many_curves_at_once(self):
        values = np.random.default_rng(0).random((3, 4, 7))
        assert isotonic(values)[2, 1] == pytest.approx(pooled(values[2, 1]))


class TestCriticalSparsity:
    def test_is_where_the_line_between_two_sparsities_crosses_the_threshold(self):
        # 0.95 of 80 is 76, a quarter of the way from 78 to 70.
        found = critical_sparsity([0, 0.2, 0.4, 0.6], steps(80, 78, 70, 20), drop=0.05)
        assert found.sparsity == pytest.approx(0.2 + 0.2 * 2 / 8)
        assert found.low < found.sparsity < found.high
        assert (found.items, found.seeds, found.last, found.censored) == (100, 1, 0.6, False)

    def test_of_chance_corrected_scores_is_measured_above_chance(self):
        values = steps(80, 78, 70, 50)
        # 0.9 of the 30 above chance: the threshold is 50 + 27 = 77.
        found = critical_sparsity([0, 0.2, 0.4, 0.6], values, drop=0.1, chance=0.5, corrected=True)
        assert found.sparsity == pytest.approx(0.2 + 0.2 * 1 / 8)
        assert found.corrected
        assert critical_sparsity([0, 0.2, 0.4, 0.6], values, drop=0.1, chance=0.5).sparsity == pytest.approx(0.2 + 0.2 * 6 / 8)

    def test_takes_the_sparsities_in_any_order(self):
        order = [2, 0, 3, 1]
        grid, values = np.array([0, 0.2, 0.4, 0.6]), steps(80, 78, 70, 20)
        assert critical_sparsity(grid[order].tolist(), values[order], drop=0.05) == critical_sparsity(grid.tolist(), values, drop=0.05)

    def test_is_read_off_the_monotone_fit_and_relative_to_the_measured_dense_score(self):
        # The fit is 80, 80, 80, 70: two points pooled to 80. The threshold is 0.9 * 80 = 72.
        assert critical_sparsity([0, 0.1, 0.2, 0.3], steps(80, 76, 84, 70), drop=0.1).sparsity == pytest.approx(0.2 + 0.1 * 8 / 10)
        # A score that rises when pruned does not raise the threshold: the fit is 85, 85, 60 and the threshold 72.
        assert critical_sparsity([0, 0.1, 0.2], steps(80, 90, 60), drop=0.1).sparsity == pytest.approx(0.1 + 0.1 * 13 / 25)

    def test_never_reached_is_a_state_and_not_a_number(self):
        found = critical_sparsity([0, 0.5], steps(80, 80), drop=0.05)
        assert found.censored
        assert found.sparsity is None
        assert (found.low, found.high, found.last) == (0.5, None, 0.5)
        assert "does not fail up to 0.50" in found.phrase()

    def test_near_the_end_of_the_grid_has_an_interval_without_an_upper_end(self):
        reached = critical_sparsity([0, 0.5, 0.6], steps(80, 80, 75), drop=0.05)
        assert not reached.censored
        assert reached.high is None
        missed = critical_sparsity([0, 0.5, 0.6], steps(80, 80, 77), drop=0.05)
        assert missed.censored
        assert missed.low < 0.6
        assert "to beyond 0.60" in missed.interval_words()

    def test_just_at_the_threshold_is_not_below_it(self):
        assert critical_sparsity([0, 0.5], steps(100, 95), drop=0.05).censored
        assert critical_sparsity([0, 0.5, 0.9], steps(100, 95, 95), drop=0.05).censored

    def test_of_an_ability_is_that_of_the_mean_over_its_tasks(self):
        one, other = steps(80, 78, 70, 20), steps(40, 40, 40, 30, items=50)
        curves = [Curve("one", [0, 0.2, 0.4, 0.6], one), Curve("other", [0, 0.2, 0.4, 0.6], other)]
        mean = (one.mean(1) + other.mean(1)) / 2
        threshold = 0.95 * mean[0]
        assert mean[1] > threshold > mean[2]
        assert ability_critical(curves, drop=0.05).sparsity == pytest.approx(0.2 + 0.2 * (mean[1] - threshold) / (mean[1] - mean[2]))

    def test_of_two_tasks_with_the_same_items_and_scores_is_that_of_one(self):
        values = noisy(0.5)
        ids = range(values.shape[1])
        twice = ability_critical([Curve("one", GRID, values, ids), Curve("other", GRID, values, ids)], drop=0.05)
        once = ability_critical([Curve("one", GRID, values, ids)], drop=0.05)
        assert (twice.sparsity, twice.low, twice.high, twice.items) == pytest.approx((once.sparsity, once.low, once.high, once.items))
        apart = ability_critical([Curve("one", GRID, values), Curve("other", GRID, values)], drop=0.05)
        assert apart.high - apart.low < 0.85 * (once.high - once.low)

    def test_grows_with_the_drop(self):
        found = [critical_sparsity(GRID, noisy(0.5), drop=drop) for drop in (0.02, 0.05, 0.1)]
        assert found[0].sparsity < found[1].sparsity < found[2].sparsity

    def test_over_seeds_that_agree_is_that_of_one_and_seeds_that_disagree_widen_it(self):
        one = critical_sparsity(GRID, noisy(0.5), drop=0.1)
        same = critical_sparsity(GRID, np.stack([noisy(0.5)] * 3), drop=0.1)
        assert (same.sparsity, same.low, same.high) == pytest.approx((one.sparsity, one.low, one.high))
        apart = critical_sparsity(GRID, np.stack([noisy(middle) for middle in (0.42, 0.5, 0.58)]), drop=0.1)
        assert apart.seeds == 3
        assert apart.high - apart.low > 1.3 * (one.high - one.low)

    def test_crossing_bounds_what_is_not_known(self):
        crossing = Crossing.of([Curve("one", [0, 0.5], steps(80, 40), chance=0.5)], 0.1, True)
        low, high = crossing(np.array([[0.8, 0.79], [0.5, 0.4], [np.nan, np.nan], [0.8, 0.5]]))
        assert low.tolist() == pytest.approx([0.5, 0, 0, 0.05])
        assert high.tolist() == pytest.approx([np.inf, np.inf, np.inf, 0.05])

    def test_contrast_is_the_derivative_of_the_crossing(self):
        curves = [Curve("one", GRID, noisy(0.5), chance=0.1), Curve("other", GRID, noisy(0.6, items=100, seed=1), chance=0.25)]
        crossing = Crossing.of(curves, 0.3, True)
        means = np.concatenate([0.9 / (1 + np.exp((np.array(GRID) - middle) / 0.06)) for middle in (0.5, 0.6)])
        steps_of = 1e-6 * np.eye(20)
        by_differences = (crossing(means + steps_of)[0] - crossing(means - steps_of)[0]) / 2e-6
        assert crossing.contrast(means, per_fall=True) == pytest.approx(by_differences, abs=1e-6)


class TestAbilityCurve:
    def test_has_the_means_their_fit_and_intervals(self):
        values = noisy(0.5)
        found = ability_curve([Curve("one", GRID, values)])
        assert [score.value for score in found.scores] == pytest.approx(values.mean(1))
        assert found.fitted == pytest.approx(pooled(values.mean(1)))
        assert all(score.low <= score.value <= score.high for score in found.scores)
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()


class TestDisparity:
    def test_is_the_difference_of_the_critical_sparsities(self):
        recall, other = Curve("facts", GRID, noisy(0.4)), Curve("reading", GRID, noisy(0.7, seed=1))
        found = disparity([recall], [other], drop=0.05, names=("recall", "reading"))
        assert found.recall == ability_critical([recall], drop=0.05)
        assert found.in_context == ability_critical([other], drop=0.05)
        assert found.difference == pytest.approx(found.in_context.sparsity - found.recall.sparsity)
        assert found.shown
        assert (found.kind, found.finding) == ("estimate", "in-context outlasts recall")
        sentence = found.sentence()
        assert sentence.startswith(
            f"At a 5 % relative drop of the score recall fails at a sparsity of {found.recall.sparsity:.2f} (95 % CI "
        )
        assert f"reading outlasts recall by {found.difference:.2f} ({found.low:.2f} to {found.high:.2f})." in sentence
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()

    def test_the_other_way_round_is_said_to_be_the_reverse(self):
        found = disparity([Curve("facts", GRID, noisy(0.7))], [Curve("reading", GRID, noisy(0.4, seed=1))], drop=0.05)
        assert found.finding == "recall outlasts in-context"
        assert found.high < 0
        assert "the reverse of the claim is shown, recall outlasts in-context ability by 0." in found.sentence()

    def test_of_equal_curves_is_not_shown(self):
        found = disparity([Curve("facts", GRID, noisy(0.5))], [Curve("reading", GRID, noisy(0.5, seed=1))], drop=0.05)
        assert not found.shown
        assert "is not shown" in found.sentence()
        assert "an interval that includes 0." in found.sentence()

    def test_of_the_same_items_with_the_same_scores_is_exactly_nothing(self):
        values, ids = noisy(0.5), range(300)
        found = disparity([Curve("one", GRID, values, ids)], [Curve("other", GRID, values, ids)], drop=0.05)
        assert (found.difference, found.low, found.high) == (0, 0, 0)

    def test_of_an_ability_that_never_fails_is_a_lower_bound(self):
        recall, other = Curve("facts", [0, 0.3, 0.6], steps(80, 70, 20)), Curve("reading", [0, 0.3, 0.6], steps(80, 80, 80))
        found = disparity([recall], [other], drop=0.05)
        assert (found.kind, found.high, found.finding) == ("at least", None, "in-context outlasts recall")
        assert found.difference == pytest.approx(0.6 - found.recall.sparsity)
        assert "does not fail up to 0.60" in found.sentence()
        assert f"outlasts recall by at least {found.difference:.2f} ({found.low:.2f} or more)" in found.sentence()

    def test_of_recall_that_never_fails_is_an_upper_bound(self):
        recall, other = Curve("facts", [0, 0.3, 0.6], steps(80, 80, 80)), Curve("reading", [0, 0.3, 0.6], steps(80, 70, 20))
        found = disparity([recall], [other], drop=0.05)
        assert (found.kind, found.low, found.finding) == ("at most", None, "recall outlasts in-context")
        assert f"recall outlasts in-context ability by at least {-found.difference:.2f}" in found.sentence()

    def test_where_neither_fails_shows_nothing(self):
        curve = Curve("facts", [0, 0.3, 0.6], steps(80, 80, 80))
        found = disparity([curve], [Curve("reading", [0, 0.3, 0.6], steps(80, 80, 80))], drop=0.05)
        assert (found.kind, found.difference, found.low, found.high, found.shown) == ("unknown", None, None, None, False)
        assert "neither recall" in found.sentence()
        assert "not shown" in found.sentence()

    def test_resamples_items_of_the_same_id_and_seeds_together(self):
        values, ids = noisy(0.5, seeds=3), range(300)
        found = disparity([Curve("one", GRID, values, ids)], [Curve("other", GRID, values, ids)], drop=0.05)
        assert (found.low, found.high) == (0, 0)

    def test_takes_tasks_that_share_some_of_their_items(self):
        values = noisy(0.5)
        left, right = Curve("one", GRID, values[:, :200], range(200)), Curve("other", GRID, values[:, 100:], range(100, 300))
        found = disparity([left], [right], drop=0.1)
        apart = disparity([Curve("one", GRID, values[:, :200])], [Curve("other", GRID, values[:, 100:])], drop=0.1)
        assert found.difference == pytest.approx(apart.difference)
        assert found.high - found.low < apart.high - apart.low

    def test_gives_the_same_bits_for_the_same_seed(self):
        one, other = [Curve("facts", GRID, noisy(0.5))], [Curve("reading", GRID, noisy(0.55, seed=1))]
        assert disparity(one, other, drop=0.05) == disparity(one, other, drop=0.05)
        assert disparity(one, other, drop=0.05, seed=1).low != disparity(one, other, drop=0.05).low


class TestBadInput:
    FINE = steps(80, 70)

    @pytest.mark.parametrize(
        ("sparsities", "values", "more", "said"),
        [
            ([0], steps(80), {}, "at least two"),
            ([], steps(80), {}, "at least two"),
            ([0.1, 0.5], FINE, {}, "the dense model (0) is missing"),
            ([0, 0.5, 0.5], steps(80, 70, 60), {}, "0.5 is there twice"),
            ([0, 50], FINE, {}, "ratios in [0, 1)"),
            ([0, "x"], FINE, {}, "want numbers"),
            ([0, 0.5, 0.6], FINE, {}, "3 sparsities for 2 rows"),
            ([0, 0.5], np.ones((2, 0)), {}, "empty"),
            ([0, 0.5], np.ones(2), {}, "1 dimensions; want 2 or 3"),
            ([0, 0.5], [[1, 1], [1]], {}, "every row of the same length"),
            ([0, 0.5], np.full((2, 3), np.nan), {}, "NaN"),
            ([0, 0.5], 100 * FINE, {}, "divide percentages by 100"),
            ([0, 0.5], FINE, {"chance": 0.8}, "not above chance 0.8"),
            ([0, 0.5], np.zeros((2, 3)), {}, "not above chance 0"),
            ([0, 0.5], FINE, {"chance": -1}, "chance=-1"),
            ([0, 0.5], FINE, {"drop": 5}, "drop=5"),
            ([0, 0.5], FINE, {"level": 1.0}, "level=1.0"),
            ([0, 0.5], FINE, {"resamples": 1}, "resamples=1"),
        ],
    )
    def test_of_a_curve_is_an_error_of_one_line(self, sparsities, values, more, said):
        with raises_line(StatisticsError, said):
            critical_sparsity(sparsities, values, **{"drop": 0.05} | more)

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda: ability_critical([], drop=0.05), "no curve"),
            (lambda: Curve("facts", [0, 0.5], steps(80, 70), ids=["a"] * 100), "'a' occurs 100 times"),
            (lambda: ability_critical([Curve("a", [0, 0.5], steps(8, 7)), Curve("b", [0, 0.6], steps(8, 7))], drop=0.1), "0.5, 0.6"),
            (
                lambda: ability_curve([Curve("a", [0, 0.5], steps(8, 7)), Curve("b", [0, 0.5], np.stack([steps(8, 7)] * 2))]),
                "a has 1 calibration seeds, b 2",
            ),
            (
                lambda: disparity([Curve("a", [0, 0.5], steps(8, 7))], [Curve("b", [0, 0.5], np.stack([steps(8, 7)] * 2))], drop=0.1),
                "want the same ones",
            ),
        ],
    )
    def test_of_an_ability_is_an_error_of_one_line(self, make, said):
        with raises_line(StatisticsError, said):
            make()


def test_what_was_computed_before_from_the_same_curves_changes_nothing():
    values = np.random.default_rng(0).random((3, 4, 60)) < np.array([0.9, 0.8, 0.5, 0.2])[None, :, None]

    def critical(curve, seed, resamples=200):
        return ability_critical([curve], drop=0.1, seed=seed, resamples=resamples)

    def fresh():
        return Curve("task", [0.0, 0.3, 0.5, 0.7], values)

    kept = fresh()
    found = [critical(kept, 0), critical(kept, 1), critical(kept, 0, 300), critical(kept, 0)]
    assert found == [critical(fresh(), 0), critical(fresh(), 1), critical(fresh(), 0, 300), critical(fresh(), 0)]
    assert found[0] != found[1]
