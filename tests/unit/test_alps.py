"""``alps`` on single matrices, against ``oracle_layerwise`` and against other methods."""

from __future__ import annotations

import itertools

import numpy as np
import oracle
import oracle_layerwise
import pytest
import torch
from harness_ext_pruners.admm import ADMM
from harness_ext_pruners.alps import ALPS, conjugate_gradients
from harness_ext_pruners.magnitude import Magnitude
from harness_ext_pruners.sparsegpt import SparseGPT
from harness_ext_pruners.wanda import Wanda
from pairwise import all_pairs
from refusals import raises_line
from single_matrices import array, how, matrix, measured, prune, tokens

from harness_ext import BadOptionError, Hessian, NumericalError, Sparsity

DEFAULTS = {"rho": 0.1, "damping": 0.01}


class TestTheAlgorithm:
    @all_pairs(
        options=[DEFAULTS, {"rho": 1.0, "damping": 0.3}, {"rho": 1e4, "damping": 0.01}],
        per=["matrix", "row"],
        sparsity=[0.29, 0.7, 0.99, "2:4", "2:6"],
    )
    def test_is_that_of_the_paper(self, sparsity, per, options):
        weight, inputs = matrix(7, 12), tokens(12)
        expected, mask = oracle_layerwise.alps(array(weight), oracle.hessian(array(inputs)), per=per, **how(sparsity), **options)
        pruned = prune(ALPS(per=per, solve_iterations=200, **options), weight, sparsity, inputs).weight
        assert (pruned == 0).tolist() == mask.tolist()
        np.testing.assert_allclose(pruned.numpy(), expected, rtol=1e-6, atol=1e-8)

    def test_has_the_defaults_that_are_tested_here(self):
        assert ALPS().options() == {**DEFAULTS, "iterations": 300, "check_every": 3, "solve_iterations": 10, "per": "matrix"}

    def test_is_that_of_the_paper_in_float32_on_a_larger_matrix(self):
        weight, inputs = matrix(24, 40, dtype=torch.float32), tokens(40, count=300, dtype=torch.float32)
        expected, mask = oracle_layerwise.alps(array(weight), oracle.hessian(array(inputs)), ratio=0.6, **DEFAULTS)
        pruned = prune(ALPS(solve_iterations=100), weight, 0.6, inputs).weight
        assert pruned.dtype == torch.float32
        assert (pruned == 0).tolist() == mask.tolist()
        np.testing.assert_allclose(pruned.numpy(), expected, rtol=1e-3, atol=1e-4)

    def test_is_that_of_the_paper_with_inputs_that_were_never_there(self):
        weight, inputs = matrix(7, 12), tokens(12)
        inputs[:, [0, 5, 6]] = 0
        for ratio in (0.1, 0.5):  # some of the 21 weights of these inputs stay, or none
            expected, mask = oracle_layerwise.alps(array(weight), oracle.hessian(array(inputs)), ratio=ratio, **DEFAULTS)
            result = prune(ALPS(solve_iterations=200), weight, ratio, inputs)
            assert (result.weight == 0).tolist() == mask.tolist()
            np.testing.assert_allclose(result.weight.numpy(), expected, rtol=1e-6, atol=1e-8)
            assert result.notes["dead_inputs"] == 3

    def test_stops_where_the_mask_has_settled_and_says_when(self):
        weight, inputs = matrix(24, 40), tokens(40, count=300)
        notes = prune(ALPS(), weight, 0.5, inputs).notes
        assert notes["iterations"] < 300
        longer, shorter = (prune(ALPS(iterations=count), weight, 0.5, inputs) for count in (1000, notes["iterations"]))
        assert longer.weight.equal(shorter.weight)
        assert prune(ALPS(iterations=4), weight, 0.5, inputs).notes["iterations"] == 4

    @pytest.mark.parametrize("sparsity", [0.5, "2:4"])
    def test_with_independent_inputs_is_magnitude(self, sparsity):
        weight = matrix(6, 12)
        pruned = prune(ALPS(), weight, sparsity, torch.eye(12, dtype=torch.float64)).weight
        torch.testing.assert_close(pruned, prune(Magnitude(), weight, sparsity, torch.empty(0)).weight)

    def test_a_penalty_that_holds_the_first_mask_is_lowered_four_times(self):
        weight, inputs = matrix(6, 12), tokens(12)
        result = prune(ALPS(rho=1e8), weight, 0.5, inputs)
        assert (result.weight == 0).tolist() == oracle.mask_of_matrix(oracle.wanda_scores(array(weight), array(inputs)), 0.5).tolist()
        assert result.notes["iterations"] == 15

    def test_of_all_masks_of_a_row_it_finds_one_that_is_nearly_the_best(self):
        """Of 24 rows of 8 weights, with all 70 masks of 4 tried for each; the weights on each mask by least squares."""
        weight, inputs = matrix(24, 8), tokens(8)
        hessian = oracle.damped(oracle.hessian(array(inputs)), 1e-6)
        masks = [np.array([j in gone for j in range(8)]) for gone in itertools.combinations(range(8), 4)]
        best = errors = 0.0
        for row, result in zip(array(weight), prune(ALPS(per="row", damping=1e-6), weight, 0.5, inputs).weight.numpy(), strict=True):
            changes = [row - oracle_layerwise.least_squares(row, hessian, mask) for mask in masks]
            lowest = min(change @ hessian @ change for change in changes)
            error = (row - result) @ hessian @ (row - result)
            assert error >= lowest * (1 - 1e-9)
            best, errors = best + lowest, errors + error
        assert errors < 1.1 * best


