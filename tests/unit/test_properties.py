"""What holds for every pruner of single matrices, whatever the shapes, the sparsities and the numbers: drawn at random, always the same."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import oracle
import oracle_layerwise
import pytest
import torch
from harness_ext_pruners.admm import ADMM
from harness_ext_pruners.alps import ALPS
from harness_ext_pruners.dsnot import DSnoT
from harness_ext_pruners.magnitude import Magnitude
from harness_ext_pruners.random import Random
from harness_ext_pruners.ria import RIA
from harness_ext_pruners.sparsegpt import SparseGPT
from harness_ext_pruners.wanda import Wanda
from hypothesis import given, settings
from hypothesis import strategies as st
from single_matrices import array, matrix, measured, prune, tokens

from harness_ext import Pruner, Sparsity

MASKS = [
    Random(), Magnitude(), Magnitude(per="row"), Wanda(), RIA(), RIA(per="row"),
    DSnoT(), DSnoT(start="magnitude", threshold=0.0), DSnoT(start="sparsegpt"),
]  # fmt: skip
UPDATES = [SparseGPT(), SparseGPT(block_size=4), ADMM(), ADMM(schedule="constant"), ADMM(per="row"), ALPS(), ALPS(per="row")]
by_row = {id(pruner): pruner.group == "row" or getattr(pruner, "per", "") == "row" for pruner in MASKS + UPDATES}
PATTERNS = ["1:2", "2:4", "1:4", "3:4", "1:3", "2:3"]
RATIOS = [0.0, 0.1, 0.29, 0.5, 0.7, 0.99]


class Case(NamedTuple):
    weight: torch.Tensor
    inputs: torch.Tensor
    sparsity: Sparsity


@st.composite
def cases(draw, dtypes=(torch.float32, torch.float64), patterns=True):
    """A weight, inputs that may be fewer than their width, and what to remove."""
    pattern = draw(st.sampled_from([None, *PATTERNS])) if patterns else None
    rows, columns = draw(st.integers(1, 7)), draw(st.integers(1, 14))
    if pattern:
        columns = draw(st.integers(1, 4)) * int(pattern[2])
    seed, dtype = draw(st.integers(0, 1000)), draw(st.sampled_from(dtypes))
    count, shift = draw(st.sampled_from([2, 9, 64])), draw(st.sampled_from([0.0, 2.0]))
    weight = matrix(rows, columns, seed=seed, dtype=dtype) * draw(st.sampled_from([1e-4, 1.0, 1e3]))
    sparsity = Sparsity.parse(pattern or draw(st.sampled_from(RATIOS)))
    return Case(weight, tokens(columns, count=count, seed=seed + 1, shift=shift, dtype=dtype), sparsity)


def check(examples):
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


def every(pruners):
    return pytest.mark.parametrize("pruner", pruners, ids=lambda pruner: "-".join([pruner.name, *map(str, changed(pruner))]))


def changed(pruner: Pruner):
    return [value for name, value in pruner.options().items() if value != pruner.defaults()[name]]


def zeros_of(pruner, case):
    """How many zeros a weight without zeros must have afterwards, in each row and altogether."""
    rows, columns = case.weight.shape
    if by_row[id(pruner)] or case.sparsity.pattern:
        return rows * case.sparsity.removed_of(columns)
    return case.sparsity.removed_of(rows * columns)


@every(MASKS + UPDATES)
class TestEveryPruner:
    @given(case=cases())
    @check(18)
    def test_removes_exactly_what_was_asked_for_and_writes_into_nothing_and_does_so_again(self, pruner, case):
        statistic = measured(pruner, case.inputs)
        tensors = [case.weight, *(value for value in vars(statistic).values() if torch.is_tensor(value))] if statistic else [case.weight]
        before = [tensor.clone() for tensor in tensors]
        pruned = prune(pruner, case.weight, case.sparsity, case.inputs).weight
        again = pruner.prune(case.weight, case.sparsity, statistic)
        assert pruned.dtype == case.weight.dtype
        assert pruned.isfinite().all()
        assert (again if torch.is_tensor(again) else again.weight).equal(pruned)
        assert all(tensor.equal(copy) for tensor, copy in zip(tensors, before, strict=True))
        zeros = pruned == 0
        assert not pruned[zeros].signbit().any()
        assert zeros.sum() == zeros_of(pruner, case)
        if case.sparsity.pattern:
            assert (zeros.reshape(-1, case.sparsity.pattern[1]).sum(1) == case.sparsity.pattern[0]).all()
        elif by_row[id(pruner)]:
            assert (zeros.sum(1) == case.sparsity.removed_of(case.weight.shape[1])).all()

    @given(case=cases())
    @check(6)
    def test_removing_nothing_leaves_the_weight_as_it_is(self, pruner, case):
        pruned = prune(pruner, case.weight, 0.0, case.inputs).weight
        assert pruned.equal(case.weight)
        assert pruned is not case.weight

    @given(case=cases(), share=st.sampled_from([0.2, 0.5, 1.0]))
    @check(12)
    def test_takes_inputs_that_were_never_there(self, pruner, case, share):
        dead = torch.arange(case.inputs.shape[1]) < share * case.inputs.shape[1]
        pruned = prune(pruner, case.weight, case.sparsity, case.inputs.masked_fill(dead, 0)).weight
        assert pruned.isfinite().all()
        assert (pruned == 0).sum() == zeros_of(pruner, case)
        kept = (pruned != 0) & dead
        assert pruned[kept].equal(case.weight[kept])
        if isinstance(pruner, (Random, Magnitude, SparseGPT)) or getattr(pruner, "start", "") == "magnitude" or case.sparsity.pattern:
            return  # these compare within blocks, or do not look at the inputs
        rows = case.weight.shape[0]
        if by_row[id(pruner)]:
            assert ((pruned == 0)[:, dead].sum(1) == min(int(dead.sum()), case.sparsity.removed_of(len(dead)))).all()
        else:
            assert (pruned == 0)[:, dead].sum() == min(rows * int(dead.sum()), case.sparsity.removed_of(case.weight.numel()))

    @given(case=cases(), every_other=st.booleans())
    @check(10)
    def test_leaves_rows_that_are_all_zero_as_they_are(self, pruner, case, every_other):
        weight = case.weight.clone()
        weight[:: 2 if every_other else 1] = 0
        pruned = prune(pruner, weight, case.sparsity, case.inputs).weight
        assert pruned.isfinite().all()
        assert not pruned[:: 2 if every_other else 1].any()
        assert (pruned == 0).sum() >= zeros_of(pruner, case)
        if not every_other:
            assert not pruned.signbit().any()


@every([pruner for pruner in MASKS + UPDATES if not isinstance(pruner, Random)])
@given(case=cases(dtypes=(torch.float64,)), seed=st.integers(0, 5))
@check(10)
def test_rows_in_another_order_give_the_rows_in_that_order(pruner, case, seed):
    order = torch.randperm(len(case.weight), generator=torch.Generator().manual_seed(seed))
    one, other = (prune(pruner, weight, case.sparsity, case.inputs).weight for weight in (case.weight[order], case.weight))
    torch.testing.assert_close(one, other[order], rtol=1e-6, atol=1e-6 * float(case.weight.abs().max()))


@every(MASKS)
@given(case=cases())
@check(10)
def test_a_method_that_only_masks_keeps_what_it_keeps(pruner, case):
    pruned = prune(pruner, case.weight, case.sparsity, case.inputs).weight
    assert pruned[pruned != 0].equal(case.weight[pruned != 0])


def damped_scaled(inputs, damping):
    """The Hessian of the scaled inputs that ``admm`` and ``alps`` solve with, and the norms."""
    hessian, norms = oracle_layerwise.scaled(oracle.hessian(array(inputs)))
    return hessian + damping * np.eye(len(hessian)), norms


@every([ADMM(iterations=2000), ADMM(iterations=2000, per="row"), ALPS(solve_iterations=60), ALPS(solve_iterations=60, per="row")])
@given(case=cases(dtypes=(torch.float64,)))
@check(10)
def test_solved_to_the_end_no_other_weights_on_the_mask_have_a_lower_error(pruner, case):
    pruned = prune(pruner, case.weight, case.sparsity, case.inputs).weight
    hessian, norms = damped_scaled(case.inputs, pruner.damping)
    for row, result in zip(array(case.weight), pruned.numpy(), strict=True):
        fit = oracle_layerwise.least_squares(row * norms, hessian, result == 0) / norms
        np.testing.assert_allclose(result, fit, rtol=1e-5, atol=1e-7 * float(case.weight.abs().max()))


@pytest.mark.parametrize(("pruner", "most"), [(ALPS(), 1.3), (ADMM(), 1.8)], ids=["alps", "admm"])
@pytest.mark.parametrize("seed", [0, 1])
def test_over_many_rows_alps_and_admm_are_near_the_best_of_all_masks_with_the_best_weights(pruner, most, seed):
    """40 rows of 8 weights with 4 removed by each: 70 masks, each with the weights of the least squares."""
    weight, inputs = matrix(40, 8, seed=seed), tokens(8, seed=seed + 1)
    hessian = oracle.hessian(array(inputs))
    masks = [np.array([j in gone for j in range(8)]) for gone in itertools.combinations(range(8), 4)]
    best = 0.0
    for row in array(weight):
        best += min(c @ hessian @ c for c in (row - oracle_layerwise.least_squares(row, hessian, mask) for mask in masks))

    def error(method):
        change = array(weight) - array(prune(method, weight, "4:8", inputs).weight)
        return float(np.sum(change @ hessian * change))

    assert best * (1 - 1e-9) <= error(pruner) < most * best
    assert error(pruner) < 0.9 * error(SparseGPT())
