"""The disparity between items of equal margin in the dense model."""

from __future__ import annotations

import json
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import beta
from simulated_scores import GRID

from harness_ext.statistics import (
    Curve,
    Matching,
    StatisticsError,
    critical_sparsity,
    disparity,
    matched_disparity,
    matched_over_models,
)
from harness_ext.statistics.models import over_models
from harness_ext.statistics.resampling import seed_margin as unweighted_seed_margin
from harness_ext.statistics.weighted_items import Items, resample, seed_margin, weighted_critical
from harness_ext.statistics.weighting import Sample, Table


def world(means, *, fails=(0.6, 0.6), items=400, seed=0, seeds=1, name=""):
    """Curves of two abilities whose items are lost where pruning has taken their margin, and the margins by task."""
    generator = np.random.default_rng(seed)
    curves, margins = [], {}
    for task, mean, at in zip(("recall", "context"), means, fails, strict=True):
        margin = mean + 1.5 * generator.standard_normal(items)
        taken = (np.array(GRID) / at)[None, :, None] ** 3
        noise = generator.standard_normal(items) + 0.3 * generator.standard_normal((seeds, len(GRID), items))
        values = (margin - 4 * taken + 1.5 * taken * noise > 0).astype(float)
        curves.append(Curve(f"{name}{task}", GRID, values))
        margins[f"{name}{task}"] = margin
    return curves[:1], curves[1:], margins


def equal_items(scores):
    """Items [seed, sparsity, item] of equal weight."""
    count = scores.shape[2]
    return Items(np.array(GRID[: scores.shape[1]]), scores, np.full(count, 1 / count), np.arange(count), 0.0, False)


