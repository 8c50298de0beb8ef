"""What is asked of an allocation, the rounding to patterns, and the checks of the total."""

from __future__ import annotations

import numpy as np
import oracle_allocation
import pytest
import torch
from harness_ext_allocations.uniform import Uniform
from harness_ext_pruners.magnitude import Magnitude
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import raises_line

from harness_ext import Allocation, BadOptionError, LayerShape, ModelPruner, PluginError, Sparsity
from harness_ext.engine.allocate import allocate, check_allocation


def shapes(*sizes, per_block=2):
    """Layers of those [rows, columns], two in a block."""
    return [LayerShape(f"layers.{i // per_block}.proj{i % per_block}", i // per_block, "ffn", *size) for i, size in enumerate(sizes)]


class Given(Allocation):
    """Returns what the test says."""

    name = "given"
    result: object = None

    def spread(self, sparsity, layers, measured):
        return self.result(sparsity, layers, measured) if callable(self.result) else self.result


class Whole(ModelPruner):
    name = "whole"

    def prune_model(self, model, sparsity, calibration, modules="all"):
        return None


def in_order(values, layers):
    return {layer.name: value for layer, value in zip(layers, values, strict=True)}


def run(values, sparsity, layers, allocation=Given):
    return allocate(allocation(result=in_order(values, layers)), Magnitude(), Sparsity.parse(sparsity), layers, {})


def removed(spread, layers):
    return sum(spread[layer.name].removed_of(layer.size) for layer in layers)


EQUAL = shapes((8, 16), (8, 16), (8, 16), (8, 16))
UNEQUAL = shapes((8, 16), (4, 16), (8, 32), (16, 16))


class TestRatios:
    @pytest.mark.parametrize("sparsity", [0.3, 0.5, "2:4"])
    def test_uniform_gives_every_layer_what_was_asked_for(self, sparsity):
        asked = Sparsity.parse(sparsity)
        assert allocate(Uniform(), Magnitude(), asked, UNEQUAL, {}) == {layer.name: asked for layer in UNEQUAL}

    def test_ratios_and_sparsities_may_be_mixed_and_come_back_in_the_order_of_the_model(self):
        values = [0.25, Sparsity.parse("3:4"), np.float64(0.5), Sparsity(0.5)]
        mapping = dict(reversed(in_order(values, EQUAL).items()))
        spread = allocate(Given(result=mapping), Magnitude(), Sparsity(0.5), EQUAL, {})
        assert list(spread.items()) == [
            (layer.name, value if isinstance(value, Sparsity) else Sparsity(float(value)))
            for layer, value in zip(EQUAL, values, strict=True)
        ]

    def test_it_is_given_what_was_asked_for_and_what_was_measured(self):
        seen = []

        def spread(sparsity, layers, measured):
            seen.append((sparsity, layers, measured))
            return dict.fromkeys((layer.name for layer in layers), 0.5)

        allocate(Given(result=spread), Magnitude(), Sparsity(0.5), EQUAL, {0: "a", 1: "b"})
        assert seen == [(Sparsity(0.5), EQUAL, {0: "a", 1: "b"})]

    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            (list, ["list"]),
            (lambda result: None, ["NoneType"]),
            (lambda result: dict(list(result.items())[1:]), ["1 of 4", "'layers.0.proj0'"]),
            (lambda result: result | {"layers.0.proj7": 0.5}, ["'layers.0.proj7'", "Did you mean 'layers.0.proj"]),
            (lambda result: result | {3: 0.5}, ["3"]),
            (
                lambda result: result | {"layers.1.proj0": 1.0},
                ["layers.1.proj0", "[0, 1)", "1.0"],
            ),
            (lambda result: result | {"layers.1.proj0": -0.1}, ["layers.1.proj0", "-0.1"]),
            (lambda result: result | {"layers.1.proj0": float("nan")}, ["layers.1.proj0", "nan"]),
            (lambda result: result | {"layers.1.proj0": "0.5"}, ["layers.1.proj0", "'0.5'"]),
            (lambda result: result | {"layers.1.proj0": False}, ["layers.1.proj0", "False"]),
            (lambda result: result | {"layers.1.proj0": None}, ["layers.1.proj0", "None"]),
            (lambda result: result | {"layers.1.proj0": torch.tensor(0.5)}, ["layers.1.proj0", "tensor(0.5000)"]),
        ],
    )
    def test_another_result_is_an_error_that_names_the_allocation(self, change, parts):
        result = change(dict.fromkeys((layer.name for layer in EQUAL), 0.5))
        with raises_line(PluginError, "allocation 'given'", *parts):
            allocate(Given(result=result), Magnitude(), Sparsity(0.5), EQUAL, {})

    @pytest.mark.parametrize("sparsity", [0.5, "2:4"])
    def test_another_total_is_an_error_that_says_both(self, sparsity):
        with raises_line(PluginError, "allocation 'given'", "224", "256"):
            run([0.25, 0.5, 0.5, 0.5], sparsity, EQUAL)

    def test_one_weight_a_layer_may_be_missing_and_not_more(self):
        one_more = [0.5 - 1 / 128, 0.5 - 1 / 128, 0.5 - 1 / 128, 0.5 - 1 / 128]
        assert removed(run(one_more, 0.5, EQUAL), EQUAL) == 252
        with raises_line(PluginError, "251", "256"):
            run([*one_more[:3], 0.5 - 2 / 128], 0.5, EQUAL)

    def test_of_many_weights_a_thousandth_may_be_missing(self):
        layers = shapes((1000, 1000))
        assert removed(run([0.4995], 0.5, layers), layers) == 499_500
        with raises_line(PluginError, "499490", "500000"):
            run([0.49949], 0.5, layers)


