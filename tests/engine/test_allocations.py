"""The built-in allocations ``owl`` and ``global``, against ``oracle_allocation`` and against the pruners."""

from __future__ import annotations

import numpy as np
import oracle
import oracle_allocation
import pytest
import tiny
import torch
from harness_ext_allocations.global_ import Global, counts_below, sparsity_of
from harness_ext_allocations.listed import Listed
from harness_ext_allocations.owl import OWL
from harness_ext_pruners.magnitude import Magnitude
from harness_ext_pruners.sparsegpt import SparseGPT
from harness_ext_pruners.wanda import Wanda
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import raises_line

from harness_ext import (
    BadOptionError,
    LayerShape,
    Measured,
    ModelPruner,
    NumericalError,
    PluginError,
    Pruned,
    Pruner,
    Sparsity,
    find_blocks,
)
from harness_ext.engine.allocate import allocate, check_allocation
from harness_ext.plugins import Plugins


def matrix(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def heavy(*shape, seed=0):
    """Weights of which some are far from the others: the cubes of normal ones."""
    return matrix(*shape, seed=seed) ** 3


def model_of(*blocks, dtype=torch.float32, seed=0, draw=heavy):
    """Layers of random weights and inputs, by block: ``model_of([(4, 8), (8, 4)], [(4, 8)])``."""
    found = {}
    for number, sizes in enumerate(blocks):
        found[number] = []
        for index, (rows, columns) in enumerate(sizes):
            draws = seed + 100 * number + 10 * index
            layer = LayerShape(f"model.layers.{number}.mlp.proj_{index}", number, "ffn", rows, columns)
            inputs = matrix(30, columns, seed=draws + 1) * torch.arange(1, columns + 1)
            found[number].append((layer, draw(rows, columns, seed=draws).to(dtype), inputs.to(dtype)))
    return found


def shapes_of(model):
    return [layer for block in model.values() for layer, _, _ in block]


def measure(allocation, pruner, model):
    """What the engine keeps of each block."""
    kind = allocation.measures(pruner)

    def statistic(inputs):
        if kind is None:
            return None
        made = kind(inputs.shape[1], inputs.device, inputs.dtype)
        made.update(inputs)
        return made

    return {
        number: allocation.measure([Measured(layer, weight, statistic(inputs)) for layer, weight, inputs in block], pruner)
        for number, block in model.items()
    }


def spread(allocation, pruner, model, sparsity):
    return allocate(allocation, pruner, Sparsity.parse(sparsity), shapes_of(model), measure(allocation, pruner, model))


def array(tensor):
    return tensor.double().numpy()


BLOCKS = ([(6, 8), (8, 12)], [(6, 8), (8, 12)], [(10, 16)], [(6, 8)])


def test_they_are_registered_by_their_names():
    registered = {name: item for name, (item, _) in Plugins().allocations.items.items()}
    assert {"owl": OWL, "global": Global, "list": Listed}.items() <= registered.items()


class TestOWL:
    @pytest.mark.parametrize(("threshold", "dtype"), [(1.0, torch.float32), (3.0, torch.float64), (5.0, torch.float32)])
    def test_the_share_of_outliers_is_that_of_the_paper_over_all_matrices_of_a_block(self, threshold, dtype):
        model = model_of(*BLOCKS, dtype=dtype)
        shares = measure(OWL(threshold=threshold), Magnitude(), model)
        for number, block in model.items():
            expected = oracle_allocation.outlier_share([array(w) for _, w, _ in block], [array(x) for _, _, x in block], threshold)
            assert shares[number] == expected
        assert len(set(shares.values())) > 2

    @pytest.mark.parametrize("margin", [0.02, 0.08, 0.2])
    def test_ratios_are_those_of_the_paper_and_one_for_all_matrices_of_a_block(self, margin):
        model = model_of(*BLOCKS)
        allocation = OWL(margin=margin, threshold=3.0)
        shares = measure(allocation, Magnitude(), model)
        sizes = [sum(layer.size for layer, _, _ in block) for block in model.values()]
        expected = oracle_allocation.owl_ratios(list(shares.values()), sizes, 0.6, margin)
        ratios = allocation.spread(Sparsity(0.6), shapes_of(model), shares)
        for layer in shapes_of(model):
            assert ratios[layer.name] == pytest.approx(expected[layer.block], abs=1e-12)
        assert sum(ratios[layer.name] * layer.size for layer in shapes_of(model)) == pytest.approx(0.6 * sum(sizes), abs=1e-6)

    def test_more_outliers_mean_less_sparsity(self):
        layers = shapes_of(model_of(*[[(8, 8)]] * 3))
        ratios = list(OWL().spread(Sparsity(0.7), layers, {0: 0.01, 1: 0.03, 2: 0.02}).values())
        assert ratios == pytest.approx([0.78, 0.62, 0.7])

    def test_blocks_of_equal_shares_get_the_asked_sparsity(self):
        layers = shapes_of(model_of(*BLOCKS))
        for asked in (Sparsity(0.7), Sparsity.parse("2:4")):
            assert allocate(OWL(), Magnitude(), asked, layers, dict.fromkeys(range(4), 0.02)) == {layer.name: asked for layer in layers}

    def test_weights_that_are_all_zero_have_no_outliers(self):
        model = {0: [(layer, torch.zeros_like(weight), inputs) for layer, weight, inputs in model_of([(4, 8)])[0]]}
        assert measure(OWL(), Magnitude(), model) == {0: 0.0}

    def test_it_does_not_depend_on_the_scale_of_a_block(self):
        model = model_of(*BLOCKS)
        scaled = {number: [(layer, weight * 4.0**number, inputs) for layer, weight, inputs in block] for number, block in model.items()}
        assert measure(OWL(), Magnitude(), model) == measure(OWL(), Magnitude(), scaled)

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_the_total_is_kept_where_ratios_reach_their_limits(self, data):
        count = data.draw(st.integers(2, 6))
        layers = shapes_of(model_of(*[[(data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30)))] for _ in range(count)]))
        asked = data.draw(st.floats(0.01, 0.99))
        shares = {number: data.draw(st.integers(0, 50)) / 1000 for number in range(count)}
        if len(set(shares.values())) == 1:
            return
        margin = data.draw(st.floats(0.01, 0.5))
        ratios = list(OWL(margin=margin).spread(Sparsity(asked), layers, shares).values())
        sizes = [layer.size for layer in layers]
        assert all(0 <= ratio <= 0.99 for ratio in ratios)
        assert sum(r * size for r, size in zip(ratios, sizes, strict=True)) == pytest.approx(asked * sum(sizes), abs=1e-6)
        # All that are inside the limits were moved by the same amount; the others would have left them with it.
        wanted = oracle_allocation.owl_ratios(list(shares.values()), sizes, asked, margin)
        moves = [ratio - want for ratio, want in zip(ratios, wanted, strict=True) if 1e-9 < ratio < 0.99 - 1e-9]
        assert moves == pytest.approx([moves[0]] * len(moves), abs=1e-9) if moves else True
        for ratio, want in zip(ratios, wanted, strict=True):
            for move in moves[:1]:
                assert ratio == pytest.approx(min(max(want + move, 0), 0.99), abs=1e-9)

    def test_more_than_its_limit_cannot_be_asked_for(self):
        layers = shapes_of(model_of(*[[(8, 8)]] * 2))
        with raises_line(BadOptionError, "sparsity=0.995", "'owl'", "0.99"):
            OWL().spread(Sparsity(0.995), layers, {0: 0.1, 1: 0.2})

    @pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:4", "5:8", "7:8"])
    def test_a_pattern_is_kept_in_total_and_the_blocks_keep_their_order(self, pattern):
        layers = shapes_of(model_of(*[[(8, 16), (8, 16)]] * 6))
        shares = {0: 0.06, 1: 0.05, 2: 0.04, 3: 0.03, 4: 0.02, 5: 0.01}
        asked = Sparsity.parse(pattern)
        given = allocate(OWL(margin=0.25), Magnitude(), asked, layers, shares)
        ratios = [given[layer.name].ratio for layer in layers]
        assert all(value.pattern is None or value.pattern[1] == asked.pattern[1] for value in given.values())
        assert ratios == sorted(ratios)
        assert sum(given[layer.name].removed_of(layer.size) for layer in layers) == sum(asked.removed_of(layer.size) for layer in layers)
        assert len(set(ratios)) > 1 or pattern in ("3:4", "7:8")

    @pytest.mark.parametrize("options", [{"threshold": 0.0}, {"threshold": float("inf")}, {"margin": -0.1}, {"margin": 0.6}])
    def test_values_that_make_no_sense_are_refused(self, options):
        (name,) = options
        with raises_line(BadOptionError, f"allocation.{name}="):
            OWL.from_options(options)


