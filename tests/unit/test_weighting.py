"""Random weights of items: those that several tables share have one weight in all of them."""

from __future__ import annotations

import numpy as np
import pytest

from harness_ext.statistics.weighting import Sample, Table

RESAMPLES = 20_000


def correlation(*tables: Table) -> np.ndarray:
    """Of the weighted means of the tables, [tables, tables]."""
    return np.corrcoef(Sample(tables).weighted_means(0, RESAMPLES), rowvar=False)


def table(scores: np.ndarray, *ids: int) -> Table:
    return Table(ids, scores[None, None])


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("shared", [0, 25, 50, 100])
def test_means_are_correlated_by_the_share_of_their_items_that_is_common(shared: int, order: int) -> None:
    """Of graded scores with the same values for common items: the correlation of two means of 100 items is their share."""
    scores = np.linspace(0, 1, 200 - shared)[np.random.default_rng(0).permutation(200 - shared)]
    first, second = np.arange(100), np.arange(100 - shared, 200 - shared)
    tables = [table(scores[first], *first), table(scores[second], *second)][::order]
    assert correlation(*tables)[0, 1] == pytest.approx(shared / 100, abs=0.1)


def test_items_are_shared_through_a_third_table() -> None:
    """The first and the last have no item in common; each shares half of its items with the one between."""
    scores = np.random.default_rng(1).random(150)
    found = correlation(*(table(scores[start : start + 50], *range(start, start + 50)) for start in (0, 25, 50)))
    assert found[0, 1] == pytest.approx(0.5, abs=0.15)
    assert found[1, 2] == pytest.approx(0.5, abs=0.15)
    assert found[0, 2] == pytest.approx(0, abs=0.05)
