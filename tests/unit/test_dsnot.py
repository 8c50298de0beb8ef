"""``dsnot`` on single matrices, against ``oracle_layerwise`` and against the masks that it starts from."""

from __future__ import annotations

import numpy as np
import oracle
import oracle_layerwise
import pytest
import torch
from harness_ext_pruners.dsnot import ChannelMoments, DSnoT, HessianMoments
from harness_ext_pruners.magnitude import Magnitude
from harness_ext_pruners.wanda import Wanda
from pairwise import all_pairs
from refusals import raises_line
from single_matrices import array, how, matrix, measured, prune, tokens

from harness_ext import BadOptionError, Sparsity

STARTS = ("wanda", "magnitude", "sparsegpt")
every_start = pytest.mark.parametrize("start", STARTS)


def scores(start, weight, inputs, damping=0.01):
    """What the first mask is chosen by."""
    if start == "sparsegpt":
        raw = oracle.hessian(inputs)
        saliency = weight**2 / np.diag(np.linalg.inv(oracle.damped(raw, damping)))
        return np.where(np.diag(raw) == 0, 0, saliency)
    return np.abs(weight) if start == "magnitude" else oracle.wanda_scores(weight, inputs)


def row_errors(weight, pruned, inputs):
    """The mean of what is missing from each output."""
    return (inputs @ (weight - pruned).T).mean(0).abs()


class TestTheAlgorithm:
    @all_pairs(
        start=STARTS,
        options=[{}, {"threshold": 0.0}, {"threshold": 0.01, "power": 0.0}, {"max_cycles": 2}],
        sparsity=[0.29, 0.7, "2:4", "3:6"],
    )
    def test_is_that_of_the_paper(self, sparsity, options, start):
        weight, inputs = matrix(9, 12), tokens(12, shift=1.0)
        arguments = {("cycles" if name == "max_cycles" else name): value for name, value in options.items()}
        first = scores(start, array(weight), array(inputs))
        mask = oracle_layerwise.dsnot(array(weight), array(inputs), first, **how(sparsity), **arguments)
        pruned = prune(DSnoT(start=start, **options), weight, sparsity, inputs).weight
        assert (pruned == 0).tolist() == mask.tolist()
        assert pruned.equal(weight.masked_fill(torch.tensor(mask), 0))

    def test_is_that_of_the_paper_on_a_larger_matrix(self):
        weight, inputs = matrix(60, 80), tokens(80, count=300, shift=1.0)
        mask = oracle_layerwise.dsnot(array(weight), array(inputs), scores("wanda", array(weight), array(inputs)), ratio=0.6)
        assert (prune(DSnoT(), weight, 0.6, inputs).weight == 0).tolist() == mask.tolist()

    def test_has_the_defaults_that_are_tested_here(self):
        assert DSnoT().options() == {"start": "wanda", "max_cycles": 50, "threshold": 0.1, "power": 1.0, "damping": 0.01}

    @every_start
    def test_counts_the_swaps_and_notes_the_row_errors(self, start):
        weight, inputs = matrix(16, 32), tokens(32, shift=1.0)
        before = prune(DSnoT(start=start, max_cycles=0), weight, 0.5, inputs)
        after = prune(DSnoT(start=start), weight, 0.5, inputs)
        assert before.notes["swaps"] == 0
        assert after.notes["swaps"] > 0
        for result in (before, after):
            assert result.notes["mean_row_error_at_start"] == pytest.approx(float(row_errors(weight, before.weight, inputs).mean()))
            assert result.notes["mean_row_error"] == pytest.approx(float(row_errors(weight, result.weight, inputs).mean()))

    @every_start
    @pytest.mark.parametrize("sparsity", [0.5, "2:4"])
    def test_no_row_error_rises_and_the_mean_output_gets_nearer(self, start, sparsity):
        weight, inputs = matrix(32, 64), tokens(64, count=200, shift=1.0)
        before, after = (
            row_errors(weight, prune(DSnoT(start=start, max_cycles=cycles), weight, sparsity, inputs).weight, inputs) for cycles in (0, 50)
        )
        assert (after <= before + 1e-12).all()
        assert after.mean() < 0.5 * before.mean()

    @all_pairs(start=STARTS, sparsity=[0.3, "3:4"])
    def test_the_zeros_of_each_row_or_group_never_change(self, start, sparsity):
        weight, inputs = matrix(16, 24), tokens(24, shift=2.0)
        for cycles in (0, 1, 5, 50):
            zeros = prune(DSnoT(start=start, max_cycles=cycles, threshold=0.0), weight, sparsity, inputs).weight == 0
            if isinstance(sparsity, str):
                assert (zeros.reshape(-1, 4).sum(1) == int(sparsity[0])).all()
            else:
                assert (zeros.sum(1) == oracle.removed_of(sparsity, 24)).all()

    def test_rows_within_the_threshold_are_left_alone(self):
        weight, inputs = matrix(16, 24), tokens(24, shift=1.0)
        first = prune(DSnoT(max_cycles=0), weight, 0.5, inputs).weight
        errors = row_errors(weight, first, inputs)
        threshold = float(errors.median()) + 1e-9
        result = prune(DSnoT(threshold=threshold), weight, 0.5, inputs).weight
        same = (result == first).all(1)
        assert same[errors <= threshold].all()
        assert not same[errors > threshold].any()

    def test_the_row_error_does_not_depend_on_how_many_tokens_there_are(self):
        weight, inputs = matrix(16, 24), tokens(24, shift=1.0)
        once, four_times = (prune(DSnoT(), weight, 0.5, inputs.repeat(times, 1)).weight for times in (1, 4))
        assert once.equal(four_times)


