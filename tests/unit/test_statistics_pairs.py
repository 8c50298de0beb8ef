"""A dense against a pruned model, against hand computation and scipy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from refusals import raises_line
from scipy import stats

from harness_ext.statistics import (
    Scores,
    StatisticsError,
    accuracy,
    balanced_accuracy,
    compare,
    entropy,
    flips,
    holm,
    mcnemar,
    over_seeds,
)
from harness_ext.statistics.resampling import interval
from harness_ext.statistics.weighting import Sample, Table


def scores(values, **more):
    return Scores([f"item {index}" for index in range(len(values))], values, **more)


def two(seed=0, items=200, lost=0.2):
    generator = np.random.default_rng(seed)
    dense = generator.random(items) < 0.8
    changed = generator.random(items) < lost
    return dense.astype(float), np.where(changed, ~dense & (generator.random(items) < 0.5), dense).astype(float)


class TestAccuracy:
    def test_is_the_mean_with_the_standard_error_of_a_sample(self):
        values = [1, 0, 1, 1, 0.5]
        found = accuracy(scores(values), chance=0.25)
        assert found.value == pytest.approx(0.7)
        assert found.stderr == pytest.approx(stats.sem(values))
        assert found.corrected == pytest.approx((0.7 - 0.25) / 0.75)
        assert found.corrected_stderr == pytest.approx(stats.sem([(value - 0.25) / 0.75 for value in values]))

    def test_has_no_standard_error_for_one_item(self):
        assert accuracy(scores([1])).stderr is None


class TestFlips:
    def test_are_counted_over_the_items_that_were_right_and_those_that_were_wrong(self):
        found = flips(scores([1, 1, 1, 0, 0]), scores([1, 0, 0, 1, 0]))
        assert (found.right_to_wrong, found.wrong_to_right, found.dense_right, found.dense_wrong) == (2, 1, 3, 2)
        assert (found.right_to_wrong_share, found.wrong_to_right_share, found.share) == (2 / 3, 1 / 2, 3 / 5)

    def test_of_a_model_that_is_always_right_have_no_share_of_the_wrong(self):
        assert flips(scores([1, 1]), scores([1, 0])).wrong_to_right_share is None


class TestMcNemar:
    @pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (7, 2), (5, 5), (0, 12), (40, 21)])
    def test_is_the_binomial_test_of_the_items_that_differ(self, lost, won):
        dense = [1] * lost + [0] * won + [1, 0]
        pruned = [0] * lost + [1] * won + [1, 0]
        found = mcnemar(scores(dense), scores(pruned))
        by_hand = min(1.0, 2 * sum(math.comb(lost + won, k) for k in range(min(lost, won) + 1)) / 2 ** (lost + won))
        assert found.p_value == pytest.approx(by_hand)
        assert found.p_value == pytest.approx(stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0)
        assert (found.right_to_wrong, found.wrong_to_right) == (lost, won)


class TestHolm:
    def test_of_three_tests_is_the_arithmetic_of_the_paper(self):
        # The smallest times 3, the next times 2, the largest times 1; none below a smaller one's.
        assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
        assert holm([0.5, 0.6]) == (1.0, 1.0)
        assert holm([]) == ()

    @pytest.mark.parametrize("seed", range(10))
    def test_rejects_what_the_step_down_procedure_rejects(self, seed):
        p_values = np.random.default_rng(seed).random(1 + seed) ** 4
        for level in (0.01, 0.05, 0.2):
            rejected, going = np.zeros(len(p_values), bool), True
            for rank, index in enumerate(np.argsort(p_values)):
                going = going and p_values[index] <= level / (len(p_values) - rank)
                rejected[index] = going
            assert [value <= level for value in holm(p_values)] == rejected.tolist()

    @pytest.mark.parametrize(("wrong", "said"), [([0.1, 1.2], "1.2"), ([-0.1], "-0.1"), ([math.nan], "nan"), ([[0.1]], "2 dimensions")])
    def test_refuses_what_is_not_a_p_value(self, wrong, said):
        with pytest.raises(StatisticsError, match=said):
            holm(wrong)


class TestLabels:
    def test_entropy_is_in_bits(self):
        assert entropy("aabb") == pytest.approx(1)
        assert entropy("aaaa") == 0
        assert entropy("aaabbc") == pytest.approx(stats.entropy([3, 2, 1], base=2))

    def test_balanced_accuracy_counts_every_label_the_same(self):
        labels = ["a"] * 8 + ["b"] * 2
        assert balanced_accuracy(["a"] * 10, labels) == 0.5
        assert balanced_accuracy(["b"] * 10, labels) == 0.5
        assert balanced_accuracy(["a"] * 4 + ["b"] * 6, labels) == pytest.approx((4 / 8 + 1) / 2)

    def test_are_reported_for_both_models_when_predictions_are_given(self):
        labels = ["a", "b", "a", "b"]
        dense = scores([1, 1, 1, 0], predictions=["a", "b", "a", "a"], labels=labels)
        found = compare(dense, scores([1, 0, 1, 0], predictions=["a"] * 4), resamples=100)
        assert found.dense_labels.balanced_accuracy == 0.75
        assert found.dense_labels.label_entropy == 1
        assert (found.pruned_labels.entropy, found.pruned_labels.commonest, found.pruned_labels.balanced_accuracy) == (0, 1, None)


class TestIntervals:
    def test_is_symmetric_in_the_sign_of_the_statistic(self):
        dense, pruned = two()
        one = compare(scores(dense), scores(pruned), seed=3).difference
        sample = Sample([Table(tuple(range(len(dense))), np.stack([dense, pruned])[None])])
        low, high = interval(sample, lambda m: (m[:, 0] - m[:, 1],) * 2, np.array([1.0, -1.0]), level=0.95, resamples=2000, seed=3)
        assert (low, high) == pytest.approx((-one.high, -one.low))

    def test_is_paired_so_the_same_flips_yield_the_same_interval_whatever_else_the_items_score(self):
        easy = compare(scores([1] * 80 + [1] * 20), scores([1] * 80 + [0] * 20)).difference
        hard = compare(scores([0] * 40 + [1] * 40 + [1] * 20), scores([0] * 40 + [1] * 40 + [0] * 20)).difference
        assert (easy.value, easy.low, easy.high) == pytest.approx((hard.value, hard.low, hard.high), abs=0.011)

    def test_agrees_with_scipys_bca_on_a_few_hundred_items(self):
        dense, pruned = two(items=300)
        found = compare(scores(dense), scores(pruned)).retained
        ours = found.high - found.low
        theirs = stats.bootstrap(
            (dense, pruned), lambda d, p, axis: p.mean(axis) / d.mean(axis), paired=True, n_resamples=4000, rng=np.random.default_rng(1)
        ).confidence_interval
        assert found.low == pytest.approx(theirs.low, abs=0.1 * ours)
        assert found.high == pytest.approx(theirs.high, abs=0.1 * ours)

    def test_gives_the_same_bits_for_the_same_seed_and_others_for_another(self):
        dense, pruned = (scores(values) for values in two())
        assert compare(dense, pruned) == compare(dense, pruned)
        assert compare(dense, pruned).retained.low != compare(dense, pruned, seed=1).retained.low


class TestCompare:
    def test_retains_everything_and_nothing(self):
        dense = scores([1] * 60 + [0] * 40)
        assert compare(dense, scores([1] * 20 + [0] * 80), chance=0.2).retained.value == pytest.approx(0)
        assert compare(dense, scores([1] * 40 + [0] * 60), chance=0.2).retained.value == pytest.approx(0.5)

    def test_where_nothing_changed_allows_for_the_flips_that_the_items_cannot_rule_out(self):
        dense = scores([1] * 60 + [0] * 40)
        found = compare(dense, dense)
        assert found.mcnemar.p_value == 1
        upper = stats.binomtest(0, 100).proportion_ci(0.95, method="exact").high
        assert (found.difference.low, found.difference.high) == pytest.approx((-upper, upper))
        assert (found.retained.low, found.retained.high) == pytest.approx((1 - upper / 0.6, 1 + upper / 0.6))
        assert found.difference.method.startswith("exact")

    def test_has_no_interval_of_the_retained_fraction_where_the_dense_score_may_be_chance(self):
        found = compare(scores([1, 0, 1, 0, 1]), scores([1, 0, 0, 0, 1]), chance=0.5)
        assert found.retained.value == pytest.approx(-1)
        assert (found.retained.low, found.retained.high) == (None, None)
        assert found.difference.low < -0.2 < found.difference.high or found.difference.high == 0

    def test_takes_graded_scores_without_what_needs_right_and_wrong(self):
        found = compare(scores([0.5, 1, 0.7, 0.2]), scores([0.4, 0.9, 0.7, 0.1]))
        assert found.mcnemar is None
        assert found.flips is None
        assert found.difference.value == pytest.approx(-0.075)

    def test_results_are_json(self):
        dense, pruned = (scores(values) for values in two())
        for result in (compare(dense, pruned), over_seeds([pruned, dense], dense=dense)):
            assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()

    def test_reorders_scores_on_demand(self):
        pruned = Scores(["b", "a"], [0, 1], predictions=["x", "y"])
        moved = pruned.reordered(["a", "b"])
        assert (moved.ids, list(moved.values), moved.predictions) == (("a", "b"), [1, 0], ("y", "x"))


class TestSeeds:
    def test_mean_and_spread_are_those_of_the_seeds(self):
        dense, _ = two(items=400)
        pruned = [two(seed=9 + seed, items=400)[1] for seed in range(4)]
        found = over_seeds([scores(values) for values in pruned], dense=scores(dense), chance=0.25)
        means = np.array([values.mean() for values in pruned])
        assert found.accuracy.values == pytest.approx(means)
        assert found.accuracy.mean.value == pytest.approx(means.mean())
        assert (found.accuracy.sd, found.accuracy.least, found.accuracy.greatest) == pytest.approx(
            (means.std(ddof=1), means.min(), means.max())
        )
        assert found.corrected.mean.low == pytest.approx((found.accuracy.mean.low - 0.25) / 0.75)
        assert found.retained.mean.value == pytest.approx((means.mean() - 0.25) / (dense.mean() - 0.25))
        assert found.difference.mean.low < found.difference.mean.value < found.difference.mean.high

    def test_one_seed_has_no_spread_and_the_interval_of_the_items(self):
        dense, pruned = (scores(values) for values in two())
        found = over_seeds([pruned], dense=dense)
        assert found.accuracy.sd is None
        assert found.difference.mean == compare(dense, pruned).difference

    def test_seeds_that_agree_add_nothing_to_the_interval_of_the_items(self):
        dense, pruned = (scores(values) for values in two())
        assert over_seeds([pruned] * 3, dense=dense).difference.mean.low == compare(dense, pruned).difference.low


class TestBadInput:
    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda: scores([]), "empty"),
            (lambda: scores([1, math.nan]), "1 of 2 scores are NaN"),
            (lambda: scores([1, 50]), "a score of 50"),
            (lambda: scores([[1, 0]]), "2 dimensions"),
            (lambda: scores(["right"]), "numbers"),
            (lambda: Scores(["a", "a"], [1, 0]), "'a' occurs 2 times"),
            (lambda: Scores(["a"], [1, 0]), "1 ids for 2 scores"),
            (lambda: scores([1, 0], predictions=["x"]), "1 predictions for 2 items"),
            (lambda: compare(scores([1, 0]), Scores(["item 1", "item 0"], [1, 0])), "another order"),
            (lambda: compare(scores([1, 0]), scores([1, 0, 1])), "'item 2' in pruned"),
            (lambda: compare(scores([1, 0]), scores([1, 0]), chance=0.5), "not above chance"),
            (lambda: compare(scores([1, 0]), scores([1, 0]), chance=1.0), "chance=1.0"),
            (lambda: compare(scores([1, 0]), scores([1, 0]), level=95), "level=95"),
            (lambda: compare(scores([1, 0]), scores([1, 0]), resamples=10), "resamples=10"),
            (
                lambda: compare(scores([1, 0]), scores([1, 0]), level=0.9999),
                "resamples=2000: too few for level=0.9999; want at least 19999",
            ),
            (lambda: mcnemar(scores([1, 0.5]), scores([1, 0])), "a dense score of 0.5"),
            (lambda: flips(scores([1, 1]), scores([1, 0.5])), "a pruned score of 0.5"),
            (lambda: over_seeds([]), "at least one calibration seed"),
            (lambda: over_seeds([scores([1, 0]), scores([1, 0, 1])]), "calibration seed number 1"),
            (lambda: scores([1, 0]).reordered(["item 0", "x"]), "in one alone"),
            (lambda: entropy([]), "empty"),
            (lambda: balanced_accuracy(["a"], ["a", "b"]), "1 predictions for 2 labels"),
        ],
    )
    def test_is_an_error_of_one_line(self, make, said):
        with raises_line(StatisticsError, said):
            make()