class TestMatching:
    def test_two_strata_by_hand(self):
        """Recall has 6 hard items and 2 easy ones, the other ability 2 and 6; hard items are lost at 0.5 in the shares 1/2 and 1."""
        recall = Curve("facts", [0, 0.5], [[1] * 8, [1, 1, 1, 0, 0, 0, 1, 0]])
        other = Curve("reading", [0, 0.5], [[1] * 8, [1, 1, 1, 1, 1, 0, 0, 0]])
        margins = {"facts": [1.0] * 6 + [3.0] * 2, "reading": [1.0] * 2 + [3.0] * 6}
        matching = Matching([recall], [other], margins, strata=2)
        f, g = (Fraction(6, 8), Fraction(2, 8)), (Fraction(2, 8), Fraction(6, 8))
        target = [one * two / (one + two) for one, two in zip(f, g, strict=True)]
        assert target == [Fraction(3, 16)] * 2
        assert matching.weights[0] == pytest.approx([3 / 16 / 6] * 6 + [3 / 16 / 2] * 2)
        assert matching.weights[1] == pytest.approx([3 / 16 / 2] * 2 + [3 / 16 / 6] * 6)
        held = [float(matching.weights[index] @ np.asarray(curve.values)[0, 1] / (3 / 8)) for index, curve in enumerate((recall, other))]
        assert held == pytest.approx([(1 / 2 + 1 / 2) / 2, (1 + 1 / 2) / 2])
        assert matching.overlap.shares == pytest.approx((1, 1))
        assert matching.overlap.means == (1.5, 2.5)
        assert matching.overlap.apart_matched == pytest.approx(0)
        assert matching.overlap.effective[0] == pytest.approx(1 / (6 * (1 / 12) ** 2 + 2 * (1 / 4) ** 2))

    def test_weights_are_those_of_a_transcription_of_the_definition(self):
        generator = np.random.default_rng(3)
        tasks = {"one": 30, "two": 50, "three": 60, "four": 25}
        margins = {task: generator.normal(task in ("three", "four"), 1.0, items) for task, items in tasks.items()}
        dense = {task: (generator.random(items) < 0.8).astype(float) for task, items in tasks.items()}
        curves = {task: Curve(task, [0, 0.5], [dense[task], np.zeros(items)]) for task, items in tasks.items()}
        families = {"one": "a", "two": "a", "three": "b", "four": "c"}
        matching = Matching([curves["one"], curves["two"]], [curves["three"], curves["four"]], margins, families=families, strata=6)
        right = {task: margins[task][dense[task] == 1] for task in tasks}
        one, other = np.concatenate([right["one"], right["two"]]), np.concatenate([right["three"], right["four"]])
        low, high = max(min(one), min(other)), min(max(one), max(other))
        pooled = [margin for margin in [*one, *other] if low <= margin <= high]
        cuts = [low, *(np.quantile(pooled, part / 6) for part in range(1, 6)), high + 1e-12]
        shares, items = [], []
        for names, weights in ((("one", "two"), (0.5, 0.5)), (("three", "four"), (0.5, 0.5))):
            share, ability = defaultdict(float), []
            for task, weight in zip(names, weights, strict=True):
                for margin, right in zip(margins[task], dense[task], strict=True):
                    if right:
                        stratum = sum(margin >= cut for cut in cuts)
                        share[stratum] += weight / tasks[task]
                        ability.append((margin, stratum, weight / tasks[task]))
            total = sum(share.values())
            shares.append({stratum: value / total for stratum, value in share.items()})
            items.append(sorted((margin, stratum, weight / total) for margin, stratum, weight in ability))
        for index in (0, 1):
            own, theirs = shares[index], shares[1 - index]
            expected = [weight * theirs.get(stratum, 0) / (own[stratum] + theirs.get(stratum, 0)) for _, stratum, weight in items[index]]
            assert matching.weights[index] == pytest.approx(expected)

    def test_of_equal_curves_at_equal_margin_nothing_is_shown_where_the_raw_disparity_is(self):
        recall, other, margins = world((2.0, 5.0))
        assert disparity(recall, other, drop=0.1).shown
        found = matched_disparity(recall, other, margins, drop=0.1)
        assert not found.disparity.shown
        assert abs(found.overlap.apart) > 1.5
        assert abs(found.overlap.apart_matched) < 0.1
        assert found.sentence().startswith("Between items of equal difficulty, at a 10 % drop, ")
        assert "at a 10 % drop, that one outlasts the other is not shown (in-context ability less recall is -0." in found.sentence()

    @pytest.mark.parametrize(
        ("fails", "finding"), [((0.4, 0.75), "in-context outlasts recall"), ((0.75, 0.4), "recall outlasts in-context")]
    )
    def test_a_split_at_equal_margin_is_found_in_its_direction(self, fails, finding):
        found = matched_disparity(*world((2.0, 4.0), fails=fails), drop=0.5)
        assert found.disparity.finding == finding
        assert found.disparity.kind == "estimate"
        names = ("in-context ability outlasts recall by", "recall outlasts in-context ability by")
        assert names[finding.startswith("recall")] in found.sentence()

    def test_margins_apart_leave_nothing_to_match_on_and_no_number(self):
        found = matched_disparity(*world((1.0, 30.0)), drop=0.1)
        assert found.disparity is None
        assert found.overlap.shares == (0, 0)
        assert (found.overlap.low, found.overlap.apart_matched, found.overlap.strata) == (None, None, 0)
        assert found.sentence().startswith("At equal difficulty there is no overlap to match on: 0 % of recall")

    def test_a_gap_between_the_margins_is_not_bridged_by_a_stratum(self):
        """Recall has margins of 0 to 1 and of 9 to 10, the other ability of 4 to 6, and both have a few of 0 and of 10."""
        generator = np.random.default_rng(0)
        ends = np.repeat([0.0, 10.0], 20)
        margins = {
            "facts": np.concatenate([ends, generator.uniform(0, 1, 200), generator.uniform(9, 10, 200)]),
            "reading": np.concatenate([ends, generator.uniform(4, 6, 200)]),
        }
        curves = [Curve(name, [0, 0.5], np.ones((2, len(values)))) for name, values in margins.items()]
        matching = Matching(curves[:1], curves[1:], margins)
        matched = [np.sort(margins[name])[weights > 0] for name, weights in zip(margins, matching.weights, strict=True)]
        assert all(((part < 1.6) | (part > 8.4)).all() for part in matched)

    def test_too_few_items_in_the_common_support_are_refused(self):
        found = matched_disparity(*world((2.0, 3.0), items=30), drop=0.1)
        assert found.disparity is None
        assert "has effectively" in found.overlap.refusal
        assert "at least 30" in found.overlap.refusal

    def test_a_small_corner_of_an_ability_is_refused_whatever_its_number_of_items(self):
        recall, other = (Curve(name, [0, 0.5], np.ones((2, 1000))) for name in ("facts", "reading"))
        margins = {"facts": np.linspace(0, 10.4, 1000), "reading": np.linspace(10, 20, 1000)}
        overlap = Matching([recall], [other], margins).overlap
        assert min(overlap.effective) > 10
        assert "at least 10 %" in overlap.refusal

    def test_items_that_the_dense_model_gets_wrong_do_not_count(self):
        recall, other, margins = world((1.0, 2.0))
        right = np.asarray(recall[0].values)[0, 0] == 1
        kept = Curve("recall", GRID, np.asarray(recall[0].values)[:, :, right])
        whole = matched_disparity(recall, other, {**margins, "recall": np.where(right, margins["recall"], np.nan)}, drop=0.5)
        part = matched_disparity([kept], other, {**margins, "recall": margins["recall"][right]}, drop=0.5)
        assert whole.overlap.items == part.overlap.items
        assert whole.overlap.effective == pytest.approx(part.overlap.effective)
        assert whole.disparity == part.disparity

    def test_an_item_of_both_abilities_is_weighted_once(self):
        """With the same items and the same scores in both, every weighting gives both the same value."""
        recall, _, margins = world((2.0, 2.0))
        ids = [f"item {number}" for number in range(400)]
        pair = [Curve(name, GRID, recall[0].values, ids) for name in ("a", "b")]
        matching = Matching(pair[:1], pair[1:], dict.fromkeys(("a", "b"), margins["recall"]))
        first, second = matching._resampled
        assert first.sums == pytest.approx(second.sums)

    def test_matching_is_done_again_under_each_weighting_of_the_items(self):
        """Recall has 40 hard items and 20 easy ones, the other ability 20 and 40. Hard items are lost, easy ones are held."""
        values = {"facts": [0.0] * 40 + [1.0] * 20, "reading": [0.0] * 20 + [1.0] * 40}
        curves = [Curve(name, [0, 0.5], [[1.0] * 60, held]) for name, held in values.items()]
        matching = Matching(curves[:1], curves[1:], {name: [1 + 2 * held for held in each] for name, each in values.items()}, strata=2)
        drawn = np.random.default_rng(0).standard_exponential((2000, 120))
        easy = [drawn[:, part][:, held].sum(1) / drawn[:, part].sum(1) for part, held in (
            (slice(0, 60), slice(40, 60)), (slice(60, 120), slice(20, 60)))]  # fmt: skip
        target = [f * g / (f + g) for f, g in ((1 - easy[0], 1 - easy[1]), (easy[0], easy[1]))]
        for sums in matching._resampled:
            assert sums.sums[:, 1] / sums.totals == pytest.approx(target[1] / (target[0] + target[1]))

    def test_an_item_of_two_tasks_counts_once_in_the_effective_number(self):
        recall, other, margins = world((2.0, 2.0), items=100)
        ids = [f"item {number}" for number in range(100)]
        once = Curve("one", GRID, other[0].values, ids)
        values = margins["recall"], margins["context"]
        alone = Matching(recall, [once], {"recall": values[0], "one": values[1]})
        twice = Matching(
            recall, [once, Curve("two", GRID, other[0].values, ids)], {"recall": values[0], "one": values[1], "two": values[1]}
        )
        assert twice.overlap.effective[1] == pytest.approx(alone.overlap.effective[1], rel=0.05)

    def test_the_same_input_gives_the_same_bits_and_plain_types(self):
        one, two = (matched_disparity(*world((2.0, 4.0), seeds=3), drop=0.5, seed=5) for _ in range(2))
        assert one == two
        assert json.loads(json.dumps(one.to_dict(), allow_nan=False)) == one.to_dict()

    def test_two_calibration_seeds_have_a_caveat(self):
        assert matched_disparity(*world((2.0, 4.0), seeds=2), drop=0.5).sentence().endswith("use three or more.")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda recall, other, margins: (recall, other, {"recall": margins["recall"]}), "none of context"),
            (lambda recall, other, margins: (recall, other, {**margins, "recall": margins["recall"][:-1]}), "one for each of 400 items"),
            (lambda recall, other, margins: (recall, other, {**margins, "recall": [np.nan] * 400}), "are NaN or infinite"),
            (lambda recall, other, margins: (recall, other, {**margins, "recall": ["high"] * 400}), "no array of numbers"),
            (lambda recall, other, margins: ([], other, margins), "no curve"),
            (lambda recall, other, margins: ([Curve("recall", GRID, np.full((10, 400), 0.5))], other, margins), "dense score of 0.5"),
            (lambda recall, other, margins: (world((2, 2), seeds=2)[0], other, margins), "recall has 2 calibration seeds"),
            (lambda recall, other, margins: (recall, [Curve("context", [0, 0.5], np.ones((2, 400)))] * 2, margins), "context"),
        ],
    )
    def test_bad_input_is_refused_in_one_line(self, change, said):
        with pytest.raises(StatisticsError, match=said) as caught:
            Matching(*change(*world((2.0, 4.0))), families={"recall": 1, "context": 1})
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("options", [{"strata": 0}, {"strata": True}, {"strata": 2.5}, {"resamples": 10}])
    def test_wrong_options_are_refused(self, options):
        with pytest.raises(StatisticsError, match=next(iter(options))):
            Matching(*world((2.0, 4.0)), **options)

    @pytest.mark.parametrize("options", [{"drop": 0}, {"drop": 0.1, "level": 95}])
    def test_a_wrong_drop_or_level_is_refused(self, options):
        with pytest.raises(StatisticsError):
            Matching(*world((2.0, 4.0))).disparity(**options)