class TestGlobal:
    @pytest.mark.parametrize("ratio", [0.0, 0.1, 0.29, 0.5, 0.7])
    @pytest.mark.parametrize("draw", [heavy, lambda *shape, seed: matrix(*shape, seed=seed).round()], ids=["distinct", "ties"])
    def test_with_magnitude_it_is_global_magnitude_pruning_weight_by_weight(self, ratio, draw):
        model = model_of(*BLOCKS, draw=draw)
        given = spread(Global(), Magnitude(), model, ratio)
        scores = {layer.name: np.abs(array(weight)) for block in model.values() for layer, weight, _ in block}
        count = oracle.removed_of(ratio, sum(matrix.size for matrix in scores.values()))
        expected = oracle_allocation.global_masks(scores, count)
        assert sum(int(mask.sum()) for mask in expected.values()) == count
        for block in model.values():
            for layer, weight, _ in block:
                mask = given[layer.name].mask(weight.abs())
                assert (mask.numpy() == expected[layer.name]).all()
                assert Magnitude().prune(weight, given[layer.name], None).equal(weight.masked_fill(mask, 0))

    def test_on_a_model_its_masks_are_the_lowest_of_all_weights(self):
        blocks = find_blocks(tiny.model(layers=3))
        model = {
            number: [(LayerShape(layer.name, number, layer.kind, *layer.weight.shape), layer.weight, None) for layer in block.layers]
            for number, block in enumerate(blocks)
        }
        measured = {
            number: Global().measure([Measured(layer, weight, None) for layer, weight, _ in block], Magnitude())
            for number, block in model.items()
        }
        given = allocate(Global(), Magnitude(), Sparsity(0.37), shapes_of(model), measured)
        removed = torch.cat([weight[given[layer.name].mask(weight.abs())] for block in model.values() for layer, weight, _ in block]).abs()
        kept = torch.cat([weight[~given[layer.name].mask(weight.abs())] for block in model.values() for layer, weight, _ in block]).abs()
        assert len(removed) == oracle.removed_of(0.37, len(removed) + len(kept))
        assert removed.max() <= kept.min()

    def test_it_takes_the_scores_and_the_statistic_of_the_pruner(self):
        model = model_of(*BLOCKS)
        assert Global().measures(Wanda()) is Wanda.statistic
        assert Global().measures(Magnitude()) is None
        given = spread(Global(), Wanda(), model, 0.4)
        scores = {
            layer.name: oracle.wanda_scores(array(weight), array(inputs)) for block in model.values() for layer, weight, inputs in block
        }
        expected = oracle_allocation.global_masks(scores, oracle.removed_of(0.4, sum(matrix.size for matrix in scores.values())))
        assert {name: value.removed_of(scores[name].size) for name, value in given.items()} == {
            name: int(mask.sum()) for name, mask in expected.items()
        }

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=12), min_size=1, max_size=4),
        st.floats(0, 1),
    )
    def test_counts_are_right_for_any_floats(self, values, share):
        count = int(share * sum(map(len, values)))
        scores = {str(index): np.array([part]) for index, part in enumerate(values)}
        expected = [int(mask.sum()) for mask in oracle_allocation.global_masks(scores, count).values()]
        assert counts_below([torch.tensor(part) + 0.0 for part in values], count) == expected

    @settings(deadline=None, max_examples=60)
    @given(st.integers(1, 2**31), st.data())
    def test_there_is_a_ratio_for_every_count(self, size, data):
        count = data.draw(st.integers(0, size - 1))
        assert sparsity_of(count, size).removed_of(size) == count

    def test_a_layer_keeps_at_least_one_weight(self):
        model = model_of([(4, 8)], [(4, 8)])
        model[0] = [(layer, weight * 1e-6, inputs) for layer, weight, inputs in model[0]]
        given = spread(Global(), Magnitude(), model, 0.6)
        counts = [value.removed_of(32) for value in given.values()]
        assert counts == [31, 6]

    def test_ties_go_to_the_first_layer(self):
        model = model_of([(4, 8)], [(4, 8)], draw=lambda *shape, seed: torch.ones(shape))
        assert [value.removed_of(32) for value in spread(Global(), Magnitude(), model, 0.25).values()] == [16, 0]

    def test_it_keeps_a_copy_of_the_scores_and_not_the_weight(self):
        class Itself(Pruner):
            name = "itself"

            def score(self, weight, statistic):
                return weight

        model = model_of(*BLOCKS)
        measured = measure(Global(), Itself(), model)
        before = allocate(Global(), Itself(), Sparsity(0.5), shapes_of(model), measured)
        for block in model.values():
            for _, weight, _ in block:
                weight.zero_()
        assert allocate(Global(), Itself(), Sparsity(0.5), shapes_of(model), measured) == before
        kept = [scores for block in measured.values() for scores in block.values()]
        assert {(scores.dtype, scores.device.type) for scores in kept} == {(torch.float32, "cpu")}

    def test_it_takes_scores_of_any_float(self):
        model = model_of(*BLOCKS, dtype=torch.float64)
        given = spread(Global(), Magnitude(), model, 0.5)
        assert given == spread(Global(), Magnitude(), model_of(*BLOCKS), 0.5)

    def test_a_pruner_without_scores_is_refused_before_weights_are_loaded(self):
        class Own(Pruner):
            name = "own"

            def prune(self, weight, sparsity, statistic):
                return weight

        class Both(ModelPruner):
            name = "both"

            def score(self, weight, statistic):
                return weight

            def prune_model(self, model, sparsity, calibration, modules="all"):
                return None

        with raises_line(BadOptionError, "allocation='global'", "'own'", "score"):
            check_allocation(Global(), Own(), Sparsity(0.5))
        with raises_line(BadOptionError, "allocation='global'", "'both'", "score"):
            Global().check(Both())
        for pruner in (Magnitude(), Wanda(), SparseGPT()):
            check_allocation(Global(), pruner, Sparsity(0.5))

    def test_a_pattern_is_refused_before_weights_are_loaded(self):
        with raises_line(BadOptionError, "sparsity=2:4", "'global'", "0.5"):
            check_allocation(Global(), Magnitude(), Sparsity.parse("2:4"))

    @pytest.mark.parametrize(
        ("score", "kind", "parts"),
        [
            (lambda weight: weight * float("nan"), NumericalError, ["NaN"]),
            (lambda weight: weight[0], PluginError, ["(6, 8)", "(8,)"]),
            (lambda weight: None, PluginError, ["(6, 8)", "NoneType"]),
        ],
    )
    def test_wrong_scores_name_the_pruner_and_the_layer(self, score, kind, parts):
        class Wrong(Pruner):
            name = "wrong"

            def score(self, weight, statistic):
                return score(weight)

        with raises_line(kind, "'wrong'", "model.layers.0.mlp.proj_0", *parts):
            measure(Global(), Wrong(), model_of(*BLOCKS))

    def test_with_a_pruner_that_compares_by_row_each_row_loses_the_ratio_of_the_layer(self):
        model = model_of(*BLOCKS)
        kind = Wanda.statistic
        for name, value in spread(Global(), Wanda(), model, 0.5).items():
            ((weight, inputs),) = [(w, x) for block in model.values() for layer, w, x in block if layer.name == name]
            statistic = kind(inputs.shape[1], inputs.device)
            statistic.update(inputs)
            result = Wanda().prune(weight, value, statistic)
            pruned = result.weight if isinstance(result, Pruned) else result
            assert ((pruned == 0).sum(1) == value.removed_of(weight.shape[1])).all()
