"""Few combinations of several arguments, chosen so that every two values meet."""

from __future__ import annotations

import itertools
from typing import Any

import pytest


def combinations(*values: list[Any]) -> list[tuple[Any, ...]]:
    """Combinations of one value from each list. Any two values of different lists are together in at least one of them.

    Greedy: each combination is the first of those that bring most new pairs together.
    """
    every = list(itertools.product(*(range(len(choices)) for choices in values)))
    missing = {pair for places in every for pair in _pairs(places)}
    chosen = []
    while missing:
        best = max(every, key=lambda places: len(missing.intersection(_pairs(places))))
        missing.difference_update(_pairs(best))
        chosen.append(tuple(choices[place] for choices, place in zip(values, best, strict=True)))
    return chosen


def all_pairs(**values: Any) -> pytest.MarkDecorator:
    """``pytest.mark.parametrize`` over :func:`combinations` of the arguments."""
    return pytest.mark.parametrize(tuple(values), combinations(*map(list, values.values())))


def _pairs(places: tuple[int, ...]) -> set[tuple[tuple[int, int], ...]]:
    return set(itertools.combinations(enumerate(places), 2))