class TestOverModels:
    def test_is_the_mean_of_the_models(self):
        models = {f"model {seed}": Matching(*world((2.0, 4.0), fails=(0.4, 0.7), seed=seed)) for seed in range(3)}
        found = matched_over_models(models, drop=0.5)
        each = {name: matching.disparity(0.5).disparity for name, matching in models.items()}
        assert found.disparity == over_models(each)
        assert found.disparity.shown
        assert "Over 3 trained models, between items of equal difficulty" in found.sentence()
        assert "model 2: " in found.sentence()

    def test_calibration_seeds_are_averaged(self):
        recall, other, margins = world((2.0, 4.0), seeds=3)
        models = {"one": Matching(recall, other, margins), "two": Matching(*world((2.0, 4.0), seed=1))}
        averaged = [Curve(curve.name, GRID, np.asarray(curve.values).mean(0), curve.ids) for curve in (*recall, *other)]
        expected = Matching(averaged[:1], averaged[1:], margins).disparity(0.5).disparity
        assert matched_over_models(models, drop=0.5).disparity.disparities[0] == expected

    def test_a_model_without_overlap_leaves_no_number_and_is_named(self):
        models = {"one": Matching(*world((2.0, 4.0))), "two": Matching(*world((1.0, 40.0)))}
        found = matched_over_models(models, drop=0.5)
        assert found.disparity is None
        assert "no overlap to match on (two: 0 % of recall" in found.sentence()
        assert "one:" not in found.sentence()

    def test_one_model_is_refused(self):
        with pytest.raises(StatisticsError, match="at least two"):
            matched_over_models({"one": Matching(*world((2.0, 4.0)))}, drop=0.5)


