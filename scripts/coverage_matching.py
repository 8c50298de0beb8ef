"""How often the disparity at equal dense margin shows a difference that is not there, and one that is.

An item has a margin m in the dense model. Pruned to a sparsity s, its margin is m - 4 u + 1.5 u z with u = (s / fails) ** 3, so pruning
takes 4 nats where u is 1. z is normal; half of its variance is the item's own at all sparsities, and half is fresh. An item whose margin is
above 0 is right. The others are guessed, with the chance of the task. What is lost is a function of margin and sparsity alone: two
abilities with the same ``fails`` are equal at equal margin, however their margins lie.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from coverage_curves import BOOTSTRAP, GRID, Array
from scipy.special import ndtr
from scipy.stats import norm

from harness_ext.statistics import Curve, Matching, disparity

RESAMPLES = 400
RAW_EVERY = 4  # one in so many simulations computes the disparity without matching as well
REST = 0.5
SPREAD = 1.5  # standard deviation of the margins of an ability
TAKEN, NOISE = 4.0, 1.5  # nats


@dataclass(frozen=True)
class World:
    """Two abilities.

    Args:
        means: mean margins of recall and of the in-context ability.
        fails: where pruning takes 4 nats of margin, for each.
        items: of each.
        seeds: calibration seeds.
        seed_sd: between seeds, of the logarithm of u.
        chances: of a guess, for each.
        reliability: the share of the variance of the measured margins that is difficulty; the rest is noise of this one model, which
            does not protect from loss.
    """

    means: tuple[float, float] = (2.5, 4.0)
    fails: tuple[float, float] = (0.6, 0.6)
    items: tuple[int, int] = (512, 512)
    seeds: int = 1
    seed_sd: float = 0.1
    chances: tuple[float, float] = (0.0625, 0.0625)
    reliability: float = 1.0

    def draw(self, generator: np.random.Generator) -> tuple[list[Curve], dict[str, Array]]:
        """The curves of recall and of the in-context ability, and the margins by name."""
        curves, margins = [], {}
        for name, mean, fails, items, chance in zip(("recall", "context"), self.means, self.fails, self.items, self.chances, strict=True):
            difficulty = mean + SPREAD * math.sqrt(self.reliability) * generator.standard_normal(items)
            margin = difficulty + SPREAD * math.sqrt(1 - self.reliability) * generator.standard_normal(items)
            own, fresh = generator.standard_normal(items), generator.standard_normal((self.seeds, len(GRID), items))
            jitter = np.exp(self.seed_sd * generator.standard_normal(self.seeds))[:, None, None] if self.seeds > 1 else 1.0
            u = jitter * ((GRID / fails) ** 3)[:, None]
            left = difficulty - TAKEN * u + NOISE * u * (math.sqrt(1 - REST) * own + math.sqrt(REST) * fresh)
            left[:, 0] = margin
            guessed = generator.random(left.shape) < chance
            guessed[:, 0] = False
            curves.append(Curve(name, GRID.tolist(), ((left > 0) | guessed).astype(np.float64), chance=chance))
            margins[name] = margin
        return curves, margins

    def truth(self, drop: float) -> float:
        """The difference of the critical sparsities at equal margin, inf or -inf beyond the grid; for margins without noise."""
        margins = np.linspace(0, 15, 301)
        f, g = (norm.pdf(margins, mean, SPREAD) / norm.sf(0, mean, SPREAD) for mean in self.means)
        target = f * g / (f + g)
        jitters, weights = np.polynomial.hermite_e.hermegauss(15 if self.seeds > 1 else 1)
        criticals = []
        for fails in self.fails:
            held = np.ones(len(GRID))
            for index, sparsity in enumerate(GRID[1:], 1):
                u = (sparsity / fails) ** 3 * np.exp(self.seed_sd * jitters)
                kept = weights / weights.sum() @ ndtr((margins - TAKEN * u[:, None]) / (NOISE * u[:, None]))
                held[index] = (kept @ target) / target.sum()
            criticals.append(_crossing(held, 1 - drop))
        return criticals[1] - criticals[0]


def _crossing(held: Array, threshold: float) -> float:
    """Where straight lines between the sparsities of the grid fall to the threshold."""
    after = int(np.argmax(held < threshold))
    if held[after] >= threshold:
        return math.inf
    share = (held[after - 1] - threshold) / (held[after - 1] - held[after])
    return float(GRID[after - 1] + share * (GRID[after] - GRID[after - 1]))


@dataclass(frozen=True)
class Found:
    """Shares of simulations.

    Args:
        refused: too little overlap to match on.
        held: intervals at equal margin that hold the truth, of those that were not refused.
        shown: shown at equal margin, in either direction, of those that were not refused.
        raw: shown without matching, of every fourth simulation.
        width: mean width of the intervals at equal margin.
    """

    refused: float
    held: float
    shown: float
    raw: float
    width: float


def coverage(world: World, drops: Sequence[float], simulations: int, first: int = 0, strata: int | None = None) -> dict[float, Found]:
    """Of the matched disparity, by drop. Each simulation moves both abilities up or down the grid, by up to a cell."""
    raw: dict[float, list[bool]] = {drop: [] for drop in drops}
    rows: dict[float, list[tuple[bool, bool, float]]] = {drop: [] for drop in drops}
    for seed in range(first, first + simulations):
        generator = np.random.default_rng([seed, *world.items])
        shift = generator.uniform(0, 0.1)
        moved = replace(world, fails=(world.fails[0] + shift, world.fails[1] + shift))
        curves, margins = moved.draw(generator)
        own = {"corrected": True, "resamples": RESAMPLES, "seed": seed + BOOTSTRAP}
        matching = Matching(curves[:1], curves[1:], margins, strata=strata, **own)
        for drop in drops:
            found, truth = matching.disparity(drop).disparity, moved.truth(drop)
            if (seed - first) % RAW_EVERY == 0:
                raw[drop].append(disparity(curves[:1], curves[1:], drop=drop, **own).shown)
            if found is not None:
                low, high = -1.0 if found.low is None else found.low, 1.0 if found.high is None else found.high
                rows[drop].append((low - 1e-9 <= truth <= high + 1e-9, found.shown, high - low))
    result = {}
    for drop in drops:
        held, shown, width = np.mean(rows[drop], axis=0).tolist() if rows[drop] else (math.nan,) * 3
        refused = 1 - len(rows[drop]) / simulations
        result[drop] = Found(refused, held, shown, float(np.mean(raw[drop])), width)
    return result


MARGINS = {"1 SD": (3.0, 4.5), "2 SD": (2.0, 5.0), "4 SD": (0.5, 6.5), "10 SD": (0.0, 15.0)}
FAILS = {"equal at equal margin": (0.55, 0.55), "0.2 apart at equal margin": (0.5, 0.75)}
ITEMS = (128, 256, 512, 1024)
DROPS = (0.05, 0.5)


def matching_table(simulations: int, first: int) -> Iterator[str]:
    """Lines of Markdown: findings at equal margin and without matching, coverage, and refusals, by the number of items."""
    heads = " | ".join(f"{items} items" for items in ITEMS)
    yield f"| truth | margins apart | seeds | drop | {heads} |"
    yield "|---" * (4 + len(ITEMS)) + "|"
    for (split, fails), (apart, means), seeds in itertools.product(FAILS.items(), MARGINS.items(), (1, 3)):
        worlds = [World(means, fails, (items, items), seeds) for items in ITEMS]
        yield from _rows(split, apart, seeds, [coverage(world, DROPS, simulations, first) for world in worlds])
    for reliability in (0.9, 0.7):
        worlds = [World(MARGINS["2 SD"], FAILS["equal at equal margin"], (items, items), 1, reliability=reliability) for items in ITEMS]
        found = [coverage(world, DROPS, simulations, first) for world in worlds]
        yield from _rows(f"equal at equal difficulty, {100 * reliability:.0f} % of the variance of margins", "2 SD", 1, found)


def _rows(split: str, apart: str, seeds: int, found: Sequence[dict[float, Found]]) -> Iterator[str]:
    """One row for each drop, or one in all where everything is refused."""
    rows = {100 * drop: " | ".join(_cell(by_drop[drop]) for by_drop in found) for drop in DROPS}
    if all(one.refused == 1 for by_drop in found for one in by_drop.values()):
        rows = {100 * DROPS[0]: rows[100 * DROPS[0]]}
    for drop, cells in rows.items():
        yield f"| {split} | {apart} | {seeds} | {drop:g} % | {cells} |"


def _cell(found: Found) -> str:
    if found.refused == 1:
        return f"{100 * found.raw:.0f} %; refused"
    refused = f"; {100 * found.refused:.1f} % refused" if found.refused else ""
    return f"{100 * found.raw:.0f}, {100 * found.shown:.1f} %; {100 * found.held:.1f} %; {found.width:.2f}{refused}"