class TestConjugateGradients:
    def system(self):
        hessian, goal = oracle.damped(oracle.hessian(array(tokens(12))), 0.01), matrix(5, 12)
        return torch.tensor(hessian), goal, matrix(5, 12, seed=3) > 0.3

    def test_end_at_the_least_squares_on_the_mask(self):
        hessian, goal, removed = self.system()
        result = conjugate_gradients(hessian, goal, torch.zeros_like(goal), removed, 100)
        for row, gone, wanted in zip(result.numpy(), removed.numpy(), goal.numpy(), strict=True):
            dense = np.linalg.solve(hessian.numpy(), wanted)
            np.testing.assert_allclose(row, oracle_layerwise.least_squares(dense, hessian.numpy(), gone), rtol=1e-7, atol=1e-9)

    def test_lower_the_error_with_every_step_and_touch_no_removed_weight(self):
        hessian, goal, removed = self.system()
        start = matrix(5, 12, seed=5).masked_fill(removed, 0)
        dense = torch.linalg.solve(hessian, goal.T).T
        errors = []
        for count in range(6):
            result = conjugate_gradients(hessian, goal, start, removed, count)
            assert not result[removed].any()
            change = result - dense
            errors.append((change @ hessian * change).sum(1))
        assert (torch.stack(errors).diff(dim=0) < 0).all()

    def test_stay_at_a_solution(self):
        hessian, _, removed = self.system()
        solution = matrix(5, 12, seed=5).masked_fill(removed, 0).float()
        result = conjugate_gradients(hessian.float(), solution @ hessian.float(), solution, removed, 1000)
        torch.testing.assert_close(result, solution)

    @pytest.mark.parametrize("scale", [1e-30, 0.0, 1e15])
    def test_have_no_nan_at_any_scale(self, scale):
        hessian, goal, removed = self.system()
        assert conjugate_gradients(hessian.float(), goal.float() * scale, goal.float() * 0, removed, 50).isfinite().all()


@pytest.mark.parametrize("ratio", [0.5, 0.7, "2:4"])
def test_the_output_error_falls_from_wanda_over_sparsegpt_and_admm_to_alps(ratio):
    weight, inputs = matrix(48, 64), tokens(64, count=500) * torch.logspace(-1, 1, 64)
    errors = [
        oracle.output_error(array(weight), array(prune(pruner, weight, ratio, inputs).weight), array(inputs))
        for pruner in (ALPS(), ADMM(), SparseGPT(), Wanda())
    ]
    assert errors == sorted(errors)
    assert errors[0] < 0.9 * errors[2]


