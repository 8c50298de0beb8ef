"""SparseGPT on single matrices, against ``oracle`` and against what it must be equal to."""

from __future__ import annotations

import functools

import numpy as np
import oracle
import pytest
import torch
from harness_ext_pruners import sparsegpt
from harness_ext_pruners.magnitude import Magnitude
from harness_ext_pruners.sparsegpt import SparseGPT
from pairwise import all_pairs
from refusals import raises_line
from single_matrices import array, measured
from single_matrices import matrix as any_matrix
from single_matrices import pruned as prune
from single_matrices import tokens as any_tokens

from harness_ext import BadOptionError, NumericalError, Sparsity

eliminate = sparsegpt._eliminate
matrix, tokens = functools.partial(any_matrix, dtype=torch.float32), functools.partial(any_tokens, dtype=torch.float32)


class TestSparseGPT:
    @all_pairs(block=[1, 5, 8, 128], sparsity=[0.29, 0.7, "2:4", "1:2"], damping=[0.01, 0.5])
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

    @pytest.mark.parametrize(("block", "scale"), [(3, 1.0), (4, 0.01), (128, 1.0)])
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

    @pytest.mark.parametrize(("block", "sparsity"), [(4, 0.1), (128, 0.3), (4, 0.8), (128, "2:4")])
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

    @pytest.mark.parametrize(("shape", "sparsity"), [((6, 48), 0.0), ((1, 96), 0.3), ((5, 240), 0.9), ((5, 240), "40:48")])
    def test_solving_for_the_errors_of_a_strip_at_once_is_the_same_as_going_column_by_column(self, monkeypatch, sparsity, shape):
        """The one is what accelerators do, the other what CPUs do."""
        weight, inputs = matrix(*shape), tokens(shape[1], count=300)
        found = []
        for at_once in (True, False):
            monkeypatch.setattr(sparsegpt, "_eliminate", functools.partial(eliminate, at_once=at_once))
            found.append(prune(SparseGPT(block_size=96), weight, sparsity, inputs))
        assert (found[0] == 0).equal(found[1] == 0)
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)

    def test_layers_that_are_pruned_together_come_out_as_if_each_were_alone(self):
        weights, inputs = [matrix(rows, 24, seed=rows) for rows in (6, 3, 10)], tokens(24, count=100)
        for sparsities in (["2:4"] * 3, [0.5] * 3, [0.2, 0.0, 0.7], ["2:4", 0.3, "1:4"]):
            parsed = [Sparsity.parse(sparsity) for sparsity in sparsities]
            together = SparseGPT(block_size=8).prune_together(weights, parsed, measured(SparseGPT(), inputs))
            for result, weight, sparsity in zip(together, weights, sparsities, strict=True):
                alone = prune(SparseGPT(block_size=8), weight, sparsity, inputs)
                assert (result.weight == 0).equal(alone == 0)
                torch.testing.assert_close(result.weight, alone, rtol=1e-5, atol=1e-6)

    def test_the_score_is_the_error_that_removing_the_weight_alone_leaves(self):
        weight, inputs = matrix(3, 8), tokens(8)
        scores, full = SparseGPT().score(weight, measured(SparseGPT(), inputs)), oracle.damped(oracle.hessian(array(inputs)), 0.01)
        for i in range(3):
            for j in range(8):
                change = oracle.optimal_brain_surgeon(array(weight)[i], full, j) - array(weight)[i]
                assert float(scores[i, j]) == pytest.approx(change @ full @ change, rel=1e-4)

    def test_a_hessian_with_nan_is_an_error(self):
        inputs = tokens(8)
        inputs[3, 3] = float("nan")
        with raises_line(NumericalError, "NaN"):
            prune(SparseGPT(), matrix(4, 8), 0.5, inputs)

    @pytest.mark.parametrize("options", [{"block_size": 0}, {"damping": 0.0}, {"damping": -1}, {"damping": float("nan")}])
    def test_options_out_of_range_are_refused(self, options):
        with raises_line(BadOptionError, f"pruner.{next(iter(options))}="):
            SparseGPT(**options)


@pytest.mark.parametrize("asked", ["0.5", "0.3", "2:4", "4:8"])
def test_no_column_waits_for_the_device(asked):
    """Tensors on the meta device have no values: whatever asks for one fails there, as it would wait on another device."""
    sparsity = Sparsity.parse(asked)
    weights = [torch.empty(rows, 320, device="meta") for rows in (24, 8)]
    upper, dead = torch.empty(320, 320, device="meta"), torch.empty(320, dtype=torch.bool, device="meta")
    pruned = SparseGPT()._sweep(weights, [sparsity, sparsity], upper, dead)
    assert [weight.shape for weight in pruned] == [(24, 320), (8, 320)]
    with pytest.raises(RuntimeError):
        bool(dead.any())
