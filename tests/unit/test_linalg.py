"""The factorisation behind second-order pruners, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from refusals import raises_line

from harness_ext import Hessian, NumericalError, inverse_factor
from harness_ext.method import linalg, statistic


def positive_definite(size, seed=0, dtype=torch.float64):
    inputs = torch.randn(4 * size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (inputs.T @ inputs / len(inputs)).to(dtype)


def reference(matrix, damping):
    """Upper triangular ``U`` with ``U^T U = (H + d mean(diag H) I)^-1``."""
    matrix = matrix.double().numpy()
    return np.linalg.cholesky(np.linalg.inv(matrix + damping * np.diag(matrix).mean() * np.eye(len(matrix)))).T


@pytest.mark.parametrize(("size", "damping"), [(1, 0.01), (2, 1), (17, 0.001), (300, 1), (700, 0.01)])
def test_the_factor_is_that_of_numpy(size, damping):
    matrix = positive_definite(size)
    factor = inverse_factor(matrix, damping)
    np.testing.assert_allclose(factor.upper.numpy(), reference(matrix, damping), rtol=1e-9, atol=1e-11)
    assert (factor.damping, factor.retries) == (damping, 0)


def test_the_factor_is_close_in_float32():
    matrix = positive_definite(17, dtype=torch.float32)
    factor = inverse_factor(matrix, 0.01)
    assert factor.upper.dtype == torch.float32
    np.testing.assert_allclose(factor.upper.numpy(), reference(matrix, 0.01), rtol=1e-4, atol=1e-5)


def test_the_factor_is_upper_triangular_and_gives_the_inverse():
    matrix = positive_definite(9)
    upper = inverse_factor(matrix, 0.01).upper
    assert upper.equal(upper.triu())
    damped = matrix + 0.01 * matrix.diagonal().mean() * torch.eye(9, dtype=torch.float64)
    torch.testing.assert_close(upper.T @ upper @ damped, torch.eye(9, dtype=torch.float64))


def test_the_matrix_is_not_written_into():
    matrix = positive_definite(5)
    before = matrix.clone()
    inverse_factor(matrix, 0.01)
    assert matrix.equal(before)


def test_damping_goes_up_on_record_until_it_is_enough():
    """Rank one plus a negative eigenvalue of -0.05 of the mean diagonal: 0.01 does not do, 0.1 does."""
    matrix = torch.diag(torch.tensor([1.15, 1.0, 0.9, -0.05 * 0.75], dtype=torch.float64))
    factor = inverse_factor(matrix, 0.01)
    assert (factor.damping, factor.retries) == (pytest.approx(0.1), 1)
    np.testing.assert_allclose(factor.upper.numpy(), reference(matrix, 0.1), rtol=1e-10)


def test_a_singular_float32_matrix_is_factorised_with_more_damping_on_record():
    column = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    factor = inverse_factor(column @ column.T, 1e-9)  # what 1e-9 adds to the diagonal is below the rounding of float32
    assert factor.retries > 0
    assert factor.damping == pytest.approx(1e-9 * 10**factor.retries)
    assert factor.upper.isfinite().all()


@pytest.mark.parametrize(
    "matrix",
    [
        torch.tensor([[1.0, 1e6], [1e6, 1.0]]),  # indefinite beyond what ten thousand times the mean diagonal makes up for
        torch.zeros(3, 3),
        -torch.eye(3),
    ],
    ids=["indefinite", "zero", "negative"],
)
def test_a_matrix_that_no_damping_helps_is_an_error(matrix):
    with raises_line(NumericalError, "Hessian", "10000", "calibration"):
        inverse_factor(matrix, 0.01)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_matrix_that_is_not_finite_is_an_error(value):
    matrix = positive_definite(4)
    matrix[1, 2] = value
    with raises_line(NumericalError, "NaN or infinite"):
        inverse_factor(matrix, 0.01)


class TestNarrowProducts:
    """On CUDA, inputs of 16 bits are multiplied as they are. The CPU has no such ``mm``: it is replaced by what it computes."""

    @pytest.fixture
    def narrow(self, monkeypatch):
        asked, mm = [], torch.mm

        def exact(left, right, out_dtype=None):
            asked.append((left.dtype, right.dtype, out_dtype))
            return mm(left.to(out_dtype), right.to(out_dtype))

        monkeypatch.setattr(torch, "mm", exact)
        monkeypatch.setattr(statistic, "multiplies_as_they_are", lambda inputs, dtype: inputs.dtype in linalg.HALVES)
        return asked

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("width", [5, 400])
    def test_add_up_in_float32_to_what_converted_inputs_do(self, narrow, dtype, width):
        batches = [torch.randn(60, width, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in range(3)]
        sums = [Hessian(width, torch.device("cpu")) for _ in range(2)]
        for batch in batches:
            sums[0].update(batch)
            sums[1].update(batch.float())
        assert set(narrow) == {(dtype, dtype, torch.float32)}
        assert sums[0].tokens == sums[1].tokens == 180
        exact = sum(batch.double().T @ batch.double() for batch in batches)
        for found in sums:
            torch.testing.assert_close(found.matrix.double(), exact / 90, rtol=1e-5, atol=1e-5)

    def test_are_not_made_where_the_device_cannot_or_more_is_asked_for(self):
        inputs = torch.ones(2, 3, dtype=torch.bfloat16)
        assert not linalg.multiplies_as_they_are(inputs, torch.float32)
        for dtype in (torch.float32, torch.float64):
            found = Hessian(3, torch.device("cpu"), dtype)
            found.update(inputs)
            assert found.products.dtype == dtype
            assert found.products.triu().equal(torch.full((3, 3), 2, dtype=dtype).triu())

    @pytest.mark.gpu
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("width", [5, 5000])
    def test_of_a_gpu_are_those_of_float64(self, dtype, width):
        inputs = torch.randn(3000, width, generator=torch.Generator().manual_seed(0)).to("cuda", dtype)
        assert linalg.multiplies_as_they_are(inputs, torch.float32)
        found = Hessian(width, torch.device("cuda"))
        found.update(inputs)
        exact = inputs.double().T @ inputs.double() * 2 / 3000
        torch.testing.assert_close(found.matrix.double(), exact, rtol=1e-4, atol=1e-4)


def test_a_matrix_in_another_order_in_memory_has_the_same_factor():
    matrix = positive_definite(9)
    assert inverse_factor(matrix.T, 0.01).upper.equal(inverse_factor(matrix.contiguous(), 0.01).upper)


def test_without_damping_it_is_tried_once(monkeypatch):
    tried = []
    original = torch.linalg.cholesky_ex
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda *args, **options: tried.append(1) or original(*args, **options))
    with raises_line(NumericalError, "cannot be factorised", "with 0 of"):
        inverse_factor(-torch.eye(3), 0.0)
    assert len(tried) == 1
