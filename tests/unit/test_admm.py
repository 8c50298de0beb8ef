"""``admm`` on single matrices, against ``oracle_layerwise`` and against other methods."""

from __future__ import annotations

import harness_ext_pruners.admm
import numpy as np
import oracle
import oracle_layerwise
import pytest
import torch
from harness_ext_pruners.admm import ADMM
from harness_ext_pruners.magnitude import Magnitude
from harness_ext_pruners.sparsegpt import SparseGPT
from harness_ext_pruners.wanda import Wanda
from pairwise import all_pairs
from refusals import raises_line
from single_matrices import array, how, matrix, measured, prune, tokens

from harness_ext import BadOptionError, Hessian, NumericalError, Sparsity

PAPER = {"rho": 1.0, "damping": 0.1, "iterations": 20, "mask_iterations": 15}
DEFAULTS = {"rho": 0.3, "damping": 0.01, "iterations": 20, "mask_iterations": 15}
SHORT = {"rho": 2.0, "damping": 0.0, "iterations": 7, "mask_iterations": 4}


class TestTheAlgorithm:
    @all_pairs(
        options=[PAPER, DEFAULTS, SHORT], schedule=["cubic", "constant"], per=["matrix", "row"], sparsity=[0.29, 0.7, 0.99, "2:4", "2:6"]
    )
    def test_is_that_of_the_paper(self, sparsity, per, schedule, options):
        weight, inputs = matrix(7, 12), tokens(12)
        expected, mask = oracle_layerwise.admm(
            array(weight), oracle.hessian(array(inputs)), per=per, cubic=schedule == "cubic", **how(sparsity), **options
        )
        pruned = prune(ADMM(per=per, schedule=schedule, **options), weight, sparsity, inputs).weight
        assert (pruned == 0).tolist() == mask.tolist()
        np.testing.assert_allclose(pruned.numpy(), expected, rtol=1e-8, atol=1e-10)

    def test_has_the_defaults_that_are_tested_here(self):
        assert ADMM().options() == {**DEFAULTS, "schedule": "cubic", "per": "matrix"}

    def test_is_that_of_the_paper_in_float32_on_a_larger_matrix(self):
        weight, inputs = matrix(24, 40, dtype=torch.float32), tokens(40, count=300, dtype=torch.float32)
        expected, mask = oracle_layerwise.admm(array(weight), oracle.hessian(array(inputs)), ratio=0.6, **DEFAULTS)
        pruned = prune(ADMM(), weight, 0.6, inputs).weight
        assert pruned.dtype == torch.float32
        assert (pruned == 0).tolist() == mask.tolist()
        np.testing.assert_allclose(pruned.numpy(), expected, rtol=1e-3, atol=1e-4)

    def test_is_that_of_the_paper_with_inputs_that_were_never_there(self):
        weight, inputs = matrix(7, 12), tokens(12)
        inputs[:, [0, 5, 6]] = 0
        for ratio in (0.1, 0.5):  # some of the 21 weights of these inputs stay, or none
            expected, mask = oracle_layerwise.admm(array(weight), oracle.hessian(array(inputs)), ratio=ratio, **DEFAULTS)
            result = prune(ADMM(), weight, ratio, inputs)
            assert (result.weight == 0).tolist() == mask.tolist()
            np.testing.assert_allclose(result.weight.numpy(), expected, rtol=1e-8, atol=1e-10)
            assert result.notes["dead_inputs"] == 3

    def test_a_constant_and_a_cubic_schedule_of_one_iteration_are_the_same(self):
        weight, inputs = matrix(6, 12), tokens(12)
        cubic, constant = (prune(ADMM(schedule=name, mask_iterations=1), weight, 0.5, inputs).weight for name in ("cubic", "constant"))
        assert cubic.equal(constant)

    @pytest.mark.parametrize("sparsity", [0.5, "2:4"])
    def test_with_independent_inputs_and_a_high_penalty_is_magnitude(self, sparsity):
        weight = matrix(6, 12)
        pruned = prune(ADMM(rho=4.0), weight, sparsity, torch.eye(12, dtype=torch.float64)).weight
        torch.testing.assert_close(pruned, prune(Magnitude(), weight, sparsity, torch.empty(0)).weight)

    def test_after_many_iterations_no_other_weights_on_the_mask_have_a_lower_error(self):
        weight, inputs = matrix(5, 10), tokens(10)
        pruned = prune(ADMM(iterations=3000, damping=0.05), weight, 0.5, inputs).weight
        hessian, norms = oracle_layerwise.scaled(oracle.hessian(array(inputs)))
        damped = hessian + 0.05 * np.eye(10)
        for row, result in zip(array(weight), pruned.numpy(), strict=True):
            fit = oracle_layerwise.least_squares(row * norms, damped, result == 0) / norms
            np.testing.assert_allclose(result, fit, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7, "2:4"])