class TestPatterns:
    def test_a_layer_at_0_counts_where_the_total_is_that_of_all_layers(self):
        """The total of the other five, 20 weights, is within rounding of the 24 that are removed."""
        layers = shapes(*[(2, 32)] * 6)
        spread = run([64 / 1024, 65 / 1024, 128 / 1024, 64 / 1024, 63 / 1024, 0.0], "1:16", layers)
        assert removed(spread, layers) == 24
        assert [value.pattern[0] if value.pattern else 0 for value in spread.values()] == [1, 1, 2, 1, 1, 0]

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_ratios_of_equal_layers_are_rounded_by_the_largest_remainders(self, data):
        m = data.draw(st.sampled_from([4, 8, 16]))
        n = data.draw(st.integers(1, m - 2))
        shifts = [data.draw(st.integers(0, min(n, m - 1 - n) * 64)) / (m * 64) for _ in range(3)]
        ratios = [n / m + shift for shift in shifts] + [n / m - shift for shift in shifts]
        layers = shapes(*[(2, 32)] * 6)
        spread = run(ratios, f"{n}:{m}", layers)
        zeros = [value.pattern[0] if value.pattern else 0 for value in spread.values()]
        assert zeros == oracle_allocation.largest_remainders(ratios, m, 6 * n)
        assert removed(spread, layers) == sum(layer.size for layer in layers) * n // m

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_of_unequal_layers_none_that_was_rounded_down_could_bring_the_total_nearer(self, data):
        m = data.draw(st.sampled_from([4, 8]))
        n = data.draw(st.integers(1, m - 2))
        layers = shapes(*[(data.draw(st.integers(1, 20)), m * data.draw(st.integers(1, 5))) for _ in range(6)])
        total = sum(layer.size for layer in layers)
        wanted = [data.draw(st.floats(-0.4, 0.4)) for _ in layers]
        centre = sum(value * layer.size for value, layer in zip(wanted, layers, strict=True)) / total
        ratios = [n / m + (value - centre) * min(n, m - 1 - n) / m for value in wanted]
        spread = run(ratios, f"{n}:{m}", layers)
        missing = total * n // m - removed(spread, layers)
        assert abs(missing) <= max(layer.size for layer in layers) / m / 2
        for layer, ratio in zip(layers, ratios, strict=True):
            rounded = spread[layer.name].ratio
            assert abs(rounded - ratio) < 1 / m + 1e-9
            assert rounded > ratio or rounded == pytest.approx(ratio) or abs(missing - layer.size // m) >= abs(missing)

    def test_what_comes_to_no_zeros_is_dense_and_what_comes_to_all_keeps_one(self):
        spread = run([0.99, 0.98, 0.02, 0.01], "2:4", EQUAL)
        assert [str(value) for value in spread.values()] == ["3:4", "3:4", "1:4", "1:4"]
        spread = run([0.75, 0.75, 0.05, 0.05], "2:5", shapes(*[(4, 20)] * 4))
        assert [str(value) for value in spread.values()] == ["4:5", "4:5", "0", "0"]

    def test_the_total_is_kept_also_where_most_layers_lose_all_that_they_can(self):
        layers = shapes(*[(8, 16)] * 8)
        spread = run([0.99] * 6 + [0.03] * 2, "3:4", layers)
        assert [str(value) for value in spread.values()] == ["3:4"] * 8

    def test_a_pattern_that_the_allocation_chose_stays(self):
        spread = run([Sparsity.parse("1:8"), Sparsity.parse("7:8"), 0.5, 0.5], "2:4", EQUAL)
        assert [str(value) for value in spread.values()] == ["1:8", "7:8", "2:4", "2:4"]

    @pytest.mark.parametrize("ratio", [0.5, 0.875, 0.01])
    def test_a_plain_ratio_in_the_place_of_a_pattern_is_refused(self, ratio):
        """Pruned by it, a layer would have other groups than the pattern says, and the total would still be right."""
        with raises_line(PluginError, "sparsity=2:4", "layers.0.proj1", str(ratio)):
            run([0.5, Sparsity(ratio), 1 - ratio, 0.5], "2:4", shapes(*[(4, 16)] * 4))

    def test_a_layer_may_stay_dense_under_a_pattern(self):
        spread = run([Sparsity(0.0), Sparsity.parse("3:4"), 0.5, 0.75], "2:4", EQUAL)
        assert [str(value) for value in spread.values()] == ["0", "3:4", "2:4", "3:4"]

    def test_the_same_ratios_give_the_same_patterns_and_ties_go_to_the_first(self):
        layers = shapes(*[(4, 8)] * 4)
        results = [run([0.375] * 4, "3:8", layers) for _ in range(2)]
        assert results[0] == results[1]
        spread = run([0.25 + 1 / 16] * 2 + [0.25 - 1 / 16] * 2, "2:8", layers)
        assert [str(value) for value in spread.values()] == ["3:8", "3:8", "1:8", "1:8"]
        spread = run([0.25] * 4, "1:4", layers)
        assert [str(value) for value in spread.values()] == ["1:4"] * 4

    @pytest.mark.parametrize("values", [[0.5] * 4, [Sparsity.parse("2:4")] * 4])
    def test_a_pattern_that_does_not_divide_the_inputs_is_an_error_that_names_the_layer(self, values):
        layers = shapes((8, 16), (8, 16), (8, 18), (8, 16))
        with raises_line(BadOptionError, "sparsity=2:4", "layers.1.proj0", "18"):
            run(values, "2:4", layers)

    def test_a_pattern_of_one_layer_must_divide_its_inputs_also_if_a_ratio_was_asked_for(self):
        with raises_line(BadOptionError, "sparsity=16:32", "layers.0.proj0", "16"):
            run([Sparsity.parse("16:32"), 0.5, 0.5, 0.5], 0.5, EQUAL)


class RatiosOnly(Given):
    name = "ratios-only"
    patterns = False


class TestBeforeWeightsAreLoaded:
    def test_an_allocation_of_ratios_refuses_a_pattern(self):
        for call in (
            lambda: check_allocation(RatiosOnly(), Magnitude(), Sparsity.parse("2:4")),
            lambda: run([0.5] * 4, "2:4", EQUAL, RatiosOnly),
        ):
            with raises_line(BadOptionError, "sparsity=2:4", "'ratios-only'", "0.5"):
                call()
        check_allocation(RatiosOnly(), Magnitude(), Sparsity(0.5))

    def test_a_pruner_of_whole_models_takes_no_allocation_but_uniform(self):
        check_allocation(Uniform(), Whole(), Sparsity(0.5))
        with raises_line(BadOptionError, "allocation='given'", "'whole'"):
            check_allocation(Given(), Whole(), Sparsity(0.5))

    def test_the_contract_is_checked_and_then_the_allocation_checks_itself(self):
        class Empty(Allocation):
            name = "empty"

        class Choosy(Given):
            name = "choosy"

            def check(self, pruner):
                raise BadOptionError(f"not with {pruner.name}")

        with raises_line(PluginError, "Empty", "spread"):
            check_allocation(Empty(), Magnitude(), Sparsity(0.5))
        with raises_line(BadOptionError, "not with magnitude"):
            check_allocation(Choosy(), Magnitude(), Sparsity(0.5))
