"""The statistics of a layer's inputs, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch

from harness_ext import ChannelNorms, Hessian, Statistic

INPUTS = torch.randn(37, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(6)  # the first channel is always zero


def measured(kind, *batches):
    statistic = kind(batches[0].shape[1], torch.device("cpu"))
    for batch in batches:
        statistic.update(batch)
    return statistic


def test_channel_norms_are_the_l2_norms_over_all_tokens():
    expected = np.linalg.norm(INPUTS.double().numpy(), axis=0)
    np.testing.assert_allclose(measured(ChannelNorms, INPUTS).norms.numpy(), expected, rtol=1e-6)


def test_the_hessian_is_the_mean_outer_product_doubled():
    np.testing.assert_allclose(measured(Hessian, INPUTS).matrix.numpy(), oracle.hessian(INPUTS.double().numpy()), rtol=1e-5, atol=1e-5)


def test_the_hessian_is_that_of_the_output_error():
    """Twice the quadratic form of a change, halved, is the mean squared change of the output."""
    change = torch.randn(6, generator=torch.Generator().manual_seed(1)).double()
    matrix = measured(Hessian, INPUTS).matrix.double()
    torch.testing.assert_close(change @ matrix @ change / 2, (INPUTS.double() @ change).square().mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("kind", "result"), [(ChannelNorms, "norms"), (Hessian, "matrix")])
class TestBoth:
    def test_batches_add_up(self, kind, result):
        whole, parts = measured(kind, INPUTS), measured(kind, INPUTS[:10], INPUTS[10:11], INPUTS[11:])
        assert whole.tokens == parts.tokens == 37
        torch.testing.assert_close(getattr(whole, result), getattr(parts, result))

    def test_inputs_are_not_written_into(self, kind, result):
        inputs = INPUTS.clone()
        measured(kind, inputs, inputs)
        assert inputs.equal(INPUTS)

    def test_the_result_may_be_written_into(self, kind, result):
        statistic = measured(kind, INPUTS)
        before = getattr(statistic, result).clone()
        getattr(statistic, result).zero_()
        assert getattr(statistic, result).equal(before)

    def test_without_a_token_all_is_zero(self, kind, result):
        assert not getattr(kind(3, torch.device("cpu")), result).any()


def test_a_statistic_of_ones_own_must_say_how_it_is_updated():
    with pytest.raises(TypeError, match="update"):
        Statistic(3, torch.device("cpu"))