def test_the_output_error_is_lower_than_with_sparsegpt_which_is_lower_than_with_wanda(ratio):
    weight, inputs = matrix(48, 64), tokens(64, count=500) * torch.logspace(-1, 1, 64)
    errors = [
        oracle.output_error(array(weight), array(prune(pruner, weight, ratio, inputs).weight), array(inputs))
        for pruner in (ADMM(), SparseGPT(), Wanda())
    ]
    assert errors == sorted(errors)
    assert errors[0] < 0.9 * errors[1]


class TestLayersWithTheSameInputs:
    def test_are_pruned_as_each_by_itself_with_one_factorisation(self, monkeypatch):
        inputs, weights = tokens(12), [matrix(rows, 12, seed=rows) for rows in (6, 3, 9)]
        sparsities = [Sparsity.parse(value) for value in (0.5, "2:4", 0.0)]
        apart = [ADMM().prune(weight, sparsity, measured(ADMM(), inputs)) for weight, sparsity in zip(weights, sparsities, strict=True)]
        calls = []
        factorise = harness_ext_pruners.admm.inverse_factor
        monkeypatch.setattr(harness_ext_pruners.admm, "inverse_factor", lambda *args: calls.append(args) or factorise(*args))
        together = ADMM().prune_together(weights, sparsities, measured(ADMM(), inputs))
        assert len(calls) == 1
        assert all(one.weight.equal(other.weight) and one.notes == other.notes for one, other in zip(apart, together, strict=True))

    def test_do_not_see_what_was_measured_before(self):
        """Nothing is kept between calls, so that a statistic that saw more tokens gives other weights."""
        weight, first, second = matrix(6, 12), tokens(12), tokens(12, seed=11)
        statistic = measured(ADMM(), first)
        before = ADMM().prune(weight, Sparsity(0.5), statistic).weight
        statistic.update(second)
        after = ADMM().prune(weight, Sparsity(0.5), statistic).weight
        fresh = measured(ADMM(), first)
        fresh.update(second)  # the sum is rounded as that of the other statistic is
        assert not before.equal(after)
        assert after.equal(ADMM().prune(weight, Sparsity(0.5), fresh).weight)
        at_once = prune(ADMM(), weight, 0.5, torch.cat([first, second])).weight
        assert (after == 0).equal(at_once == 0)
        torch.testing.assert_close(after, at_once, rtol=1e-9, atol=1e-12)


class TestFailures:
    def test_notes_the_damping_that_it_took(self):
        assert prune(ADMM(), matrix(4, 8), 0.5, tokens(8)).notes == {"damping": 0.01, "damping_retries": 0}
        statistic = Hessian(2, torch.device("cpu"), torch.float64)
        statistic.products, statistic.tokens = torch.tensor([[1.0, 3.0], [3.0, 1.0]], dtype=torch.float64), 1  # an eigenvalue of -2
        notes = ADMM().prune(matrix(2, 2), Sparsity(0.5), statistic).notes
        assert notes == {"damping": pytest.approx(10 * 0.31 - 0.3), "damping_retries": 1}

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_a_hessian_that_is_not_finite_is_an_error(self, bad):
        inputs = tokens(8)
        inputs[3, 3] = bad
        with raises_line(NumericalError, "NaN"):
            prune(ADMM(), matrix(4, 8), 0.5, inputs)

    @pytest.mark.parametrize(
        "options",
        [
            {"iterations": 14},
            {"mask_iterations": 0},
            {"rho": 0.0},
            {"rho": float("nan")},
            {"damping": -0.1},
            {"damping": float("inf")},
        ],
        ids=str,
    )
    def test_options_out_of_range_are_refused(self, options):
        with raises_line(BadOptionError, f"pruner.{next(iter(options))}="):
            ADMM(**options)

    def test_a_pattern_that_does_not_divide_the_row_is_refused(self):
        with raises_line(BadOptionError, "sparsity=2:5"):
            prune(ADMM(), matrix(4, 8), "2:5", tokens(8))


def test_the_scores_are_those_of_wanda():
    weight, inputs = matrix(4, 6), tokens(6)
    np.testing.assert_allclose(ADMM().score(weight, measured(ADMM(), inputs)), oracle.wanda_scores(array(weight), array(inputs)))


def test_few_tokens_are_enough():
    """A Hessian of rank three."""
    result = prune(ADMM(), matrix(4, 24, dtype=torch.float32), 0.5, tokens(24, count=3, dtype=torch.float32))
    assert result.weight.isfinite().all()
    assert (result.weight == 0).sum() == 48
