"""Simulated experiments with a known truth, for scripts/check_coverage.py.

An item is answered right at a sparsity if a normal variable of its own lies below the quantile of the mean score there. The variable is
sqrt(1 - rest) times one that the item keeps at all sparsities and seeds, plus sqrt(rest) times fresh noise. With rest = 0 an item that is
lost stays lost; with rest = 1 the scores at two sparsities are independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtri

Array = NDArray[np.float64]
GRID = np.arange(10) / 10
BOOTSTRAP = 10**9  # added to the seed of a simulation for that of its weights


def answers(generator: np.random.Generator, means: Array, items: int, rest: float) -> Array:
    """Scores [seed, sparsity, item] with the given mean scores [seed, sparsity]; the dense ones are the same for every seed."""
    own, fresh = generator.standard_normal(items), generator.standard_normal((*means.shape, items))
    fresh[:, 0] = fresh[0, 0]
    return (math.sqrt(1 - rest) * own + math.sqrt(rest) * fresh < ndtri(means)[..., None]).astype(np.float64)


@dataclass(frozen=True)
class Ability:
    """A logistic curve of the mean score over sparsity.

    Args:
        middle: where half of what is above chance is lost.
        width: of the fall.
        dense: the score at 0.
        items: of the task.
        rest: the share of the variance of an item's variable that is fresh at every sparsity.
        seed_sd: of the shift of the curve, in sparsity, between calibration seeds.
        grid: the sparsities measured.
    """

    middle: float = 0.5
    width: float = 0.06
    dense: float = 0.9
    items: int = 400
    rest: float = 0.05
    chance: float = 0.0
    seed_sd: float = 0.0
    seeds: int = 1
    grid: tuple[float, ...] = tuple(GRID.tolist())

    def means(self, shift: float | Array = 0.0, at: Array | None = None) -> Array:
        """The mean score at the sparsities; [..., sparsity] for shifts [..., 1]."""
        at = np.asarray(self.grid) if at is None else at
        fall = (1 + np.exp(-(self.middle + shift) / self.width)) / (1 + np.exp((at - self.middle - shift) / self.width))
        return np.asarray(self.chance + (self.dense - self.chance) * fall)

    def expected(self, at: Array | None = None) -> Array:
        """The mean score over calibration seeds as well."""
        if not self.seed_sd:
            return self.means(at=at)
        points, weights = np.polynomial.hermite_e.hermegauss(41)
        return np.asarray(weights / weights.sum() @ self.means(points[:, None] * self.seed_sd, at))

    def draw(self, generator: np.random.Generator) -> Array:
        """Scores [seed, sparsity, item]."""
        means = self.means(generator.standard_normal((self.seeds, 1)) * self.seed_sd)
        return answers(generator, means, self.items, self.rest)


def critical(abilities: Sequence[Ability], drop: float, corrected: bool = False) -> float:
    """Where the mean of the curves has fallen by the drop; inf beyond 1."""
    floors = [ability.chance if corrected else 0.0 for ability in abilities]

    def excess(sparsity: float) -> float:
        at = np.array([0.0, sparsity])
        scores = [(ability.expected(at) - floor) / (1 - floor) for ability, floor in zip(abilities, floors, strict=True)]
        dense, pruned = np.mean(scores, axis=0)
        return float(pruned - (1 - drop) * dense)

    return math.inf if excess(1.0) > 0 else float(brentq(excess, 0.0, 1.0))


def line(sparsities: Array, fails: float, drop: float) -> Array:
    """The share of the dense score: straight from the dense model on."""
    return np.maximum(1 - drop * sparsities / fails, 0.0)


def knee(sparsities: Array, fails: float, drop: float) -> Array:
    """Flat up to 80 % of where it fails, then straight."""
    start = 0.8 * fails
    return np.clip(1 - drop * (sparsities - start) / (fails - start), 0.0, 1.0)


def cliff(sparsities: Array, fails: float, drop: float) -> Array:
    """Falls by a fifth of the drop up to where it fails, and there to 30 %."""
    return np.where(sparsities < fails, 1 - 0.2 * drop * sparsities / fails, 0.3)


def sigmoid(sparsities: Array, fails: float, drop: float, width: float = 0.07) -> Array:
    """Logistic, with its middle where the drop is reached at ``fails``."""

    def share(at: Array | float, middle: float) -> Array:
        return np.asarray((1 + np.exp(-middle / width)) / (1 + np.exp((at - middle) / width)))

    # exp(middle / width) solves (1 - drop) (m + exp(fails / width)) = m + 1, where it is above 0.
    grown = ((1 - drop) * math.exp(fails / width) - 1) / drop
    return share(sparsities, width * math.log(grown))


SHAPES: dict[str, Callable[[Array, float, float], Array]] = {"line": line, "knee": knee, "cliff": cliff, "sigmoid": sigmoid}
