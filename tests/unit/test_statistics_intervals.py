"""Intervals: the part of the items against scipy's exact binomial and the formula of a paper, the part of the seeds against Student's t."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from scipy import stats

from harness_ext.commands import cli
from harness_ext.commands.compare import compare as compare_command
from harness_ext.statistics import Curve, Scores, ability_curve, compare, critical_sparsity, disparity, over_seeds
from harness_ext.statistics.checks import RESAMPLES
from harness_ext.statistics.resampling import interval, seed_margin, seed_variance, square_and_add
from harness_ext.statistics.weighting import Sample, Table

LEVELS = [0.5, 0.8, 0.95, 0.99, 0.9917]


def scores(values):
    return Scores(range(len(values)), values)


def table(values, ids=None):
    """Of [seeds, columns, items]."""
    values = np.asarray(values, dtype=float)
    return Table(tuple(range(values.shape[2])) if ids is None else tuple(ids), values)


def mean_interval(tables, weights, **options):
    sample, weights = Sample(tables), np.asarray(weights, dtype=float)
    options = {"level": 0.95, "resamples": 2000, "seed": 0} | options
    return interval(sample, lambda means: (means @ weights, means @ weights), weights, **options)


def exact(right, items, level=0.95):
    """Of Clopper and Pearson."""
    found = stats.binomtest(right, items).proportion_ci(level, method="exact")
    return found.low, found.high


def test_the_commands_draw_as_many_weightings_as_the_functions():
    """The commands have the number as a literal: they start without NumPy."""
    for command in (cli.report, compare_command):
        assert inspect.signature(command).parameters["resamples"].default == RESAMPLES


class TestItems:
    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize(("right", "items"), [(1, 30), (12, 30), (29, 30), (3, 400), (399, 400), (170, 400)])
    def test_the_interval_of_a_mean_of_right_and_wrong_is_that_of_clopper_and_pearson(self, right, items, level):
        values = np.repeat([1.0, 0.0], [right, items - right])
        low, high = mean_interval([table([[values]])], [1], level=level, resamples=40_000)
        expected = exact(right, items, level)
        assert (low, high) == pytest.approx(expected, abs=0.02 * (expected[1] - expected[0]))

    @pytest.mark.parametrize("seed", range(3))
    def test_the_interval_of_a_mean_of_graded_scores_is_that_of_learned_miller_and_thomas(self, seed):
        values = np.random.default_rng(seed).beta(0.4, 0.8, size=25)
        low, high = mean_interval([table([[values]])], [1], resamples=40_000)

        def upper(z):  # arXiv 1905.06208, definition 2: 1 - sum of u_(i) (z_(i+1) - z_(i)), its quantile over sorted uniforms u
            gaps = np.diff(np.append(np.sort(z), 1.0))
            u = np.sort(np.random.default_rng(9).random((40_000, len(z))), axis=1)
            return np.quantile(1 - u @ gaps, 0.975)

        assert high == pytest.approx(upper(values), abs=0.01)
        assert low == pytest.approx(1 - upper(1 - values), abs=0.01)

    def test_patterns_and_single_items_have_weights_of_the_same_distribution(self):
        values = np.repeat([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], [20, 5, 15], axis=0)
        patterns, single = table([values.T]), table([(values + 1e-9 * np.arange(40)[:, None] * (1 - 2 * values)).T])
        drawn = [Sample([one]).weighted_means(0, 20_000) @ np.array([-1.0, 1.0]) for one in (patterns, single)]
        assert stats.ks_2samp(*drawn).pvalue > 1e-3
        assert drawn[0].mean() == pytest.approx(-5 / 40, abs=0.002)
        assert drawn[0].var() == pytest.approx(5 / 40 * 35 / 40 / 41, rel=0.05)  # of a Dirichlet distribution

    def test_weights_are_drawn_in_parts_where_they_are_many(self, monkeypatch):
        values = np.random.default_rng(0).random((1, 1, 50))
        whole = Sample([table(values)]).weighted_means(3, 1000)
        monkeypatch.setattr("harness_ext.statistics.weighting.WEIGHTS_AT_ONCE", 700)
        assert Sample([table(values)]).weighted_means(3, 1000) == pytest.approx(whole)

    def test_several_tables_are_as_exact_as_their_items_together(self):
        # Nothing is wrong in nine tasks of 256 items each: the mean is that of 2304 items.
        low, high = mean_interval([table(np.ones((1, 1, 256)), [(task, item) for item in range(256)]) for task in range(9)], [1 / 9] * 9)
        assert (1 - low, high) == pytest.approx((1 - exact(2304, 2304)[0], 1.0), rel=0.01)

    def test_a_small_table_without_a_wrong_answer_widens_the_interval(self):
        rows = np.repeat([1.0, 0.0], [1800, 200])
        both = [table([[rows]]), table(np.ones((1, 1, 20)), [("small", item) for item in range(20)])]
        low, high = mean_interval(both, [0.5, 0.5])
        assert 0.95 - low > 0.9 * 0.5 * (1 - exact(20, 20)[0])
        assert high - 0.95 < 0.02

    def test_items_of_two_tables_have_one_weight(self):
        values = np.random.default_rng(0).random(60) < 0.6
        low, high = mean_interval([table([[values]]), table([[values]])], [1, -1])
        assert (low, high) == pytest.approx((exact(60, 60)[0] - 1, 1 - exact(60, 60)[0]))  # no item differs, 0 of 60
        apart = mean_interval([table([[values]]), table([[values]], [("other", item) for item in range(60)])], [1, -1])
        assert apart[1] - apart[0] > 0.2


class TestScoresThatAreAllEqual:
    """No interval without a width, whatever the function."""

    @pytest.mark.parametrize("seeds", [1, 2, 3])
    @pytest.mark.parametrize("level", LEVELS)
    def test_over_seeds(self, seeds, level):
        ones, zeros = scores(np.ones(200)), scores(np.zeros(200))
        expected = exact(200, 200, level)
        found = over_seeds([ones] * seeds, dense=ones, level=level)
        assert (found.accuracy.mean.low, found.accuracy.mean.high) == pytest.approx(expected)
        assert found.difference.mean.low == pytest.approx(expected[0] - 1)
        assert found.retained.mean.low == pytest.approx(expected[0])
        nothing = over_seeds([zeros] * seeds, dense=ones, level=level)
        assert (nothing.accuracy.mean.low, nothing.accuracy.mean.high) == pytest.approx(exact(0, 200, level))
        assert nothing.retained.mean.high == pytest.approx(exact(0, 200, level)[1])

    def test_over_seeds_of_graded_scores(self):
        found = over_seeds([scores(np.full(50, 0.5))]).accuracy.mean
        assert (found.low, found.high) == pytest.approx((0.5 - 0.5 * (1 - 0.025 ** (1 / 50)), 0.5 + 0.5 * (1 - 0.025 ** (1 / 50))))

    def test_compare(self):
        graded = scores(np.linspace(0.2, 1, 50))
        for pruned in (graded, scores(0.8 * np.linspace(0.2, 1, 50))):
            found = compare(graded, pruned)
            assert found.retained.low < found.retained.value < found.retained.high
            assert found.difference.low < found.difference.value < found.difference.high

    def test_ability_curve(self):
        values = np.stack([np.ones(80), np.ones(80), np.zeros(80)])
        found = ability_curve([Curve("a", [0, 0.5, 0.7], values, chance=0.2), Curve("b", [0, 0.5, 0.7], values)])
        assert [score.high - score.low for score in found.scores] == pytest.approx([(1 - exact(80, 80)[0]) / 2] * 3)
        corrected = ability_curve([Curve("a", [0, 0.5, 0.7], values, chance=0.2)], corrected=True)
        assert (corrected.scores[0].low, corrected.scores[0].high) == pytest.approx(((exact(80, 80)[0] - 0.2) / 0.8, 1.0))

    @pytest.mark.parametrize(("items", "held"), [(100, 0.0), (400, 0.5)])
    def test_critical_sparsity(self, items, held):
        # No item is lost at 0.5. That rules out a loss of 2 % for 400 items (up to 0.9 % may be lost), not for 100 (up to 3.6 %).
        values = np.stack([np.ones(items), np.ones(items), np.zeros(items)])
        found = critical_sparsity([0, 0.5, 0.7], values, drop=0.02)
        assert (found.low, found.high) == (held, 0.7)
        again = critical_sparsity([0, 0.5, 0.7], np.hstack([values, np.zeros((3, items))]), drop=0.02)  # as many that nobody gets right
        assert (again.low, again.high) == (held, 0.7)

    def test_disparity(self):
        values = np.stack([np.ones(100), np.ones(100), np.zeros(100)])
        found = disparity([Curve("a", [0, 0.5, 0.7], values)], [Curve("b", [0, 0.5, 0.7], values)], drop=0.02)
        assert (found.low, found.high) == pytest.approx((-0.7, 0.7))


class TestSeeds:
    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize("means", [(0.4, 0.6), (0.3, 0.5, 0.55), (0.5, 0.52, 0.55, 0.58, 0.5)])
    def test_that_alone_matter_have_the_interval_of_students_t_at_every_level(self, means, level):
        found = over_seeds([scores(np.full(50_000, mean)) for mean in means], level=level).accuracy.mean
        low, high = stats.t.interval(level, len(means) - 1, np.mean(means), stats.sem(means))
        assert (found.low, found.high) == pytest.approx((max(low, 0), min(high, 1)), rel=1e-3)

    def test_widen_an_interval_by_the_ratio_of_students_quantiles_when_the_level_rises(self):
        # 4.13 with three seeds; the quantile of 95 %, taken for every level, would give 2.20.
        sample = Sample([table(np.stack([np.full((1, 5000), mean) for mean in (0.4, 0.5, 0.55)]))])
        level, z = 0.9917, stats.norm.ppf((1 + 0.9917) / 2)
        error = stats.sem([0.4, 0.5, 0.55])
        assert seed_margin(sample, np.ones(1), (1 - level) / 2) / error / z == pytest.approx(4.13, abs=0.01)

    def test_variance_is_that_of_an_analysis_of_variance(self):
        generator = np.random.default_rng(0)
        values = generator.random((4, 1)) * 0.3 + generator.random(30) * 0.3 + generator.random((4, 30)) * 0.3
        # The mean squares of a two-way layout: (MS(seeds) - MS(rest)) / items is the variance of a seed.
        mean_square = 30 * values.mean(1).var(ddof=1)
        rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
        by_hand = (mean_square - (rest**2).sum() / (3 * 29)) / 30 / 4
        assert seed_variance(Sample([table(values[:, None])]), np.ones(1)) == pytest.approx(by_hand)

    def test_that_differ_less_than_items_do_add_nothing(self):
        values = np.random.default_rng(3).random((2, 1, 4000)) < 0.5
        means = values.mean(2)
        assert seed_variance(Sample([table(values)]), np.ones(1)) == pytest.approx(
            max(0.0, means.var(ddof=1) / 2 - (values[0] - values[1].astype(float) - (means[0] - means[1])).var(ddof=1) / 4 / 4000),
            abs=1e-12,
        )

    def test_and_items_add_as_squares(self):
        assert square_and_add(3.0, 4.0) == 5.0
        assert square_and_add(3.0, 0.0) == 3.0
        assert square_and_add(np.inf, 4.0) == np.inf

    @pytest.mark.parametrize(("seeds", "said"), [(1, False), (2, True), (3, False)])
    def test_two_have_a_caveat(self, seeds, said):
        generator = np.random.default_rng(0)
        pruned = [scores((generator.random(100) < 0.6).astype(float)) for _ in range(seeds)]
        found = over_seeds(pruned, dense=scores(np.ones(100)))
        values = np.stack([np.stack([np.ones(100), one.array]) for one in pruned])
        curve = Curve("a", [0, 0.5], values)
        apart = disparity([curve], [curve], drop=0.05)
        caveats = [
            found.caveat, *(spread.mean.caveat for spread in (found.accuracy, found.corrected, found.retained, found.difference)),
            critical_sparsity([0, 0.5], values, drop=0.05).caveat, ability_curve([curve]).scores[1].caveat, apart.caveat,
            apart.recall.caveat,
        ]  # fmt: skip
        assert [caveat is not None for caveat in caveats] == [said] * len(caveats)
        assert ("two calibration seeds" in apart.sentence()) == said
