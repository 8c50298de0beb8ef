"""The statistics of a layer's inputs, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from refusals import raises_line

from harness_ext import ChannelNorms, Hessian, NumericalError, Statistic, inverse_factor

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


def results(statistic):
    """All that can be read from a statistic, by its name."""
    names = [name for name, value in vars(type(statistic)).items() if isinstance(value, property)]
    values = {name: getattr(statistic, name) for name in names}
    if isinstance(statistic, Hessian):
        values |= {f"inverse_factor({damping})": statistic.inverse_factor(damping).upper for damping in (0.01, 0.1)}
    return values


@pytest.mark.parametrize(("kind", "result"), [(ChannelNorms, "norms"), (Hessian, "matrix")])
class TestBoth:
    def test_reading_between_batches_changes_nothing(self, kind, result):
        statistic = measured(kind, INPUTS[:10])
        results(statistic)
        statistic.update(INPUTS[10:])
        expected = results(measured(kind, INPUTS[:10], INPUTS[10:]))
        for name, value in results(statistic).items():
            assert value.equal(expected[name]), name

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


@pytest.mark.parametrize("width", [5, 512, 513, 1100])
def test_the_hessian_of_wide_inputs_is_that_of_one_product(width):
    """It is computed by halves."""
    inputs = torch.randn(40, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    statistic = Hessian(width, torch.device("cpu"), torch.float64)
    statistic.update(inputs)
    statistic.update(inputs[:7])
    both = torch.cat([inputs, inputs[:7]])
    torch.testing.assert_close(statistic.matrix, 2 / 47 * both.T @ both)
    assert statistic.matrix.equal(statistic.matrix.T)


def test_the_norms_of_a_hessian_are_the_channel_norms_and_dead_inputs_have_none():
    hessian, norms = measured(Hessian, INPUTS), measured(ChannelNorms, INPUTS)
    torch.testing.assert_close(hessian.norms, norms.norms)
    assert hessian.dead.tolist() == [True, *[False] * 5]


def test_the_factor_is_that_of_the_matrix_with_ones_for_dead_inputs_and_computed_once(monkeypatch):
    statistic, calls = measured(Hessian, INPUTS), []
    monkeypatch.setattr("harness_ext.method.statistic.inverse_factor", lambda *given: calls.append(given) or inverse_factor(*given))
    first = statistic.inverse_factor(0.01)
    assert statistic.inverse_factor(0.01) is first
    assert statistic.inverse_factor(0.1) is not first
    assert len(calls) == 2
    expected = oracle.damped(oracle.hessian(INPUTS.double().numpy()), 0.01)
    np.testing.assert_allclose((first.upper.T @ first.upper).numpy(), np.linalg.inv(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [ChannelNorms, Hessian])
class TestNumbersThatAreNotFinite:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
    def test_are_found_when_all_tokens_are_in(self, kind, value):
        inputs = INPUTS.clone()
        inputs[3, 4] = value
        with raises_line(NumericalError, "NaN or infinite"):
            measured(kind, inputs).check()

    def test_are_not_seen_where_there_are_none(self, kind):
        measured(kind, INPUTS).check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "result"), [(ChannelNorms, "norms"), (Hessian, "matrix")])
def test_the_dtype_is_the_one_that_was_asked_for(kind, result, dtype):
    statistic = kind(6, torch.device("cpu"), dtype)
    statistic.update(INPUTS.to(dtype))
    assert getattr(statistic, result).dtype == dtype
    statistic.check()


def test_a_statistic_of_ones_own_must_say_how_it_is_updated():
    with pytest.raises(TypeError, match="update"):
        Statistic(3, torch.device("cpu"))


class Overridden(Hessian):
    def update(self, inputs):
        super().update(inputs)


class Renamed(Hessian):
    """Changes nothing about ``update``."""


@pytest.mark.parametrize(("kind", "any_dtype"), [(Hessian, True), (Renamed, True), (Overridden, False), (ChannelNorms, False)])
def test_inputs_of_any_dtype_are_for_the_class_that_says_so_and_not_for_one_that_overrides_it(kind, any_dtype):
    assert kind.reads_any_dtype() is any_dtype