class TestTheStart:
    @pytest.mark.parametrize(("start", "pruner"), [("wanda", Wanda()), ("magnitude", Magnitude(per="row"))])
    @pytest.mark.parametrize("sparsity", [0.5, "2:4"])
    def test_without_cycles_is_the_method_that_it_is_named_after(self, start, pruner, sparsity):
        weight, inputs = matrix(9, 12), tokens(12)
        assert prune(DSnoT(start=start, max_cycles=0), weight, sparsity, inputs).weight.equal(
            prune(pruner, weight, sparsity, inputs).weight
        )

    @every_start
    def test_is_chosen_by_the_scores(self, start):
        weight, inputs = matrix(4, 6), tokens(6)
        got = DSnoT(start=start).score(weight, measured(DSnoT(start=start), inputs))
        np.testing.assert_allclose(got, scores(start, array(weight), array(inputs)) + 0.0, rtol=1e-8)

    def test_measures_the_hessian_only_where_it_needs_it(self):
        assert {start: DSnoT(start=start).measures() for start in STARTS} == {
            "wanda": ChannelMoments,
            "magnitude": ChannelMoments,
            "sparsegpt": HessianMoments,
        }

    def test_notes_the_damping_of_the_hessian(self):
        weight, inputs = matrix(4, 24), tokens(24, count=3)
        notes = prune(DSnoT(start="sparsegpt", damping=1e-17), weight, 0.5, inputs).notes
        assert notes["damping_retries"] > 0
        assert notes["damping"] == pytest.approx(1e-17 * 10 ** notes["damping_retries"])
        assert "damping" not in prune(DSnoT(), weight, 0.5, inputs).notes


class TestOddInputs:
    @every_start
    def test_inputs_that_were_never_there_go_first_and_never_come_back(self, start):
        weight, inputs = matrix(8, 12), tokens(12, shift=1.0)
        weight[:, [2, 6]] = 0.01 if start == "magnitude" else 10
        inputs[:, [2, 6]] = 0
        assert not prune(DSnoT(start=start, threshold=0.0), weight, 0.5, inputs).weight[:, [2, 6]].any()

    @every_start
    def test_inputs_that_never_change_come_back_first(self, start):
        """Their variance is zero; without a say of the variance, the other weight, which has more to give, would."""
        weight, inputs = torch.tensor([[0.1, 3.0, 0.22, -0.3]], dtype=torch.float64), matrix(50, 4).abs()
        inputs[:, 0] = 1
        assert prune(DSnoT(start=start, power=0.0), weight, 0.5, inputs).weight[0].nonzero().flatten().tolist() == [1, 2]
        pruned = prune(DSnoT(start=start), weight, 0.5, inputs)
        assert pruned.weight[0].nonzero().flatten().tolist() == [0, 1]
        assert pruned.notes["swaps"] == 1

    def test_without_any_input_the_mask_is_the_first(self):
        weight = matrix(5, 8)
        pruned = prune(DSnoT(), weight, 0.5, torch.zeros(9, 8, dtype=torch.float64))
        assert pruned.notes["swaps"] == 0
        assert not pruned.weight[:, :4].any()  # all scores are equal: the first ones go


@pytest.mark.parametrize("kind", [ChannelMoments, HessianMoments])
class TestTheStatistics:
    def test_add_up_over_batches_and_over_what_is_additive(self, kind):
        inputs = tokens(6, count=40, shift=1.0)
        whole, parts = (kind(6, torch.device("cpu"), torch.float64) for _ in range(2))
        whole.update(inputs)
        for start in (0, 10, 11):
            parts.update(inputs[start : {0: 10, 10: 11, 11: 40}[start]])
        assert whole.tokens == parts.tokens == 40
        for name in kind.additive:
            torch.testing.assert_close(getattr(whole, name), getattr(parts, name))
        np.testing.assert_allclose(whole.sums / 40, array(inputs).mean(0))

    def test_name_all_their_tensors_as_additive(self, kind):
        statistic = kind(6, torch.device("cpu"))
        assert {name for name, value in vars(statistic).items() if torch.is_tensor(value)} == set(kind.additive)


@pytest.mark.parametrize(
    "options",
    [{"max_cycles": -1}, {"threshold": -0.1}, {"threshold": float("nan")}, {"power": -1.0}, {"power": float("inf")}, {"damping": 0.0}],
    ids=str,
)
def test_options_out_of_range_are_refused(options):
    with raises_line(BadOptionError, f"pruner.{next(iter(options))}="):
        DSnoT(**options)


def test_a_pattern_that_does_not_divide_the_row_is_refused():
    with raises_line(BadOptionError, "sparsity=2:5"):
        DSnoT().prune(matrix(4, 8), Sparsity.parse("2:5"), measured(DSnoT(), tokens(8)))


@pytest.mark.parametrize("moments", [ChannelMoments, HessianMoments])
@pytest.mark.parametrize("batches", [1, 5])
def test_the_variance_of_an_input_with_a_large_mean_is_exact(moments, batches):
    """In float32, the sums of these squares lose all digits of the variance."""
    inputs = 1000 + 0.1 * torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    statistic = moments(3, torch.device("cpu"))
    for batch in inputs.chunk(batches):
        statistic.update(batch)
    means, variances = statistic.moments()
    np.testing.assert_allclose(means.numpy(), inputs.double().mean(0).numpy(), rtol=1e-12)
    np.testing.assert_allclose(variances.numpy(), inputs.double().var(0, correction=0).numpy(), rtol=1e-6)
