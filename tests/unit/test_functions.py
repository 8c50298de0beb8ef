"""The function families, against labels worked out point by point in plain Python."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import numpy as np
import pytest
from pairwise import all_pairs
from refusals import raises_line

from harness_ext.errors import BadOptionError
from harness_ext.tasks import functions
from harness_ext.tasks.functions import FAMILIES, ImpossibleDrawError, Linear, Network, Tree, draw_labelled_points, split_of

NAMES = sorted(FAMILIES)


def draw(family, seed=0, *, split="test", **options):
    options = {"dimensions": 4, "exemplars": 32, "labels": 2, "low": 0, "high": 9, "query_label": 0} | options
    rng = seed if isinstance(seed, np.random.RandomState) else np.random.RandomState(seed)
    return draw_labelled_points(family, rng, split=split, **options)


def decide(scores):
    return int(scores[0] > 0) if len(scores) == 1 else scores.index(max(scores))


def dot(weights, inputs):
    return sum(w * x for w, x in zip(weights, inputs, strict=True))


def label_of(function, inputs):
    """The label of one point given by its distance from the centre, by the definition of the family."""
    if isinstance(function, Linear):
        return decide([dot(row, inputs) for row in function.weight.tolist()])
    if isinstance(function, Network):
        hidden = [max(0, dot(row, inputs)) for row in function.hidden.tolist()]
        return decide([dot(row, hidden) for row in function.output.tolist()])

    def walk(node, depth):
        if depth == 4:
            return int(function.leaves[node - 15])
        return walk(2 * node + (2 if inputs[function.features[node]] > 0 else 1), depth + 1)

    return walk(0, 0)


@all_pairs(family=NAMES, labels=[2, 4], high=[9, 10, 99])
def test_labels_are_those_of_the_function(family, labels, high, drawn):
    for seed in range(6):
        points, found = draw(family, seed, labels=labels, high=high)
        expected = [label_of(drawn[-1], [x - high / 2 for x in point]) for point in points.tolist()]
        assert found.tolist() == expected


@pytest.mark.parametrize("labels", [2, 10])
@pytest.mark.parametrize("family", ["linear", "nn"])
def test_sums_are_exact_at_the_largest_inputs_the_tasks_allow(family, labels):
    rng = np.random.RandomState(0)
    centred = np.concatenate([np.full((1, 16), 2 * 10**6), rng.choice([-2 * 10**6, 0, 1, 2 * 10**6], size=(15, 16))]).astype(np.int64)
    function = FAMILIES[family].draw(rng, 16, labels)
    assert function(centred).tolist() == [label_of(function, inputs) for inputs in centred.tolist()]


def test_the_largest_conceivable_network_stays_within_64_bits():
    # A standard normal number of RandomState is below 9.
    hidden, output = np.full((100, 16), 9000, dtype=np.int64), np.full((2, 100), 9000, dtype=np.int64)
    output[1] += 1
    assert Network(hidden, output)(np.full((1, 16), 2 * 10**6, dtype=np.int64)).tolist() == [1]
    assert 16 * 9000 * 2 * 10**6 * 9001 * 100 < 2**63


def test_the_first_of_equal_scores_wins_and_zero_is_the_first_label():
    assert Linear(np.array([[1, 0], [1, 0], [0, 1]]))(np.array([[2, 1], [1, 2], [0, 0]])).tolist() == [0, 2, 0]
    assert Linear(np.array([[1, 0]]))(np.array([[0, 5], [1, 5], [-1, 5]])).tolist() == [0, 1, 0]
    assert Tree(np.zeros(15, dtype=np.int64), np.arange(16), 1)(np.array([[0], [1], [-1]])).tolist() == [0, 15, 0]


@pytest.mark.parametrize("family", ["linear", "nn"])
def test_weights_are_standard_normal_to_three_decimals(family):
    function = FAMILIES[family].draw(np.random.RandomState(1), 50, 10)
    for weights in vars(function).values():
        assert weights.dtype == np.int64
        assert abs(weights.mean()) < 5 * 1000 / weights.size**0.5
        assert abs(weights.std() - 1000) < 5 * 1000 / (2 * weights.size) ** 0.5


def test_trees_ask_every_input_and_give_every_label_equally_often():
    rng = np.random.RandomState(2)
    trees = [Tree.draw(rng, 4, 4) for _ in range(400)]
    for values in (np.concatenate([t.features for t in trees]), np.concatenate([t.leaves for t in trees])):
        counts, expected = np.bincount(values, minlength=4), values.size / 4
        assert (abs(counts - expected) < 5 * (expected * 0.75) ** 0.5).all()


@pytest.mark.parametrize(
    ("family", "exemplars", "labels"), [("linear", 32, 2), ("nn", 31, 2), ("tree", 32, 4), ("linear", 33, 4), ("nn", 32, 3)]
)
def test_exemplar_labels_are_balanced_and_the_query_has_the_label_asked_for(family, exemplars, labels):
    for seed in range(2 * labels):
        _, found = draw(family, seed, exemplars=exemplars, labels=labels, query_label=seed % labels)
        counts = np.bincount(found[:-1], minlength=labels)
        assert counts.sum() == exemplars
        assert sorted(counts)[0] == exemplars // labels
        assert counts.max() - counts.min() == (exemplars % labels > 0)
        assert found[-1] == seed % labels


def test_the_labels_that_get_one_exemplar_more_are_drawn_at_random():
    # With three labels and 32 exemplars, one label gets 10 and the others 11, whatever the label of the query.
    rng, draws = np.random.RandomState(0), 240
    short = Counter(int(np.bincount(draw("linear", rng, labels=3)[1][:-1], minlength=3).argmin()) for _ in range(draws))
    assert all(abs(short[label] - draws / 3) < 5 * (draws * 2 / 9) ** 0.5 for label in range(3))


def test_every_position_is_as_likely_to_hold_either_label():
    rng, draws = np.random.RandomState(0), 400
    ones = sum(draw("tree", rng, exemplars=8, query_label=1)[1][:-1] for _ in range(draws))
    assert (abs(ones - draws / 2) < 5 * draws**0.5 / 2).all()


@pytest.mark.parametrize("family", NAMES)
def test_all_points_of_an_item_are_different_and_in_range(family):
    # Only 81 points are there, so that drawing with repetition would give itself away.
    seen = set()
    for seed in range(20):
        points, _ = draw(family, seed, dimensions=2, low=-3, high=5, exemplars=30)
        assert len(set(map(tuple, points.tolist()))) == 31
        seen.update(points.flatten().tolist())
    assert seen == set(range(-3, 6))


def test_exemplars_may_repeat_where_distinct_is_off():
    points, found = draw("linear", dimensions=1, distinct=False)
    assert len(set(points.flatten().tolist())) <= 10
    assert np.bincount(found[:-1]).tolist() == [16, 16]


@pytest.mark.parametrize("family", NAMES)
def test_one_function_in_four_is_kept_for_testing(family):
    rng, draws = np.random.RandomState(3), 4000
    share = sum(split_of(FAMILIES[family].draw(rng, 4, 2)) == "test" for _ in range(draws)) / draws
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / draws) ** 0.5


@pytest.mark.parametrize(("family", "dimensions"), [("linear", 4), ("nn", 4), ("tree", 4), ("tree", 2)])
def test_a_function_is_drawn_for_one_split_only(family, dimensions, drawn):
    # A tree of two inputs is one of 16 functions, so that both splits draw each of theirs many times.
    used = {"test": set(), "train": set()}
    for split, seed in itertools.product(used, range(25)):
        draw(family, seed, split=split, dimensions=dimensions)
        used[split].add(drawn[-1].digest())
        assert split_of(drawn[-1]) == split
    assert used["test"]
    assert used["train"]
    assert not used["test"] & used["train"]


def test_trees_that_are_the_same_function_have_one_digest():
    # Is the first input above the centre? Asked at once, and asked after a question about the second that changes nothing.
    leaves = np.array([0] * 8 + [1] * 8)
    direct = Tree(np.zeros(15, dtype=np.int64), leaves, 3)
    features = np.zeros(15, dtype=np.int64)
    features[0] = 1
    roundabout = Tree(features, np.array([0] * 4 + [1] * 4 + [0] * 4 + [1] * 4), 3)
    unreachable = direct.leaves.copy()
    unreachable[7] = 1  # input 0 is below the centre and, three questions later, above it
    orthants = np.array(list(itertools.product([-1, 1], repeat=3)))
    for tree in (roundabout, Tree(direct.features, unreachable, 3)):
        assert (tree(orthants) == direct(orthants)).all()
        assert tree.digest() == direct.digest()
    assert Tree(direct.features, 1 - leaves, 3).digest() != direct.digest()


@pytest.mark.parametrize("family", ["linear", "nn"])
def test_a_digest_changes_with_every_weight(family):
    function = FAMILIES[family].draw(np.random.RandomState(0), 2, 3)
    seen = {function.digest()}
    for name, weights in vars(function).items():
        changed = weights.copy()
        changed[-1, -1] += 1
        seen.add(type(function)(**(vars(function) | {name: changed})).digest())
    assert len(seen) == 1 + len(vars(function))


@pytest.mark.parametrize("family", NAMES)
def test_impossible_requests_are_refused(family, monkeypatch):
    monkeypatch.setattr(functions, "MAX_DRAWS", 20)
    assert issubclass(ImpossibleDrawError, BadOptionError)
    with raises_line(ImpossibleDrawError, family, "0..99", "4 labels", "32 exemplars"):
        draw(family, dimensions=1, high=99, labels=4)  # one input has two sides of the centre


@pytest.mark.parametrize("family", NAMES)
def test_the_stream_passed_in_is_the_only_randomness(family):
    results = []
    for seed in (1, 2):
        np.random.seed(seed)
        random.seed(seed)
        before = np.random.get_state()[1].tolist(), np.random.get_state()[2:], random.getstate()
        results.append([array.tolist() for array in draw(family, 7)])
        assert (np.random.get_state()[1].tolist(), np.random.get_state()[2:], random.getstate()) == before
    assert results[0] == results[1]
    assert results[0] != [array.tolist() for array in draw(family, 8)]