class TestWeightedItems:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("drop", [0.05, 0.3])
    def test_with_equal_weights_is_the_critical_sparsity(self, seed, drop):
        generator = np.random.default_rng(seed)
        values = (generator.random(300) < (1 / (1 + np.exp((np.array(GRID) - 0.5) / 0.08)))[:, None]).astype(float)
        values[0] = 1
        items = equal_items(values[None])
        found = weighted_critical(items, resample(items, resamples=4000, seed=seed), drop=drop, level=0.95)
        expected = critical_sparsity(GRID, values, drop=drop, resamples=4000)
        assert (found.sparsity, found.cell, found.low, found.high) == (
            pytest.approx(expected.sparsity), expected.cell, expected.low, expected.high,
        )  # fmt: skip

    @pytest.mark.parametrize(("right", "count"), [(40, 40), (36, 40), (10, 100)])
    def test_the_ends_are_those_of_clopper_and_pearson(self, right, count):
        values = np.ones((1, 2, count))
        values[0, 1, right:] = 0
        sums = resample(equal_items(values), resamples=40_000, seed=1)
        low = np.quantile(sums.excess(1, 0.5, 0.0), 0.025) + 0.5
        assert low == pytest.approx(beta.ppf(0.025, right, count - right + 1), abs=0.01)
        high = np.quantile(sums.excess(1, 0.5, 1.0), 0.975) + 0.5
        assert high == pytest.approx(1.0 if right == count else beta.ppf(0.975, right + 1, count - right), abs=0.01)

    def test_the_margin_of_seeds_with_equal_weights_is_that_of_tables(self):
        generator = np.random.default_rng(2)
        means = np.array([1.0, 0.6]) - np.array([0, 0.1]) * generator.standard_normal((4, 1))
        values = (generator.random((4, 2, 60)) < means[..., None]).astype(float)
        values[:, 0] = 1
        expected = unweighted_seed_margin(Sample([Table(tuple(range(60)), values)]), np.array([-0.9, 1.0]), 0.025)
        assert expected > 0
        assert seed_margin(equal_items(values), 1, 0.1, 0.025) == pytest.approx(expected)

    def test_an_item_without_weight_changes_nothing(self):
        generator = np.random.default_rng(0)
        values = (generator.random((2, 3, 50)) < 0.6).astype(float)
        values[:, 0] = 1
        more = np.concatenate([values, np.zeros((2, 3, 5))], axis=2)
        weights = np.concatenate([np.full(50, 1 / 50), np.zeros(5)])
        padded = Items(np.array(GRID[:3]), more, weights, np.arange(55), 0.0, False)
        assert seed_margin(padded, 1, 0.1, 0.025) == pytest.approx(seed_margin(equal_items(values), 1, 0.1, 0.025))
        assert padded.by_item.T @ weights == pytest.approx(values.mean((0, 2)))
