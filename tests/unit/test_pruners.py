"""The pruners that only choose masks, against ``oracle`` and against each other; ``test_properties`` has what holds for every pruner."""

from __future__ import annotations

import functools

import numpy as np
import oracle
import pytest
import torch
from harness_ext_pruners.admm import ADMM
from harness_ext_pruners.alps import ALPS
from harness_ext_pruners.magnitude import Magnitude
from harness_ext_pruners.random import Random
from harness_ext_pruners.ria import RIA
from harness_ext_pruners.sparsegpt import SparseGPT
from harness_ext_pruners.wanda import Wanda
from refusals import raises_line
from single_matrices import array, measured
from single_matrices import matrix as any_matrix
from single_matrices import pruned as prune
from single_matrices import tokens as any_tokens

from harness_ext import BadOptionError, NumericalError, PluginError, Pruner, Sparsity
from harness_ext.engine.new_weights import Pruning

matrix, tokens = functools.partial(any_matrix, dtype=torch.float32), functools.partial(any_tokens, dtype=torch.float32)


class TestMagnitude:
    @pytest.mark.parametrize("ratio", [0.29, 0.5, 0.99])
    def test_removes_the_smallest_of_the_matrix_or_of_each_row(self, ratio):
        weight = matrix(4, 6)
        scores = np.abs(array(weight))
        assert (prune(Magnitude(), weight, ratio, None) == 0).tolist() == oracle.mask_of_matrix(scores, ratio).tolist()
        assert (prune(Magnitude(per="row"), weight, ratio, None) == 0).tolist() == oracle.mask_of_rows(scores, ratio).tolist()

    def test_removes_the_smallest_of_each_group_of_a_pattern(self):
        weight = matrix(4, 8)
        assert (prune(Magnitude(), weight, "2:4", None) == 0).tolist() == oracle.mask_of_groups(np.abs(array(weight)), 2, 4).tolist()

    @pytest.mark.parametrize("scale", [2.0**-20, 3.0, 1e10])
    def test_does_not_care_for_the_scale(self, scale):
        weight = matrix(5, 12)
        assert (prune(Magnitude(), weight * scale, 0.5, None) == 0).equal(prune(Magnitude(), weight, 0.5, None) == 0)


class TestRandom:
    def test_does_not_care_for_magnitude(self):
        """Of 10,000 removed weights, about half are among the larger half: 5,000 with a standard deviation of 50."""
        weight = matrix(100, 200)
        removed = prune(Random(), weight, 0.5, None) == 0
        assert abs(int((weight.abs() > weight.abs().median())[removed].sum()) - 5000) < 300

    def test_depends_on_the_seed_and_on_the_weight(self):
        masks = [
            prune(Random(seed=seed), matrix(8, 16, seed=layer), 0.5, None) == 0 for seed, layer in [(0, 0), (1, 0), (0, 1), (2**32 - 1, 0)]
        ]
        assert not any(one.equal(other) for i, one in enumerate(masks) for other in masks[:i])

    @pytest.mark.parametrize("seed", [-1, 2**32])
    def test_refuses_seeds_that_the_generator_would_take_for_others(self, seed):
        with raises_line(BadOptionError, f"pruner.seed={seed}"):
            Random(seed=seed)

    def test_does_not_touch_the_global_generator(self):
        before = torch.get_rng_state()
        prune(Random(), matrix(8, 16), 0.5, None)
        assert torch.get_rng_state().equal(before)


class TestWanda:
    @pytest.mark.parametrize("ratio", [0.29, 0.5, 0.99])
    def test_removes_the_smallest_products_of_each_row(self, ratio):
        weight, inputs = matrix(4, 6), tokens(6)
        expected = oracle.mask_of_rows(oracle.wanda_scores(array(weight), array(inputs)), ratio)
        assert (prune(Wanda(), weight, ratio, inputs) == 0).tolist() == expected.tolist()

    def test_removes_the_smallest_products_of_each_group_of_a_pattern(self):
        weight, inputs = matrix(4, 8), tokens(8)
        expected = oracle.mask_of_groups(oracle.wanda_scores(array(weight), array(inputs)), 2, 4)
        assert (prune(Wanda(), weight, "2:4", inputs) == 0).tolist() == expected.tolist()

    def test_with_unit_norms_is_magnitude_by_rows(self):
        weight, inputs = matrix(16, 12), torch.eye(12)
        assert prune(Wanda(), weight, 0.5, inputs).equal(prune(Magnitude(per="row"), weight, 0.5, None))

    def test_removes_inputs_that_were_never_there_first(self):
        inputs = tokens(8)
        inputs[:, [2, 6]] = 0
        assert not prune(Wanda(), matrix(5, 8), 0.25, inputs)[:, [2, 6]].any()

    def test_removes_the_weight_whose_loss_changes_the_output_least(self):
        """For one weight of a row the score is the change of the output, whatever the correlations."""
        weight, inputs = matrix(5, 8), tokens(8)
        removed = prune(Wanda(), weight, 0.125, inputs) == 0
        for row, gone in zip(weight, removed, strict=True):
            changes = (inputs * row).norm(dim=0)
            assert gone.nonzero().item() == changes.argmin()