def test_layers_with_the_same_inputs_are_pruned_as_each_by_itself_with_one_decomposition(monkeypatch):
    inputs, weights = tokens(12), [matrix(rows, 12, seed=rows) for rows in (6, 3, 9)]
    sparsities = [Sparsity.parse(value) for value in (0.5, "2:4", 0.0)]
    apart = [ALPS().prune(weight, sparsity, measured(ALPS(), inputs)) for weight, sparsity in zip(weights, sparsities, strict=True)]
    calls, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: calls.append(matrix) or eigh(matrix))
    together = ALPS().prune_together(weights, sparsities, measured(ALPS(), inputs))
    assert len(calls) == 1
    assert all(one.weight.equal(other.weight) and one.notes == other.notes for one, other in zip(apart, together, strict=True))


class TestFailures:
    def indefinite(self, correlation):
        statistic = Hessian(2, torch.device("cpu"), torch.float64)
        statistic.products, statistic.tokens = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64), 1
        return statistic

    def test_notes_the_damping_that_it_took(self):
        notes = prune(ALPS(), matrix(4, 8), 0.5, tokens(8)).notes
        assert (notes["damping"], notes["damping_retries"]) == (0.01, 0)
        result = ALPS().prune(matrix(2, 2), Sparsity(0.5), self.indefinite(3.0))  # an eigenvalue of -2, more than 0.01, 0.1 and 1
        assert result.weight.isfinite().all()
        assert (result.notes["damping"], result.notes["damping_retries"]) == (pytest.approx(10), 3)

    def test_a_hessian_that_no_damping_makes_definite_is_an_error(self):
        with raises_line(NumericalError, "positive definite", "10000"):
            ALPS().prune(matrix(2, 2), Sparsity(0.5), self.indefinite(1e6))

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_a_hessian_that_is_not_finite_is_an_error(self, bad):
        inputs = tokens(8)
        inputs[3, 3] = bad
        with raises_line(NumericalError, "NaN"):
            prune(ALPS(), matrix(4, 8), 0.5, inputs)

    def test_a_decomposition_that_fails_is_an_error_and_lack_of_memory_is_not_hidden(self, monkeypatch):
        def fail(message):
            def eigh(matrix):
                raise RuntimeError(message)

            monkeypatch.setattr(torch.linalg, "eigh", eigh)

        fail("linalg.eigh: The algorithm failed to converge")
        with raises_line(NumericalError, "eigendecomposition", "calibration"):
            prune(ALPS(), matrix(4, 8), 0.5, tokens(8))
        fail("not enough memory")
        with pytest.raises(RuntimeError, match="not enough memory"):
            prune(ALPS(), matrix(4, 8), 0.5, tokens(8))

    @pytest.mark.parametrize(
        "options",
        [
            {"iterations": 0},
            {"check_every": 0},
            {"solve_iterations": -1},
            {"rho": 0.0},
            {"rho": float("nan")},
            {"damping": 0.0},
            {"damping": float("inf")},
        ],
        ids=str,
    )
    def test_options_out_of_range_are_refused(self, options):
        with raises_line(BadOptionError, f"pruner.{next(iter(options))}="):
            ALPS(**options)

    def test_a_pattern_that_does_not_divide_the_row_is_refused(self):
        with raises_line(BadOptionError, "sparsity=2:5"):
            prune(ALPS(), matrix(4, 8), "2:5", tokens(8))


def test_the_scores_are_those_of_wanda():
    weight, inputs = matrix(4, 6), tokens(6)
    np.testing.assert_allclose(ALPS().score(weight, measured(ALPS(), inputs)), oracle.wanda_scores(array(weight), array(inputs)))


def test_few_tokens_are_enough():
    """A Hessian of rank three."""
    result = prune(ALPS(), matrix(4, 24, dtype=torch.float32), 0.5, tokens(24, count=3, dtype=torch.float32))
    assert result.weight.isfinite().all()
    assert (result.weight == 0).sum() == 48
