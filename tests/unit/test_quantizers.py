"""Rounding to nearest and GPTQ on single matrices, against ``oracle_gptq``, a library, and what they must be equal to."""

from __future__ import annotations

import math

import numpy as np
import oracle
import oracle_gptq
import pytest
import torch
from harness_ext_pruners.magnitude import Magnitude
from harness_ext_pruners.sparsegpt import SparseGPT
from harness_ext_quantizers.gptq import GPTQ
from harness_ext_quantizers.rtn import RTN
from pairwise import all_pairs
from refusals import raises_line
from single_matrices import array, how, matrix, measured, tokens

from harness_ext import BadOptionError, Grid, NumericalError, Quantized, Quantizer, Sparsity
from harness_ext.method.grid import stored_bits
from harness_ext.method.quantizer import parse_bits


def quantized(quantizer: Quantizer, weight, bits, inputs=None, sparsity=0) -> Quantized:
    statistic = measured(quantizer, inputs) if inputs is not None else None
    return quantizer.quantize_together([weight], bits, [Sparsity.parse(sparsity)], statistic)[0]


def values(quantizer: Quantizer, result: Quantized) -> torch.Tensor:
    """The weight that the codes stand for."""
    inputs = result.codes.shape[1]
    groups = torch.arange(inputs) // quantizer.width_of_group(inputs) if result.group_of is None else result.group_of
    return (result.codes.double() - result.zero_points.double()[:, groups]) * result.scales.double()[:, groups]


def error(weight, new, inputs):
    return float(((weight - new).double() @ inputs.double().T).square().sum())