class TestRIA:
    @pytest.mark.parametrize(("power", "ratio"), [(0.0, 0.5), (0.5, 0.29), (0.5, 0.99), (2.0, 0.5)])
    def test_removes_the_smallest_relative_importances(self, ratio, power):
        weight, inputs = matrix(4, 6), tokens(6)
        scores = oracle.ria_scores(array(weight), array(inputs), power)
        assert (prune(RIA(power=power), weight, ratio, inputs) == 0).flatten().tolist() == list(
            oracle.lowest(scores.flatten(), oracle.removed_of(ratio, 24))
        )
        by_rows = oracle.mask_of_rows(scores, ratio)
        assert (prune(RIA(power=power, per="row"), weight, ratio, inputs) == 0).tolist() == by_rows.tolist()

    def test_removes_the_smallest_of_each_group_of_a_pattern(self):
        weight, inputs = matrix(4, 8), tokens(8)
        expected = oracle.mask_of_groups(oracle.ria_scores(array(weight), array(inputs), 0.5), 2, 4)
        assert (prune(RIA(), weight, "2:4", inputs) == 0).tolist() == expected.tolist()

    def test_outputs_and_channels_without_weights_have_no_nan_and_go_first(self):
        weight, inputs = matrix(6, 8), tokens(8)
        weight[2], weight[:, 5] = 0, 0
        zeros = prune(RIA(), weight, 13 / 48, inputs) == 0
        assert zeros[2].all()
        assert zeros[:, 5].all()
        assert zeros.sum() == 13

    def test_the_only_weight_of_a_channel_has_the_whole_share_of_it(self):
        weight, inputs = matrix(1, 6).abs() + 1, tokens(6)
        column_shares = RIA(power=0).score(weight, measured(RIA(), inputs)) - weight / weight.sum()
        torch.testing.assert_close(column_shares, torch.ones(1, 6))

    @pytest.mark.parametrize("power", [-0.5, float("nan"), float("inf")])
    def test_refuses_powers_that_make_no_sense(self, power):
        with raises_line(BadOptionError, "pruner.power="):
            RIA(power=power)


@pytest.mark.parametrize(
    ("pruner", "ratio"),
    [(Magnitude(), 0.29), (Magnitude(per="row"), 0.5), (Wanda(), 0.5), (RIA(), 0.5), (SparseGPT(), 0.29), (SparseGPT(block_size=4), 0.5)],
)
def test_rows_in_another_order_give_the_rows_in_that_order(pruner, ratio):
    weight, inputs = matrix(8, 12), tokens(12)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    one, other = prune(pruner, weight[order], ratio, inputs), prune(pruner, weight, ratio, inputs)[order]
    assert (one == 0).equal(other == 0)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)  # a product of matrices may round by the place of the row


@pytest.mark.parametrize("pruner", [Magnitude(), Wanda(), RIA(), SparseGPT()], ids=lambda pruner: pruner.name)
def test_a_scale_by_a_power_of_two_goes_through(pruner):
    weight, inputs = matrix(8, 12), tokens(12)
    for scale in (0.125, 8.0):
        assert prune(pruner, weight * scale, 0.5, inputs * scale).equal(prune(pruner, weight, 0.5, inputs) * scale)


def test_the_output_error_falls_from_random_over_magnitude_and_wanda_to_sparsegpt():
    weight, inputs = matrix(64, 48), tokens(48, count=500) * torch.logspace(-1, 1, 48)
    errors = [
        oracle.output_error(array(weight), array(prune(pruner, weight, 0.5, inputs)), array(inputs))
        for pruner in (SparseGPT(), Wanda(), Magnitude(), Random())
    ]
    assert errors == sorted(errors)


def test_scores_of_another_shape_are_not_broadcast():
    class Columns(Pruner):
        name = "columns"

        def score(self, weight, statistic):
            return weight.abs().sum(0, keepdim=True)

    with raises_line(PluginError, "scores", "(4, 6)", "(1, 6)"):
        Columns().prune(matrix(4, 6), Sparsity(0.5), None)


def test_nan_scores_are_refused():
    weight = matrix(4, 6)
    weight[1, 2] = float("nan")
    with raises_line(NumericalError, "NaN"):
        prune(Magnitude(), weight, 0.5, None)


@pytest.mark.parametrize(
    "pruner", [Magnitude(per="row"), RIA(per="row"), ADMM(per="row"), ALPS(per="row"), Wanda()], ids=lambda pruner: pruner.name
)
def test_an_expert_without_tokens_is_pruned_by_row_as_the_others_are(pruner):
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]])
    assert Pruning(pruner).without_inputs(weight, Sparsity(0.5)).tolist() == [[0, 0, 3, 4], [0, 0, 30, 40]]
