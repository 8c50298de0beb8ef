"""Disparities: the difference of two critical sparsities, and what is said of it."""

from __future__ import annotations

import json

import pytest
from scipy.stats import binomtest
from simulated_scores import GRID, noisy, steps

from harness_ext.statistics import Curve, ability_critical, disparity, p_value


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

    def test_of_too_few_items_nothing_is_known_and_no_interval_is_said_to_include_zero(self):
        """Both scores have fallen, and neither interval has an upper end."""
        grid = [0, 0.5, 0.9]
        found = disparity(
            [Curve("facts", grid, steps(15, 14, 12, items=16))], [Curve("reading", grid, steps(15, 14, 13, items=16))], drop=0.05
        )
        assert found.low is found.high is None
        assert not (found.recall.censored and found.in_context.censored)
        assert "nothing is known of the difference" in found.sentence()
        assert "includes 0" not in found.sentence()
        assert "unknown" not in found.sentence()

    def test_the_verdict_after_a_correction_may_be_given(self):
        found = disparity([Curve("facts", GRID, noisy(0.4))], [Curve("reading", GRID, noisy(0.7, seed=1))], drop=0.05)
        assert found.sentence(shown=True) == found.sentence()
        assert "it is not shown that in-context ability outlasts recall" in found.sentence(shown=False)

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
