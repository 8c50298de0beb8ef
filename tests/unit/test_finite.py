"""Whether a tensor is finite: the same as torch says of its elements."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness_ext.method.finite import all_finite

VALUES = [0.0, -1.0, 3.5, float("inf"), float("-inf"), float("nan")]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@given(values=st.lists(st.sampled_from(VALUES), max_size=9))
def test_it_is_what_torch_says_of_all_elements(dtype: torch.dtype, values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=dtype)
    found = all_finite(tensor)
    assert (found.shape, found.dtype) == ((), torch.bool)
    assert bool(found) == bool(tensor.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.uint16, torch.complex64, torch.float8_e5m2])
def test_other_dtypes_are_looked_at_as_torch_does(dtype: torch.dtype) -> None:
    assert all_finite(torch.ones(3).to(dtype))
    if dtype.is_complex or dtype.is_floating_point:
        assert not all_finite(torch.tensor([1.0, float("inf")]).to(dtype))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 4999, 9_999])
def test_one_element_of_many_counts(bad: float, place: int) -> None:
    tensor = torch.full((100, 100), torch.finfo(torch.float32).max)  # whose sum is infinite
    assert all_finite(tensor)
    assert all_finite(tensor.t()[::2])
    tensor.view(-1)[place] = bad
    assert not all_finite(tensor)
    assert not all_finite(tensor.t())


def test_a_parameter_that_asks_for_gradients_is_looked_at() -> None:
    assert all_finite(torch.nn.Parameter(torch.ones(3)))
