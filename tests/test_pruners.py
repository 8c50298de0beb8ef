"""The built-in pruners on single matrices, against ``oracle`` and against each other."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from harness_ext_pruners.magnitude import Magnitude
from harness_ext_pruners.random import Random
from harness_ext_pruners.ria import RIA
from harness_ext_pruners.sparsegpt import SparseGPT
from harness_ext_pruners.wanda import Wanda

from harness_ext import BadOptionError, NumericalError, PluginError, Pruned, Pruner, Sparsity

ALL = [Random(), Magnitude(), Magnitude(per="row"), Wanda(), RIA(), RIA(per="row"), SparseGPT(), SparseGPT(block_size=4)]
NAMES = ["random", "magnitude", "magnitude-row", "wanda", "ria", "ria-row", "sparsegpt", "sparsegpt-4"]
every_pruner = pytest.mark.parametrize("pruner", ALL, ids=NAMES)
every_shape = pytest.mark.parametrize("shape", [(6, 12), (1, 12), (12, 4)], ids=str)


def matrix(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tokens(width, count=64, seed=7):
    """Inputs of correlated channels with different norms."""
    return matrix(count, width, seed=seed) @ (torch.eye(width) + 0.3 * matrix(width, width, seed=seed + 1))


def measured(pruner, inputs):
    if pruner.statistic is None:
        return None
    statistic = pruner.statistic(inputs.shape[1], torch.device("cpu"))
    statistic.update(inputs)
    return statistic


def prune(pruner, weight, sparsity, inputs):
    result = pruner.prune(weight, Sparsity.parse(sparsity), measured(pruner, inputs))
    return result.weight if isinstance(result, Pruned) else result


def array(tensor):
    return tensor.double().numpy()


class TestEveryPruner:
    @every_pruner
    @every_shape
    @pytest.mark.parametrize("ratio", [0.0, 0.29, 0.5, 0.7, 0.99])
    def test_removes_exactly_the_floor_of_its_group(self, pruner, shape, ratio):
        weight, inputs = matrix(*shape), tokens(shape[1])
        zeros = prune(pruner, weight, ratio, inputs) == 0
        by_row = isinstance(pruner, Wanda) or getattr(pruner, "per", "") == "row"
        if by_row:
            assert (zeros.sum(1) == oracle.removed_of(ratio, shape[1])).all()
        assert zeros.sum() == (shape[0] * oracle.removed_of(ratio, shape[1]) if by_row else oracle.removed_of(ratio, weight.numel()))

    @every_pruner
    @every_shape
    @pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:4", "1:2"])
    def test_keeps_to_a_pattern(self, pruner, shape, pattern):
        n, m = map(int, pattern.split(":"))
        zeros = prune(pruner, matrix(*shape), pattern, tokens(shape[1])) == 0
        assert (zeros.reshape(-1, m).sum(1) == n).all()

    @every_pruner
    @pytest.mark.parametrize("sparsity", [0.5, "2:4"])
    def test_writes_into_nothing_that_it_is_given(self, pruner, sparsity):
        weight, inputs = matrix(6, 12), tokens(12)
        statistic = measured(pruner, inputs)
        given = [weight, inputs, *(tensor for tensor in vars(statistic).values() if torch.is_tensor(tensor))] if statistic else [weight]
        before = [tensor.clone() for tensor in given]
        pruner.prune(weight, Sparsity.parse(sparsity), statistic)
        assert all(one.equal(other) for one, other in zip(given, before, strict=True))

    @every_pruner
    @pytest.mark.parametrize("sparsity", [0.5, "2:4"])
    def test_gives_the_same_weights_twice_bit_for_bit(self, pruner, sparsity):
        one, other = (prune(pruner, matrix(16, 32), sparsity, tokens(32)) for _ in range(2))
        assert one.equal(other)

    @every_pruner
    @pytest.mark.parametrize("shape", [(1, 1), (8, 1), (1, 8)], ids=str)
    def test_takes_single_rows_and_columns(self, pruner, shape):
        weight = matrix(*shape)
        pruned = prune(pruner, weight, 0.5, tokens(shape[1]))
        assert pruned.shape == weight.shape
        by_row = isinstance(pruner, Wanda) or getattr(pruner, "per", "") == "row"
        assert (pruned == 0).sum() == (shape[0] * (shape[1] // 2) if by_row else weight.numel() // 2)

    @every_pruner
    def test_takes_rows_that_are_all_zero(self, pruner):
        weight = matrix(6, 12)
        weight[[1, 4]] = 0
        pruned = prune(pruner, weight, 0.5, tokens(12))
        assert pruned.isfinite().all()
        assert not pruned[[1, 4]].any()
        if not isinstance(pruner, Random):  # the zeros that are there count; by rows, the other rows still lose half
            assert (pruned == 0).sum() == (48 if isinstance(pruner, Wanda) or getattr(pruner, "per", "") == "row" else 36)

    @every_pruner
    def test_takes_inputs_that_were_never_there(self, pruner):
        weight, inputs = matrix(6, 12), tokens(12)
        inputs[:, [0, 5]] = 0
        pruned = prune(pruner, weight, 0.5, inputs)
        assert pruned.isfinite().all()
        assert (pruned == 0).sum() == 36

    @every_pruner
    def test_takes_inputs_that_were_all_zero(self, pruner):
        pruned = prune(pruner, matrix(6, 12), 0.5, torch.zeros(20, 12))
        assert pruned.isfinite().all()
        assert (pruned == 0).sum() == 36

    @every_pruner
    def test_leaves_no_minus_zero(self, pruner):
        pruned = prune(pruner, -matrix(6, 12).abs(), 0.5, tokens(12))
        assert not pruned[pruned == 0].signbit().any()

    @pytest.mark.parametrize("pruner", [Random(), Magnitude(), Magnitude(per="row"), Wanda()], ids=lambda pruner: pruner.name)
    def test_but_sparsegpt_keeps_what_it_keeps(self, pruner):
        weight = matrix(6, 12)
        pruned = prune(pruner, weight, 0.5, tokens(12))
        assert pruned[pruned != 0].equal(weight[pruned != 0])


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
        with pytest.raises(BadOptionError, match=f"pruner.seed={seed}"):
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
    @pytest.mark.parametrize("power", [0.0, 0.5, 2.0])
    @pytest.mark.parametrize("ratio", [0.29, 0.5, 0.99])
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
        with pytest.raises(BadOptionError, match=r"pruner\.power="):
            RIA(power=power)


class TestSparseGPT:
    @pytest.mark.parametrize("block", [1, 4, 5, 8, 12, 128])
    @pytest.mark.parametrize("sparsity", [0.29, 0.5, 0.7, "2:4", "1:4", "1:2"])
    @pytest.mark.parametrize("damping", [0.01, 0.5])
    def test_is_algorithm_1_of_the_paper(self, block, sparsity, damping):
        weight, inputs = matrix(7, 12), tokens(12)
        how = {"pattern": tuple(map(int, sparsity.split(":")))} if isinstance(sparsity, str) else {"ratio": sparsity}
        expected, mask = oracle.sparsegpt(array(weight), oracle.hessian(array(inputs)), block=block, damping=damping, **how)
        pruned = prune(SparseGPT(block_size=block, damping=damping), weight, sparsity, inputs)
        assert (pruned == 0).tolist() == mask.tolist()
        np.testing.assert_allclose(pruned.numpy(), expected, rtol=1e-4, atol=1e-5)

    def test_is_algorithm_1_of_the_paper_on_a_larger_matrix(self):
        weight, inputs = matrix(24, 40), tokens(40, count=300)
        expected, mask = oracle.sparsegpt(array(weight), oracle.hessian(array(inputs)), ratio=0.5, block=16, damping=0.01)
        pruned = prune(SparseGPT(block_size=16), weight, 0.5, inputs)
        assert (pruned == 0).tolist() == mask.tolist()
        np.testing.assert_allclose(pruned.numpy(), expected, rtol=1e-3, atol=1e-4)

    def test_is_algorithm_1_of_the_paper_with_inputs_that_were_never_there(self):
        weight, inputs = matrix(7, 12), tokens(12)
        inputs[:, [0, 5, 6]] = 0
        expected, mask = oracle.sparsegpt(array(weight), oracle.hessian(array(inputs)), ratio=0.5, block=4, damping=0.01)
        result = SparseGPT(block_size=4).prune(weight, Sparsity(0.5), measured(SparseGPT(), inputs))
        assert (result.weight == 0).tolist() == mask.tolist()
        np.testing.assert_allclose(result.weight.numpy(), expected, rtol=1e-4, atol=1e-5)
        assert result.notes["dead_inputs"] == 3

    def test_inputs_that_were_never_there_go_first_and_keep_their_value_otherwise(self):
        weight, inputs = matrix(4, 8), tokens(8)
        inputs[:, [2, 6]] = 0
        assert not prune(SparseGPT(), weight, 0.25, inputs)[:, [2, 6]].any()
        few = prune(SparseGPT(), weight, 0.1, inputs)[:, [2, 6]]  # three of the eight
        assert (few == 0).sum() == 3
        assert few[few != 0].equal(weight[:, [2, 6]][few != 0])

    @pytest.mark.parametrize("block", [3, 4, 128])
    @pytest.mark.parametrize("scale", [1.0, 0.01])
    def test_with_an_identity_hessian_is_magnitude_in_each_block(self, block, scale):
        weight = matrix(6, 12)
        pruned = prune(SparseGPT(block_size=block), weight, 0.5, torch.eye(12) * scale)
        blocks = [prune(Magnitude(), part, 0.5, None) for part in weight.split(block, dim=1)]
        assert pruned.equal(torch.cat(blocks, dim=1))

    def test_with_an_identity_hessian_and_a_pattern_is_magnitude(self):
        weight = matrix(6, 12)
        assert prune(SparseGPT(), weight, "2:4", torch.eye(12)).equal(prune(Magnitude(), weight, "2:4", None))

    def test_one_removed_weight_is_made_up_for_by_all_to_its_right_as_by_the_optimal_brain_surgeon(self):
        """The columns to the left are done with, so it is the closed form for the columns from the removed one on."""
        weight, inputs = matrix(1, 9).repeat(9, 1), tokens(9)
        full = oracle.damped(oracle.hessian(array(inputs)), 0.01)
        for j in range(9):
            one = weight[j : j + 1].clone()
            one[0, j] = 1e-4  # the smallest saliency by far
            expected = array(one)[0]
            expected[j:] = oracle.optimal_brain_surgeon(expected[j:], full[j:, j:], 0)
            pruned = prune(SparseGPT(), one, 0.12, inputs)  # one of nine
            assert (pruned == 0).nonzero().tolist() == [[0, j]]
            np.testing.assert_allclose(pruned.numpy()[0], expected, rtol=1e-5, atol=1e-7)

    def test_no_other_weights_on_the_right_have_a_lower_error(self):
        """A removed first column: the rest is the least-squares fit to the dense output, up to the damping."""
        weight, inputs = matrix(3, 8), tokens(8)
        weight[:, 0] *= 0.01
        pruned = array(prune(SparseGPT(damping=1e-6), weight, "1:8", inputs))
        fit, *_ = np.linalg.lstsq(array(inputs)[:, 1:], array(inputs) @ array(weight).T, rcond=None)
        assert not pruned[:, 0].any()
        np.testing.assert_allclose(pruned[:, 1:], fit.T, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("block", [4, 128])
    @pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.8, "2:4"])
    def test_the_update_lowers_the_output_error_of_its_own_mask(self, block, sparsity):
        weight, inputs = matrix(16, 32), tokens(32, count=200)
        pruned = prune(SparseGPT(block_size=block), weight, sparsity, inputs)
        masked = weight.masked_fill(pruned == 0, 0)
        dense, x = array(weight), array(inputs)
        assert oracle.output_error(dense, array(pruned), x) < oracle.output_error(dense, array(masked), x)

    def test_notes_the_damping_that_it_took(self):
        weight, inputs = matrix(4, 24), tokens(24, count=3)  # a Hessian of rank three
        notes = SparseGPT(damping=1e-9).prune(weight, Sparsity(0.5), measured(SparseGPT(), inputs)).notes
        assert notes["damping_retries"] > 0
        assert notes["damping"] == pytest.approx(1e-9 * 10 ** notes["damping_retries"])
        assert SparseGPT().prune(weight, Sparsity(0.5), measured(SparseGPT(), tokens(24, 200))).notes == {
            "damping": 0.01,
            "damping_retries": 0,
        }

    def test_a_hessian_with_nan_is_an_error(self):
        inputs = tokens(8)
        inputs[3, 3] = float("nan")
        with pytest.raises(NumericalError, match="NaN"):
            prune(SparseGPT(), matrix(4, 8), 0.5, inputs)

    @pytest.mark.parametrize("options", [{"block_size": 0}, {"damping": 0.0}, {"damping": -1}, {"damping": float("nan")}])
    def test_options_out_of_range_are_refused(self, options):
        with pytest.raises(BadOptionError, match=next(iter(options))):
            SparseGPT(**options)


@pytest.mark.parametrize(
    ("pruner", "ratio"),
    [(Magnitude(), 0.29), (Magnitude(per="row"), 0.5), (Wanda(), 0.5), (RIA(), 0.5), (SparseGPT(), 0.29), (SparseGPT(block_size=4), 0.5)],
)
def test_rows_in_another_order_give_the_rows_in_that_order(pruner, ratio):
    weight, inputs = matrix(8, 12), tokens(12)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(prune(pruner, weight[order], ratio, inputs), prune(pruner, weight, ratio, inputs)[order], rtol=0, atol=0)


@pytest.mark.parametrize("scale", [0.125, 8.0])
@pytest.mark.parametrize("pruner", [Magnitude(), Wanda(), RIA(), SparseGPT()], ids=lambda pruner: pruner.name)
def test_a_scale_by_a_power_of_two_goes_through(pruner, scale):
    weight, inputs = matrix(8, 12), tokens(12)
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

    with pytest.raises(PluginError, match=r"want scores of shape \(4, 6\), not \(1, 6\)"):
        Columns().prune(matrix(4, 6), Sparsity(0.5), None)


def test_nan_scores_are_refused():
    weight = matrix(4, 6)
    weight[1, 2] = float("nan")
    with pytest.raises(NumericalError, match="scores are NaN"):
        prune(Magnitude(), weight, 0.5, None)
