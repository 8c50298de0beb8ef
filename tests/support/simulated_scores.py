"""Scores of a task over sparsities, simulated."""

from __future__ import annotations

from typing import Any

import numpy as np

GRID = [index / 10 for index in range(10)]


def steps(*right: int, items: int = 100) -> Any:
    """[sparsity, item] with so many items right; those that are lost stay lost."""
    return np.array([[1.0] * count + [0.0] * (items - count) for count in right])


def noisy(middle: float, *, items: int = 300, dense: float = 0.9, seed: int = 0, seeds: int | None = None) -> Any:
    """[(seed,) sparsity, item] of a logistic curve over ten sparsities."""
    generator = np.random.default_rng(seed)
    means = dense / (1 + np.exp((np.arange(10) / 10 - middle) / 0.06))
    values = (generator.random(items) < means[:, None]).astype(float)
    more = [(generator.random(items) < means[:, None] * (0.97 + 0.03 * number)) & (values > 0) for number in range(seeds or 0)]
    return np.stack([np.vstack([values[:1], other[1:]]) for other in more]) if seeds else values
