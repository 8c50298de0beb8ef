"""Sparsity: what it reads, how much it removes, and which weights."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairwise import all_pairs
from refusals import raises_line

from harness_ext import BadOptionError, NumericalError, Sparsity
from harness_ext.method import sparsity as sparsity_module
from harness_ext.method.sparsity import _kth_lowest


@pytest.mark.parametrize(
    ("value", "ratio", "pattern", "text"),
    [
        (0, 0.0, None, "0"),
        (0.7, 0.7, None, "0.7"),
        ("0.7", 0.7, None, "0.7"),
        (" 2:4 ", 0.5, (2, 4), "2:4"),
        ("1 : 4", 0.25, (1, 4), "1:4"),
        ("6:8", 0.75, (6, 8), "6:8"),
        (np.float64(0.25), 0.25, None, "0.25"),
        ("1e-3", 0.001, None, "0.001"),
    ],
)
def test_ratios_and_patterns_are_read(value, ratio, pattern, text):
    sparsity = Sparsity.parse(value)
    assert (sparsity.ratio, sparsity.pattern, str(sparsity)) == (ratio, pattern, text)
    assert Sparsity.parse(sparsity) is sparsity


@pytest.mark.parametrize("ratio", [0.12345678, 0.1234567, 1 / 3, 0.999999999])
def test_the_text_of_a_sparsity_reads_back_as_the_same(ratio):
    assert Sparsity.parse(str(Sparsity(ratio))) == Sparsity(ratio)


@pytest.mark.parametrize(
    ("value", "hints"),
    [
        (124, ["YAML", "2:4", "124"]),
        (248, ["YAML", "4:8"]),
        (64, ["YAML", "1:4"]),
        (70, ["70", "0.7"]),
        (62.5, ["62.5", "0.625"]),
        (10**400, ["[0, 1)"]),
        (1, ["[0, 1)"]),
        (1.0, ["[0, 1)"]),
        (-0.1, ["-0.1", "[0, 1)"]),
        (float("nan"), ["nan", "[0, 1)"]),
        (float("inf"), ["inf", "[0, 1)"]),
        (True, ["True", "[0, 1)"]),
        (None, ["None", "[0, 1)"]),
        ([0.5], ["[0.5]", "[0, 1)"]),
        ("abc", ["'abc'", "2:4"]),
        ("2:4:8", ["'2:4:8'", "2:4"]),
        ("0:4", ["0:4", "between 1 and m - 1"]),
        ("4:4", ["4:4", "between 1 and m - 1"]),
        ("2:0", ["2:0", "between 1 and m - 1"]),
    ],
)
def test_anything_else_is_refused_with_the_rule(value, hints):
    with raises_line(BadOptionError, "sparsity=", *hints):
        Sparsity.parse(value)


def test_a_percentage_is_not_taken_for_what_yaml_makes_of_a_pattern():
    with pytest.raises(BadOptionError) as error:
        Sparsity.parse(50)
    assert "YAML" not in str(error.value)


def test_a_pattern_with_another_ratio_is_refused():
    with raises_line(BadOptionError, "sparsity=2:4", "0.5", "0.0"):
        Sparsity(0.0, (2, 4))


@pytest.mark.parametrize(
    ("ratio", "size", "count"),
    [(0.29, 100, 29), (0.7, 10, 7), (0.57, 100, 57), (0.1, 30, 3), (0.99, 3, 2), (0.5, 7, 3), (0.99, 1, 0), (0.0, 5, 0)],
)
def test_exactly_the_floor_in_decimal_arithmetic_is_removed(ratio, size, count):
    assert Sparsity(ratio).removed_of(size) == count
    assert Sparsity(ratio).mask(torch.randn(1, size)).sum() == count


def test_every_two_digit_ratio_of_every_small_group_is_rounded_down():
    for hundredths in range(100):
        for size in (1, 7, 10, 33, 100, 4096):
            assert Sparsity(hundredths / 100).removed_of(size) == int(Fraction(hundredths, 100) * size)


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    ratio=st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.7, 0.99]),
    per=st.sampled_from(["row", "matrix"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_the_mask_is_what_one_gets_by_selecting_one_after_the_other(shape, ratio, per, seed):
    scores = torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(seed)).float()  # with many ties
    expected = (oracle.mask_of_matrix if per == "matrix" else oracle.mask_of_rows)(scores.double().numpy(), ratio)
    assert Sparsity(ratio).mask(scores, per).tolist() == expected.tolist()


@pytest.mark.parametrize(("n", "m", "per"), [(2, 4, "row"), (1, 4, "matrix"), (4, 8, "matrix"), (1, 2, "row"), (3, 4, "row")])
def test_a_pattern_takes_n_of_every_m_whatever_the_group(n, m, per):
    scores = torch.randint(0, 4, (5, 16), generator=torch.Generator().manual_seed(1)).float()
    mask = Sparsity.parse(f"{n}:{m}").mask(scores, per)
    assert mask.tolist() == oracle.mask_of_groups(scores.double().numpy(), n, m).tolist()
    assert (mask.reshape(-1, m).sum(1) == n).all()


def test_ties_go_by_position():
    assert Sparsity(0.5).mask(torch.ones(2, 4), "matrix").tolist() == [[True] * 4, [False] * 4]
    assert Sparsity(0.5).mask(torch.ones(2, 4), "row").tolist() == [[True, True, False, False]] * 2
    assert Sparsity.parse("2:4").mask(torch.ones(1, 8)).tolist() == [[True, True, False, False] * 2]


def test_minus_zero_and_zero_tie():
    assert Sparsity(0.5).mask(torch.tensor([[0.0, -0.0, 0.0, -0.0]])).tolist() == [[True, True, False, False]]


def test_infinite_scores_are_kept_or_removed():
    scores = torch.tensor([[1.0, float("inf"), float("-inf"), 2.0]])
    assert Sparsity(0.5).mask(scores).tolist() == [[True, False, True, False]]


@all_pairs(dtype=[torch.float16, torch.bfloat16], sparsity=["0.3", "2:4"])
def test_scores_of_any_floating_dtype(dtype, sparsity):
    scores = torch.randint(0, 9, (4, 8), generator=torch.Generator().manual_seed(2))
    assert Sparsity.parse(sparsity).mask(scores.to(dtype)).equal(Sparsity.parse(sparsity).mask(scores.double()))


@all_pairs(
    dtype=[torch.float16, torch.bfloat16, torch.float32, torch.float64],
    rows=[1, 3, 40],
    size=[1, 8, 333],
    values=[2, 5, 10**6],
    seed=[0, 1],
)
def test_a_sort_and_a_selection_find_the_same_threshold(dtype, rows, size, values, seed):
    """Few rows are sorted on a device other than the CPU. The mask depends on the scores and the threshold alone."""
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.randint(0, values, (rows, size), generator=generator) / values - 0.4).to(dtype)
    extremes = torch.tensor([math.inf, -math.inf, 0.0, -0.0], dtype=dtype)
    extreme = torch.rand(rows, size, generator=generator) < 0.2
    scores[extreme] = extremes[torch.randint(0, 4, (int(extreme.sum()),), generator=generator)]
    for count in {1, size // 2 or 1, size}:
        by_sort, by_selection = (_kth_lowest(scores, count, sort=sort) for sort in (True, False))
        assert by_sort.dtype == dtype
        assert by_sort.shape == (rows, 1)
        assert by_sort.equal(by_selection)


@pytest.mark.parametrize("sort", [True, False])
def test_the_mask_is_the_same_with_a_sort(sort, monkeypatch):
    monkeypatch.setattr(sparsity_module, "_kth_lowest", lambda scores, count, **_: _kth_lowest(scores, count, sort=sort))
    scores = torch.randint(0, 5, (3, 40), generator=torch.Generator().manual_seed(3)).float()  # with many ties
    for per, expected in (("row", oracle.mask_of_rows), ("matrix", oracle.mask_of_matrix)):
        assert Sparsity(0.3).mask(scores, per).tolist() == expected(scores.double().numpy(), 0.3).tolist()


def test_scores_are_not_written_into():
    scores = torch.randn(4, 8)
    before = scores.clone()
    Sparsity(0.5).mask(scores)
    assert scores.equal(before)


@pytest.mark.parametrize("sparsity", ["0.5", "0", "2:4"])
def test_nan_scores_are_refused(sparsity):
    scores = torch.randn(4, 8)
    scores[2, 3] = float("nan")
    with raises_line(NumericalError, "NaN"):
        Sparsity.parse(sparsity).mask(scores)


def test_a_pattern_that_does_not_divide_the_row_is_refused():
    with raises_line(BadOptionError, "sparsity=2:4", "6"):
        Sparsity.parse("2:4").mask(torch.randn(4, 6))


def test_another_group_is_refused():
    with raises_line(BadOptionError, "rows", "row or matrix"):
        Sparsity(0.5).mask(torch.ones(2, 4), per="rows")