class TestGrid:
    @all_pairs(bits=[2, 3, 4, 8], group_size=[1, 4, 5, 12, "row"], shift=[0.0, 5.0, -5.0])
    def test_rounds_as_fake_quantize_of_torch(self, bits, group_size, shift):
        weight = (matrix(7, 12) + shift).float()
        result = quantized(RTN(group_size=group_size), weight, bits)
        new = values(RTN(group_size=group_size), result).float()
        width = RTN(group_size=group_size).width_of_group(12)
        for group, start in enumerate(range(0, 12, width)):
            part, scales, zeros = weight[:, start : start + width], result.scales[:, group], result.zero_points[:, group]
            expected = torch.fake_quantize_per_channel_affine(part, scales, zeros.to(torch.int32), 0, 0, 2**bits - 1)
            torch.testing.assert_close(new[:, start : start + width], expected)

    @pytest.mark.parametrize("symmetric", [True, False])
    def test_no_weight_moves_by_more_than_half_a_step(self, symmetric):
        weight = matrix(9, 20)
        quantizer = RTN(group_size=8, symmetric=symmetric)
        result = quantized(quantizer, weight, 3)
        steps = result.scales[:, torch.arange(20) // 8]
        assert ((weight - values(quantizer, result)).abs() <= steps * 0.5000001).all()
        assert (result.zero_points == 4).all() or not symmetric

    def test_what_was_rounded_stays_as_it_is(self):
        weight = matrix(16, 40).float()
        once = values(RTN(group_size=16), quantized(RTN(group_size=16), weight, 4)).float()
        again = quantized(RTN(group_size=16), once, 4)
        assert again.codes.equal(quantized(RTN(group_size=16), weight, 4).codes)
        torch.testing.assert_close(values(RTN(group_size=16), again).float(), once)

    def test_zero_is_on_every_grid(self):
        for weights in (matrix(5, 8).abs() + 1, -matrix(5, 8).abs() - 1, torch.zeros(5, 8).double()):
            grid = Grid.of(weights, 3)
            assert not grid.values(grid.codes(torch.zeros(5, 8).double())).any()
            assert (grid.scales > 0).all()
            assert ((grid.zero_points >= 0) & (grid.zero_points <= 7)).all()

    def test_is_that_of_the_oracle(self):
        weight = matrix(6, 11)
        for symmetric in (True, False):
            quantizer = RTN(group_size=4, symmetric=symmetric)
            expected = oracle_gptq.nearest(array(weight), 3, 4, symmetric=symmetric)
            np.testing.assert_allclose(array(values(quantizer, quantized(quantizer, weight, 3))), expected, rtol=1e-12, atol=1e-14)


class TestRTN:
    @pytest.mark.parametrize("sparsity", [0.29, "2:4"])
    def test_removes_by_magnitude_and_rounds_the_rest(self, sparsity):
        weight = matrix(6, 12)
        result = quantized(RTN(group_size=5), weight, 4, sparsity=sparsity)
        kept = Magnitude().prune(weight, Sparsity.parse(sparsity), None)
        assert result.mask.equal(kept == 0)
        expected = oracle_gptq.nearest(array(kept), 4, 5)
        np.testing.assert_allclose(array(values(RTN(group_size=5), result)), expected, rtol=1e-12, atol=1e-14)


class TestGPTQ:
    @all_pairs(
        bits=[2, 3, 8],
        group_size=[1, 3, 4, 5, 12, 16, "row"],
        act_order=[True, False],
        static_groups=[True, False],
        symmetric=[True, False],
        block_size=[1, 4, 8, 128],
        damping=[0.01, 0.3],
    )
    def test_is_equation_2_of_the_paper(self, bits, group_size, act_order, static_groups, symmetric, block_size, damping):
        weight, inputs = matrix(7, 12), tokens(12)
        quantizer = GPTQ(
            group_size=group_size, act_order=act_order, static_groups=static_groups, symmetric=symmetric, block_size=block_size,
            damping=damping,
        )  # fmt: skip
        expected, codes, _ = oracle_gptq.gptq(
            array(weight), oracle.hessian(array(inputs)), bits, quantizer.width_of_group(12), damping=damping, act_order=act_order,
            static=static_groups, symmetric=symmetric,
        )  # fmt: skip
        result = quantized(quantizer, weight, bits, inputs)
        assert result.codes.tolist() == codes.tolist()
        np.testing.assert_allclose(array(values(quantizer, result)), expected, rtol=1e-9, atol=1e-11)

    def test_is_equation_2_of_the_paper_on_a_larger_matrix(self):
        weight, inputs = matrix(24, 150), tokens(150, count=400)
        for settings in ({"group_size": 32}, {"group_size": 64, "act_order": True}, {"group_size": 40, "block_size": 16}):
            quantizer = GPTQ(**settings)
            expected, codes, _ = oracle_gptq.gptq(
                array(weight), oracle.hessian(array(inputs)), 3, settings["group_size"], damping=0.01,
                act_order=settings.get("act_order", False),
            )  # fmt: skip
            result = quantized(quantizer, weight, 3, inputs)
            assert result.codes.tolist() == codes.tolist()
            np.testing.assert_allclose(array(values(quantizer, result)), expected, rtol=1e-7, atol=1e-9)

    @all_pairs(
        sparsity=[0.29, 0.7, "2:4", "1:2"], group_size=[4, 8, "row"], block_size=[4, 8, 128], static_groups=[True, False], bits=[3, 8]
    )
    def test_removes_and_rounds_in_one_pass(self, sparsity, group_size, block_size, static_groups, bits):
        weight, inputs = matrix(7, 24), tokens(24)
        quantizer = GPTQ(group_size=group_size, block_size=block_size, static_groups=static_groups)
        expected, codes, mask = oracle_gptq.gptq(
            array(weight), oracle.hessian(array(inputs)), bits, quantizer.width_of_group(24), damping=0.01, block=block_size,
            static=static_groups, **how(sparsity),
        )  # fmt: skip
        result = quantized(quantizer, weight, bits, inputs, sparsity)
        assert result.mask.tolist() == mask.tolist()
        assert result.codes.tolist() == codes.tolist()
        np.testing.assert_allclose(array(values(quantizer, result)), expected, rtol=1e-9, atol=1e-11)
        assert not values(quantizer, result)[result.mask].any()

    @pytest.mark.parametrize("act_order", [True, False])
    def test_of_inputs_that_were_never_there(self, act_order):
        weight, inputs = matrix(7, 12), tokens(12)
        inputs[:, [0, 5, 6]] = 0
        _, codes, mask = oracle_gptq.gptq(
            array(weight), oracle.hessian(array(inputs)), 3, 4, damping=0.01, act_order=act_order, ratio=0.3, block=128
        )
        quantizer = GPTQ(group_size=4, act_order=act_order)
        result = quantized(quantizer, weight, 3, inputs, 0.3)
        assert result.mask.tolist() == mask.tolist()
        assert result.mask[:, [0, 5, 6]].all() or result.mask[:, [0, 5, 6]].sum() == result.mask.sum()
        assert result.codes.tolist() == codes.tolist()
        assert result.notes["dead_inputs"] == 3

    def test_with_inputs_that_do_not_go_together_it_rounds_to_nearest(self):
        weight, inputs = matrix(6, 12), torch.eye(12).double() * 3
        assert quantized(GPTQ(group_size=4), weight, 3, inputs).codes.equal(quantized(RTN(group_size=4), weight, 3).codes)

    @all_pairs(bits=[2, 3, 4, 8], group_size=[8, 32, "row"], act_order=[True, False])
    def test_is_no_worse_than_rounding_to_nearest(self, bits, group_size, act_order):
        weight, inputs = matrix(32, 64), tokens(64, count=256)
        quantizer, simple = GPTQ(group_size=group_size, act_order=act_order), RTN(group_size=group_size)
        mine = error(weight, values(quantizer, quantized(quantizer, weight, bits, inputs)), inputs)
        assert mine < error(weight, values(simple, quantized(simple, weight, bits)), inputs)

    def test_many_bits_lose_next_to_nothing(self):
        weight, inputs = matrix(32, 64), tokens(64, count=256)
        new = values(GPTQ(), quantized(GPTQ(), weight, 8, inputs))
        assert error(weight, new, inputs) < 1e-4 * error(weight, torch.zeros_like(weight), inputs)

    def test_many_bits_remove_what_sparsegpt_removes(self):
        weight, inputs = matrix(24, 48), tokens(48, count=256)
        pruned = SparseGPT().prune(weight, Sparsity(0.5), measured(SparseGPT(), inputs)).weight
        result = quantized(GPTQ(group_size=1), weight, 8, inputs, 0.5)
        assert (result.mask == (pruned == 0)).double().mean() > 0.98
        assert torch.nn.functional.cosine_similarity(values(GPTQ(group_size=1), result).flatten(), pruned.flatten(), dim=0) > 0.99

    def test_layers_that_share_inputs_get_what_each_would_get_alone(self):
        weights, inputs = [matrix(5, 12, seed=seed) for seed in range(4)], tokens(12)
        sparsities = [Sparsity(0.0), Sparsity(0.5), Sparsity.parse("2:4"), Sparsity(0.25)]
        quantizer = GPTQ(group_size=4)
        together = quantizer.quantize_together(weights, 3, sparsities, measured(quantizer, inputs))
        for weight, sparsity, result in zip(weights, sparsities, together, strict=True):
            alone = quantizer.quantize(weight, 3, sparsity, measured(quantizer, inputs))
            assert alone.codes.equal(result.codes)
            assert (alone.mask is None) == (result.mask is None) == (sparsity.ratio == 0)

    def test_numbers_that_are_not_finite_are_an_error(self):
        weight, inputs = matrix(4, 8), tokens(8)
        weight[0, 0] = math.inf
        with raises_line(NumericalError, "NaN or infinite"):
            quantized(GPTQ(group_size=4), weight, 3, inputs)

    @pytest.mark.parametrize(
        ("options", "parts"),
        [
            ({"group_size": -1}, ["group_size=-1", "row"]),
            ({"group_size": "rows"}, ["group_size", "row"]),
            ({"group_size": True}, ["group_size"]),
            ({"group_size": 12.5}, ["group_size"]),
            ({"block_size": 0}, ["block_size=0"]),
            ({"damping": 0.0}, ["damping=0.0"]),
            ({"act_order": 1}, ["act_order"]),
            ({"groupsize": 64}, ["groupsize", "group_size"]),
        ],
    )
    def test_wrong_options_are_errors(self, options, parts):
        with raises_line(BadOptionError, *parts):
            GPTQ.from_options(options)

    def test_patterns_want_inputs_in_their_order_and_whole_groups(self):
        with raises_line(BadOptionError, "act_order"):
            GPTQ(act_order=True).check_sparsity(Sparsity.parse("2:4"))
        with raises_line(BadOptionError, "group_size=6", "multiple of 4"):
            GPTQ(group_size=6).check_sparsity(Sparsity.parse("2:4"))
        GPTQ(group_size="row").check_sparsity(Sparsity.parse("2:4"))


@pytest.mark.parametrize(("value", "bits"), [(4, 4), ("4", 4), (2, 2), (8, 8), (None, None), ("none", None), ("None", None)])
def test_bits_are_read(value, bits):
    assert parse_bits(value) == bits


@pytest.mark.parametrize("value", [True, False, 0, 1, 9, 16, -4, 4.0, 4.5, "4bit", "4.0", "", "four", [4], float("nan"), "0x4", "²"])
def test_other_bits_are_errors_that_say_which(value):
    with raises_line(BadOptionError, "bits=", "from 2 to 8"):
        parse_bits(value)


def test_removed_numbers_take_the_cheaper_of_two_forms():
    assert stored_bits(100, 0, 4) == 400
    assert stored_bits(100, 50, 4) == 300
    assert stored_bits(100, 10, 4) == 400
    assert stored_bits(100, 50, 16) == 900
