"""The disparity over trained models: Student's t over models by hand, and what makes the interval wider."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from harness_ext.statistics import Curve, StatisticsError, disparity, disparity_over_models

GRID = [round(0.05 * step, 2) for step in range(19)]


def curve(fails, *, items=2000, seed=0, seeds=1, name="task"):
    """A cliff at ``fails``: few items are lost before it, 70 % at it."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(items)
    values = np.stack([(order >= items * (0.02 * at if at < fails else 0.7)).astype(float) for at in GRID])
    return Curve(name, GRID, np.stack([values] * seeds), range(items))


def models(*pairs, **options):
    return {f"model {number}": ([curve(recall, **options)], [curve(other, **options)]) for number, (recall, other) in enumerate(pairs)}


def test_the_interval_is_students_t_over_the_bounds_of_the_models():
    pairs = [(0.22, 0.57), (0.27, 0.52), (0.17, 0.62)]
    found = disparity_over_models(models(*pairs), drop=0.05)
    # Nothing is left to the items here: the score is far from the threshold at every sparsity.
    least = np.array([np.floor(other / 0.05) * 0.05 - np.ceil(recall / 0.05) * 0.05 for recall, other in pairs])
    most = least + 0.1
    assert found.low == pytest.approx(stats.t.interval(0.95, 2, least.mean(), stats.sem(least))[0])
    assert found.high == pytest.approx(stats.t.interval(0.95, 2, most.mean(), stats.sem(most))[1])
    assert (found.finding, found.shown, found.caveat) == ("in-context outlasts recall", True, None)
    each = [disparity(*pair, drop=0.05) for pair in models(*pairs).values()]
    assert found.disparities == tuple(each)
    assert found.difference == pytest.approx(np.mean([one.difference for one in each]))
    assert found.sd == pytest.approx(np.std([one.difference for one in each], ddof=1))
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
    sentence = found.sentence()
    assert sentence.startswith("Over 3 trained models, at a 5 % relative drop of the score in-context ability outlasts recall by ")
    assert "(95 % CI over models)." in sentence


def test_the_level_is_that_of_students_t():
    pairs = [(0.22, 0.57), (0.27, 0.52), (0.17, 0.62)]
    low = [disparity_over_models(models(*pairs), drop=0.05, level=level).low for level in (0.8, 0.95, 0.99)]
    distance = np.array([0.275 - end for end in low])
    mean = np.mean([0.3, 0.2, 0.4])
    assert [(mean - end) / (mean - low[0]) for end in low] == pytest.approx(
        [stats.t.ppf((1 + level) / 2, 2) / stats.t.ppf(0.9, 2) for level in (0.8, 0.95, 0.99)]
    )
    assert (np.diff(distance) > 0).all()


def test_models_that_disagree_show_nothing_although_each_shows_something():
    found = disparity_over_models(models((0.22, 0.57), (0.57, 0.22), (0.32, 0.47)), drop=0.05)
    assert [one.shown for one in found.disparities] == [True] * 3
    assert not found.shown
    assert "that one outlasts the other is not shown: in-context ability less recall is -" in found.sentence()


def test_the_other_way_round_is_the_reverse():
    found = disparity_over_models(models((0.57, 0.22), (0.52, 0.27), (0.57, 0.27)), drop=0.05)
    assert found.finding == "recall outlasts in-context"
    assert "the reverse of the claim is shown: recall outlasts in-context ability by 0." in found.sentence()


def test_few_items_widen_the_interval_however_many_models_there_are():
    many, few = (disparity_over_models(models(*[(0.22, 0.57)] * 6, items=items), drop=0.05) for items in (2000, 60))
    assert many.sd == pytest.approx(0)
    assert many.high - many.low == pytest.approx(0.1)
    assert few.high - few.low > many.high - many.low + 0.04
    assert few.low == pytest.approx(np.mean([one.low for one in few.disparities]))


def test_calibration_seeds_are_averaged_within_models():
    one, three = (disparity_over_models(models((0.22, 0.57), (0.27, 0.52), seeds=seeds), drop=0.05) for seeds in (1, 3))
    assert (one.low, one.high, one.difference) == (three.low, three.high, three.difference)
    noisy = {
        name: (
            [Curve("task", GRID, np.concatenate([curve(recall, seed=1).values, curve(recall + 0.2, seed=2).values]))],
            [curve(0.6, seeds=2)],
        )
        for name, recall in (("a", 0.12), ("b", 0.22))
    }
    found = disparity_over_models(noisy, drop=0.05)
    assert found.disparities[0].recall.seeds == 1
    assert [one.recall.cell[0] for one in found.disparities] == pytest.approx([0.1, 0.2])


def test_a_model_that_holds_out_leaves_no_end_on_its_side():
    found = disparity_over_models(models((0.22, 0.57), (0.27, 2.0), (0.22, 2.0)), drop=0.05)
    assert (found.high, found.difference, found.sd) == (None, None, None)
    assert found.low > 0
    assert "outlasts recall by 0." in found.sentence()
    assert "or more" in found.sentence()


def test_two_models_have_a_caveat_and_one_is_refused():
    two = disparity_over_models(models((0.22, 0.57), (0.22, 0.57)), drop=0.05)
    assert "over two trained models" in two.caveat
    assert two.caveat in two.sentence()
    with pytest.raises(StatisticsError, match="models: 1; want at least two trained models"):
        disparity_over_models(models((0.22, 0.57)), drop=0.05)
