"""Critical sparsities and disparities: the monotone fit against pooling by hand, crossings and bounds against arithmetic."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import raises_line
from scipy.optimize import isotonic_regression
from scipy.stats import binomtest

from harness_ext.statistics import (
    Curve,
    StatisticsError,
    ability_critical,
    ability_curve,
    critical_sparsity,
    disparity,
    family_mean,
    family_weights,
    isotonic,
    p_value,
    sparsities_to_add,
)
from harness_ext.statistics.cells import cells_at_the_ends, crossing, midpoints
from harness_ext.statistics.curves import Ability
from harness_ext.statistics.weighting import Sample


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


def noisy_line(points):
    """[sparsity, item] that falls by a sixth over the grid, with 60 items that flip."""
    return (np.random.default_rng(0).random((points, 60)) < np.linspace(0.9, 0.75, points)[:, None]).astype(float)


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
        assert found.cell == (0.2, 0.4)
        assert found.low <= found.cell[0] < found.sparsity < found.cell[1] <= found.high
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
        assert "does not fail up to 0.5" in found.phrase()

    def test_near_the_end_of_the_grid_has_an_interval_without_an_upper_end(self):
        reached = critical_sparsity([0, 0.5, 0.6], steps(80, 80, 75), drop=0.05)
        assert not reached.censored
        assert reached.high is None
        missed = critical_sparsity([0, 0.5, 0.6], steps(80, 80, 77), drop=0.05)
        assert missed.censored
        assert missed.low < 0.6
        assert "to beyond 0.6" in missed.interval_words()

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
        assert (twice.sparsity, twice.items) == pytest.approx((once.sparsity, once.items))
        assert (twice.low, twice.high) == (once.low, once.high)
        apart = ability_curve([Curve("one", GRID, values), Curve("other", GRID, values)]).scores[5]
        together = ability_curve([Curve("one", GRID, values, ids), Curve("other", GRID, values, ids)]).scores[5]
        assert apart.high - apart.low < 0.85 * (together.high - together.low)

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

    def test_gradient_is_the_derivative_of_the_ability(self):
        curves = [Curve("one", GRID, noisy(0.5), chance=0.1), Curve("other", GRID, noisy(0.6, items=100, seed=1), chance=0.25)]
        ability, at = Ability.of(curves, True), np.random.default_rng(0).random(10)
        means = Sample([curve.table for curve in curves]).means
        steps_of = 1e-3 * np.eye(20)
        by_differences = (ability.scores(means + steps_of) - ability.scores(means - steps_of)) @ at / 2e-3
        assert ability.gradient(at) == pytest.approx(by_differences)
        assert ability.gradient(at) @ means + ability.offset(at) == pytest.approx(ability.scores(means[None])[0] @ at)
        by_hand = ((curves[0].values.mean((0, 2)) - 0.1) / 0.9 + (curves[1].values.mean((0, 2)) - 0.25) / 0.75) / 2
        assert ability.scores(means[None])[0] == pytest.approx(by_hand)


class TestCells:
    SPARSITIES = np.array([0, 0.3, 0.5, 0.6])

    @pytest.mark.parametrize(
        ("intervals", "cells"),
        [
            # Held, then lost: the cell between the two.
            ([(0.1, 0.2), (-0.3, -0.1), (-0.5, -0.4)], ((0.3, 0.5), (0.3, 0.5))),
            # What is not decided lies in the interval.
            ([(-0.1, 0.2), (-0.3, -0.1), (-0.5, -0.4)], ((0, 0.3), (0.3, 0.5))),
            ([(0.1, 0.2), (-0.3, 0.1), (-0.5, 0.4)], ((0.3, 0.5), (0.6, None))),
            # A walk ends at the first interval that does not decide, whatever comes behind.
            ([(-0.1, 0.2), (0.1, 0.2), (-0.5, -0.4)], ((0, 0.3), (0.5, 0.6))),
            ([(-0.3, -0.1), (-0.3, 0.1), (-0.5, -0.4)], ((0, 0.3), (0.5, 0.6))),
            ([(0.1, 0.2)] * 3, ((0.6, None), (0.6, None))),
            ([(-0.2, -0.1)] * 3, ((0, 0.3), (0, 0.3))),
            # Just at the threshold is held.
            ([(0.0, 0.2), (-0.2, 0.0), (-0.2, -0.1)], ((0.3, 0.5), (0.5, 0.6))),
        ],
    )
    def test_at_the_ends_are_where_the_walks_from_both_sides_stop(self, intervals, cells):
        assert cells_at_the_ends(self.SPARSITIES, intervals) == cells

    def test_of_the_crossing_hold_it(self):
        assert crossing(self.SPARSITIES, np.array([0.8, 0.8, 0.7, 0.2]), 0.05) == (pytest.approx(0.3 + 0.2 * 0.4), (0.3, 0.5))
        assert crossing(self.SPARSITIES, np.array([0.8, 0.8, 0.8, 0.78]), 0.05) == (None, (0.6, None))

    def test_are_halved_unless_they_are_narrow(self):
        assert midpoints([(0.0, 0.3), (0.6, None)]) == (0.15, 0.8)
        assert midpoints([(0.3, 0.31), (0.1, 0.35)]) == (0.225,)
        assert midpoints([(0.0, 0.3), (0.3, 0.4)], narrowest=0.1) == (0.15,)

    @pytest.mark.parametrize("shape", ["break", "line", "late"])
    def test_every_monotone_curve_through_the_scores_fails_within_the_interval(self, shape):
        """With 5000 items that are lost for good: wherever the curve falls between the sparsities, the interval holds it."""
        grid = [0, 0.3, 0.5, 0.6, 0.8]
        for fails in np.linspace(0.01, 0.79, 20):
            falls = {"break": 1.0, "line": 0.06 / max(fails, 0.05), "late": 0.2}[shape]
            means = [0.9 if at < fails else max(0.9 * 0.94 - falls * (at - fails), 0.0) for at in grid]
            values = np.stack([np.repeat([1.0, 0.0], [round(5000 * mean), 5000 - round(5000 * mean)]) for mean in means])
            found = critical_sparsity(grid, values, drop=0.05, resamples=100)
            assert found.low <= fails <= found.high
            assert found.high - found.low == pytest.approx(0.3 if fails < 0.3 else 0.1 if 0.5 < fails <= 0.6 else 0.2)

    def test_to_add_are_those_at_the_ends_of_the_interval(self):
        values = steps(800, 790, 700, 200, items=1000)
        found = critical_sparsity([0, 0.2, 0.4, 0.6], values, drop=0.05)
        assert found.deciding == ((0.2, 0.4),)
        assert found.add == (0.3,)
        assert found.width == pytest.approx(0.2)
        finer = critical_sparsity([0, 0.2, 0.3, 0.4, 0.6], np.insert(values, 2, values[1], axis=0), drop=0.05)
        assert (finer.low, finer.high, finer.add) == (0.3, 0.4, (0.35,))

    def test_to_add_end_when_the_intervals_are_narrow_or_the_grid_is_not_the_limit(self):
        grid = [0, 0.2, 0.4, 0.6]
        clear = critical_sparsity(grid, steps(800, 790, 700, 200, items=1000), drop=0.05)
        assert sparsities_to_add([clear], 0.1) == (0.3,)
        assert sparsities_to_add([clear], 0.2) == ()
        beyond = critical_sparsity(grid, steps(800, 800, 800, 800, items=1000), drop=0.05)
        assert sparsities_to_add([clear, beyond], 0.1) == (0.3, 0.8)
        few = critical_sparsity([0, 0.2, 0.22, 0.24, 0.26, 0.28], steps(80, 78, 77, 76, 75, 74), drop=0.05)
        assert few.width is None
        assert sparsities_to_add([critical_sparsity(np.arange(40) / 50, noisy_line(40), drop=0.05)], 0.1) == ()
        with pytest.raises(StatisticsError, match="width=0"):
            sparsities_to_add([clear], 0)

    def test_added_until_there_are_none_make_the_interval_as_narrow_as_asked(self):
        def scores(grid):
            return np.stack([np.repeat([1.0, 0.0], [right := round(5000 * (0.9 if at < 0.37 else 0.5)), 5000 - right]) for at in grid])

        grid, rounds = [0.0, 0.3, 0.5, 0.8], 0
        while add := sparsities_to_add([found := critical_sparsity(grid, scores(grid), drop=0.05)], 0.02):
            grid, rounds = sorted([*grid, *add]), rounds + 1
        assert found.width <= 0.02
        assert found.low <= 0.37 <= found.high
        assert rounds == 4  # 0.2 is halved to 0.0125
        assert len(grid) == 8


FAMILIES = {"a_open": "a", "a_closed": "a", "b": "b", "c": "c"}


class TestFamilies:
    def test_have_the_same_weight_whatever_their_number_of_tasks(self):
        assert family_weights(["a_open", "b", "a_closed"], FAMILIES) == (0.25, 0.5, 0.25)
        assert family_weights(["a_open", "a_closed"], FAMILIES) == (0.5, 0.5)
        assert family_weights(["x", "y", "z"]) == pytest.approx((1 / 3,) * 3)
        assert family_mean({"a_open": 0.2, "a_closed": 0.4, "b": 0.9}, FAMILIES) == pytest.approx((0.3 + 0.9) / 2)
        assert family_mean({"a_open": 0.2, "a_closed": 0.4, "b": 0.9}) == pytest.approx(0.5)

    def test_weight_the_curves_of_an_ability(self):
        tasks = {"a_open": noisy(0.4), "a_closed": noisy(0.45, seed=1), "b": noisy(0.7, seed=2)}
        curves = [Curve(name, GRID, values) for name, values in tasks.items()]
        by_hand = (tasks["a_open"].mean(1) + tasks["a_closed"].mean(1)) / 4 + tasks["b"].mean(1) / 2
        found = ability_curve(curves, families=FAMILIES)
        assert [score.value for score in found.scores] == pytest.approx(by_hand)
        critical = ability_critical(curves, drop=0.1, families=FAMILIES)
        assert critical.sparsity == pytest.approx(crossing(np.array(GRID), by_hand, 0.1)[0])
        assert critical.sparsity != pytest.approx(ability_critical(curves, drop=0.1).sparsity, abs=1e-3)
        other = [Curve("c", GRID, noisy(0.7))]
        assert disparity(curves, other, drop=0.1, families=FAMILIES).recall == critical

    @pytest.mark.parametrize(
        ("tasks", "said"),
        [
            ([], "at least one"),
            (["b", "b"], "'b' is there 2 times"),
            (["a_opne"], "no family for the task 'a_opne'. Did you mean 'a_open'?"),
        ],
    )
    def test_must_be_known_for_every_task(self, tasks, said):
        with pytest.raises(StatisticsError) as error:
            family_weights(tasks, FAMILIES)
        assert said in str(error.value)


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
        assert found.low == found.in_context.low - found.recall.high
        assert found.high == found.in_context.high - found.recall.low
        assert found.shown
        assert (found.kind, found.finding, found.told_apart_at) == ("estimate", "in-context outlasts recall", found.recall.high)
        assert found.add == tuple(sorted({*found.recall.add, *found.in_context.add}))
        sentence = found.sentence()
        assert sentence.startswith(
            "At a 5 % relative drop of the score recall of this model fails at a sparsity between 0.2 and 0.3 (95 % CI"
        )
        assert f"At {found.recall.high:g} recall is lost and reading is not: reading outlasts recall by 0.2 to 0.5." in sentence
        assert sentence.endswith(f"add the sparsities {', '.join(f'{place:g}' for place in found.add)}.")
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()

    def test_is_shown_where_one_is_lost_and_the_other_is_not_at_one_sparsity(self):
        recall, other = (
            Curve("facts", [0, 0.3, 0.5], steps(800, 700, 200, items=1000)),
            Curve("reading", [0, 0.3, 0.5], steps(800, 799, 200, items=1000)),
        )
        found = disparity([recall], [other], drop=0.05)
        assert (found.low, found.high, found.told_apart_at) == (0, 0.5, 0.3)
        assert found.shown
        assert "fails at a sparsity between 0 and 0.3 (95 % CI, not measured in between)" in found.sentence()
        assert "At 0.3 recall is lost and in-context ability is not: in-context ability outlasts recall by up to 0.5." in found.sentence()

    def test_the_other_way_round_is_said_to_be_the_reverse(self):
        found = disparity([Curve("facts", GRID, noisy(0.7))], [Curve("reading", GRID, noisy(0.4, seed=1))], drop=0.05)
        assert found.finding == "recall outlasts in-context"
        assert found.high < 0
        assert (
            f"reverse of the claim is shown, recall outlasts in-context ability by {-found.high:g} to {-found.low:g}." in found.sentence()
        )

    def test_of_equal_curves_is_not_shown(self):
        found = disparity([Curve("facts", GRID, noisy(0.5))], [Curve("reading", GRID, noisy(0.5, seed=1))], drop=0.05)
        assert not found.shown
        assert "is not shown" in found.sentence()
        assert "an interval that includes 0." in found.sentence()

    def test_of_the_same_scores_is_not_more_than_the_cells_in_which_both_fail(self):
        """Two curves through the same scores may differ between the measured sparsities."""
        values, ids = noisy(0.5), range(300)
        found = disparity([Curve("one", GRID, values, ids)], [Curve("other", GRID, values, ids)], drop=0.05)
        assert found.difference == 0
        assert (found.low, found.high) == pytest.approx((-found.recall.width, found.recall.width))
        assert not found.shown

    def test_of_an_ability_that_never_fails_is_a_lower_bound(self):
        recall, other = Curve("facts", [0, 0.3, 0.6], steps(80, 70, 20)), Curve("reading", [0, 0.3, 0.6], steps(80, 80, 80))
        found = disparity([recall], [other], drop=0.05)
        assert (found.kind, found.high, found.finding) == ("at least", None, "in-context outlasts recall")
        assert found.difference == pytest.approx(0.6 - found.recall.sparsity)
        assert "does not fail up to 0.6" in found.sentence()
        assert found.low == found.in_context.low - found.recall.high == 0
        assert "At 0.6 recall is lost and in-context ability is not: in-context ability outlasts recall by more than 0." in found.sentence()

    def test_of_recall_that_never_fails_is_an_upper_bound(self):
        recall, other = Curve("facts", [0, 0.3, 0.6], steps(80, 80, 80)), Curve("reading", [0, 0.3, 0.6], steps(80, 70, 20))
        found = disparity([recall], [other], drop=0.05)
        assert (found.kind, found.low, found.finding) == ("at most", None, "recall outlasts in-context")
        assert found.difference == pytest.approx(found.in_context.sparsity - 0.6)
        assert "the reverse of the claim is shown, recall outlasts in-context ability by more than 0." in found.sentence()

    def test_where_neither_fails_shows_nothing(self):
        curve = Curve("facts", [0, 0.3, 0.6], steps(80, 80, 80))
        found = disparity([curve], [Curve("reading", [0, 0.3, 0.6], steps(80, 80, 80))], drop=0.05)
        assert (found.kind, found.difference, found.low, found.high, found.shown) == ("unknown", None, None, None, False)
        assert "neither recall" in found.sentence()
        assert "not shown" in found.sentence()

    def test_gives_the_same_bits_for_the_same_seed(self):
        one, other = [Curve("facts", GRID, noisy(0.5))], [Curve("reading", GRID, noisy(0.55, seed=1))]
        assert disparity(one, other, drop=0.05) == disparity(one, other, drop=0.05)

    def test_has_the_p_value_of_the_level_at_which_it_is_no_longer_shown(self):
        """At 0.5 both abilities are clear of the threshold but for chance: the p-value is the larger of two exact ones, twice."""
        recall, other = Curve("facts", [0, 0.5], steps(200, 178, items=200)), Curve("reading", [0, 0.5], steps(200, 197, items=200))
        found = p_value(lambda level: disparity([recall], [other], drop=0.05, level=level, resamples=20_000).shown, resamples=20_000)
        lost = binomtest(22, 200, 0.05, alternative="greater").pvalue  # the dense model gets every item right
        held = binomtest(3, 200, 0.05, alternative="less").pvalue
        assert found == pytest.approx(2 * max(lost, held), rel=0.1)
        assert p_value(lambda level: disparity([recall], [recall], drop=0.05, level=level).shown) == 1.0
        clear = Curve("facts", [0, 0.5], steps(200, 20, items=200)), Curve("reading", [0, 0.5], steps(200, 200, items=200))
        assert p_value(lambda level: disparity(clear[:1], clear[1:], drop=0.05, level=level).shown) == pytest.approx(2 / 2001)


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

    def computed(curve, seed, resamples=200):
        return ability_critical([curve], drop=0.1, resamples=resamples), ability_curve([curve], seed=seed, resamples=resamples)

    def fresh():
        return Curve("task", [0.0, 0.3, 0.5, 0.7], values)

    kept = fresh()
    results = [computed(kept, 0), computed(kept, 1), computed(kept, 0, 300), computed(kept, 0)]
    assert results == [computed(fresh(), 0), computed(fresh(), 1), computed(fresh(), 0, 300), computed(fresh(), 0)]
    assert results[0] != results[1]
