"""How often the intervals of critical sparsities and disparities hold the truth on grids of few sparsities, and how wide they are.

Curves are known between the sparsities as well. The truth is where the curve itself has fallen by the drop: anywhere in the grid, or, which
is hardest, right before or after a measured sparsity, so that the score there is just at the threshold.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from coverage_curves import BOOTSTRAP, SHAPES, Array, answers
from scipy.stats import norm

from harness_ext.statistics import Curve, Disparity, critical_sparsity, disparity, disparity_over_models

DROP = 0.05
DENSE = 0.9
LAST = 0.9
REST = 0.1
RESAMPLES = 400
POINTS = tuple(range(4, 13))
ITEMS = (128, 256, 512, 1024, 2048)
Place = Literal["anywhere", "at a sparsity"]
PLACES: tuple[Place, ...] = ("anywhere", "at a sparsity")
PART = 100  # simulations of a cell that are saved together
Part = tuple[Any, ...]  # shape, number of sparsities, number of items, place, first seed, simulations


def grid(points: int) -> Array:
    """Sparsities from 0 to 0.9, equally far apart."""
    return np.round(np.linspace(0, LAST, points), 4)


def truth(generator: np.random.Generator, sparsities: Array, place: Place) -> float:
    """Where a curve fails."""
    if place == "anywhere":
        return float(generator.uniform(0.05, 0.8))
    return float(generator.choice(sparsities[1:-1]) + generator.choice([-1e-6, 1e-6]))


@dataclass(frozen=True)
class Coverage:
    """Over simulations.

    Args:
        held: the share of intervals that hold the truth.
        below, above: the shares with the truth below and above the interval.
        width: mean width of the intervals; one without an upper end counts up to 1.
        normal: mean width of intervals that take the normal approximation for true (the standard error of a mean, 1.96).
        shown: the share of disparities shown.
    """

    held: float
    below: float
    above: float
    width: float
    normal: float = math.nan
    shown: float = math.nan


def critical_coverage(
    shape: str, points: int, items: int, place: Place, simulations: int, first: int = 0, level: float = 0.95, resamples: int = RESAMPLES
) -> Coverage:
    """Of the critical sparsity of one task."""
    sparsities = grid(points)
    below, above, widths, normal = [], [], [], []
    for seed in range(first, first + simulations):
        generator = np.random.default_rng([seed, points, items])
        fails = truth(generator, sparsities, place)
        values = answers(generator, DENSE * SHAPES[shape](sparsities, fails, DROP)[None], items, REST)
        found = critical_sparsity(sparsities.tolist(), values, drop=DROP, level=level, seed=seed + BOOTSTRAP, resamples=resamples)
        high = 1.0 if found.high is None else found.high
        below.append(fails < found.low)
        above.append(fails > high)
        widths.append(high - found.low)
        normal.append(normal_width(sparsities, values[0], level))
    return Coverage(1 - float(np.mean(below) + np.mean(above)), *(float(np.mean(one)) for one in (below, above, widths, normal)))


def normal_width(sparsities: Array, values: Array, level: float) -> float:
    """The width of the interval if the score less the threshold had a normal distribution of known variance at every sparsity."""
    excess = values[1:] - (1 - DROP) * values[0]
    error = norm.ppf((1 + level) / 2) * excess.std(axis=1, ddof=1) / math.sqrt(values.shape[1])
    held, lost = excess.mean(1) - error >= 0, excess.mean(1) + error < 0
    first = len(held) if held.all() else int(np.argmin(held))
    last = 0 if lost.all() else len(lost) - int(np.argmin(lost[::-1]))
    return float([*sparsities[1:], 1.0][last] - sparsities[first])


def disparity_coverage(
    shapes: tuple[str, str], points: int, items: int, apart: float, simulations: int, first: int = 0, resamples: int = RESAMPLES
) -> Coverage:
    """Of the difference of two critical sparsities that are ``apart``, anywhere in the grid."""
    sparsities = grid(points)
    below, above, widths, shown = [], [], [], []
    for seed in range(first, first + simulations):
        generator = np.random.default_rng([seed, points, items])
        fails = float(generator.uniform(0.1, 0.8 - apart))
        curves = [
            Curve("task", sparsities.tolist(), answers(generator, DENSE * SHAPES[shape](sparsities, at, DROP)[None], items, REST))
            for shape, at in zip(shapes, (fails, fails + apart), strict=True)
        ]
        found: Disparity = disparity([curves[0]], [curves[1]], drop=DROP, seed=seed + BOOTSTRAP, resamples=resamples)
        low, high = -1.0 if found.low is None else found.low, 1.0 if found.high is None else found.high
        below.append(apart < low - 1e-9)
        above.append(apart > high + 1e-9)
        widths.append(high - low)
        shown.append(found.shown)
    means = [float(np.mean(one)) for one in (below, above, widths)]
    return Coverage(1 - means[0] - means[1], *means, shown=float(np.mean(shown)))


def model_coverage(
    between: float, models: int, points: int, simulations: int, first: int = 0, *, apart: float = 0.0, items: int = 512, seeds: int = 2
) -> Coverage:
    """Of the mean disparity of models whose two critical sparsities vary by ``between`` (SD) each, with the same items for all models."""
    sparsities = grid(points)
    below, above, widths, shown = [], [], [], []
    for seed in range(first, first + simulations):
        generator = np.random.default_rng([seed, points, models])
        middle = generator.uniform(0.2, 0.6 - apart)
        own = generator.standard_normal((2, items))
        curves = {}
        for model in range(models):
            fails = np.clip(middle + np.array([0, apart]) + between * generator.standard_normal(2), 0.05, 0.85)
            scores = [_of_model(generator, sparsities, at, own[index], seeds) for index, at in enumerate(fails)]
            curves[f"model {model}"] = tuple([Curve("task", sparsities.tolist(), values)] for values in scores)
        found = disparity_over_models(curves, drop=DROP, seed=seed + BOOTSTRAP, resamples=RESAMPLES)
        low, high = -1.0 if found.low is None else found.low, 1.0 if found.high is None else found.high
        below.append(apart < low)
        above.append(apart > high)
        widths.append(high - low)
        shown.append(found.shown)
    means = [float(np.mean(one)) for one in (below, above, widths)]
    return Coverage(1 - means[0] - means[1], *means, shown=float(np.mean(shown)))


def _of_model(generator: np.random.Generator, sparsities: Array, fails: float, items: Array, seeds: int) -> Array:
    """Scores [seed, sparsity, item]: half of what an item's score hangs on is the item's, the other half its and this model's."""
    means = np.stack([DENSE * SHAPES["sigmoid"](sparsities, fails + 0.01 * generator.standard_normal(), DROP) for _ in range(seeds)])
    own = math.sqrt(0.5) * items + math.sqrt(0.5) * generator.standard_normal(len(items))
    fresh = generator.standard_normal((seeds, len(sparsities), len(items)))
    fresh[:, 0] = fresh[0, 0]
    means[:, 0] = DENSE
    return (math.sqrt(1 - REST) * own + math.sqrt(REST) * fresh < norm.ppf(means)[..., None]).astype(np.float64)


def critical_table(
    simulations: int, first: int, points: Sequence[int] = POINTS, items: Sequence[int] = ITEMS, save: Path | None = None
) -> Iterator[str]:
    """Lines of Markdown: for each shape and grid, coverage at both places and widths, by the number of items.

    Args:
        save: a file of JSON lines, one for every ``PART`` simulations of a cell. What is in it is not simulated again.
    """
    saved = _saved(save)
    cells = list(itertools.product(SHAPES, points, items, PLACES))
    for begin in range(first, first + simulations, PART):  # all cells have the same number of simulations when this is stopped
        part = min(PART, first + simulations - begin)
        for cell in cells:
            key = (*cell, begin, part)
            if key not in saved:
                shape, count, number, place = cell
                saved[key] = critical_coverage(shape, count, number, place, part, begin)
                if save:
                    with save.open("a", encoding="utf-8") as file:
                        file.write(json.dumps([*key, asdict(saved[key])]) + "\n")
    yield "| curve | sparsities | cell | " + " | ".join(f"{count} items" for count in items) + " |"
    yield "|---" * (3 + len(items)) + "|"
    of_cell = {
        cell: _pooled([(key[5], found) for key, found in saved.items() if key[:4] == cell and first <= key[4] < first + simulations])
        for cell in cells
    }
    for shape, count in itertools.product(SHAPES, points):
        texts = []
        for number in items:
            anywhere, hard = (of_cell[shape, count, number, place] for place in PLACES)
            texts.append(f"{100 * anywhere.held:.1f}, {100 * hard.held:.1f} %; {anywhere.width:.2f} ({anywhere.normal:.2f})")
        yield f"| {shape} | {count} | {LAST / (count - 1):.2f} | " + " | ".join(texts) + " |"
    lowest = {place: min((of_cell[cell].held, cell) for cell in cells if cell[3] == place) for place in PLACES}
    for place, (held, cell) in lowest.items():
        yield f"\nFailing {place}: the lowest coverage of a cell is {held:.1%} ({cell[0]}, {cell[1]} sparsities, {cell[2]} items)."


def _saved(save: Path | None) -> dict[Part, Coverage]:
    if save is None or not save.exists():
        return {}
    rows = [json.loads(line) for line in save.read_text(encoding="utf-8").splitlines()]
    return {tuple(row[:-1]): Coverage(**row[-1]) for row in rows}


def _pooled(parts: Sequence[tuple[int, Coverage]]) -> Coverage:
    """The mean over parts, each given with its number of simulations."""
    counts = [count for count, _ in parts]
    return Coverage(**{
        field.name: float(np.average([getattr(found, field.name) for _, found in parts], weights=counts)) for field in fields(Coverage)
    })  # fmt: skip


def disparity_table(simulations: int, first: int) -> Iterator[str]:
    """Lines of Markdown: coverage, width and findings, for equal critical sparsities and for some that are 0.2 apart."""
    yield "| curves | sparsities | items | equal: coverage | falsely shown | 0.2 apart: coverage | shown | width |"
    yield "|---" * 8 + "|"
    for shapes in itertools.combinations_with_replacement(SHAPES, 2):
        for points, items in itertools.product((4, 7, 12), (128, 512, 2048)):
            equal, apart = (disparity_coverage(shapes, points, items, distance, simulations, first) for distance in (0.0, 0.2))
            yield (
                f"| {shapes[0]}, {shapes[1]} | {points} | {items} | {equal.held:.1%} | {equal.shown:.1%} | {apart.held:.1%} | "
                f"{apart.shown:.1%} | {apart.width:.2f} |"
            )


def model_table(simulations: int, first: int) -> Iterator[str]:
    """Lines of Markdown: false findings and power over several trained models."""
    yield "| SD between models | models | equal: coverage | falsely shown | 0.3 apart: coverage | shown | width |"
    yield "|---" * 7 + "|"
    for between, models in itertools.product((0.01, 0.02, 0.03, 0.05), (2, 3, 5)):
        equal, apart = (model_coverage(between, models, 10, simulations, first, apart=distance) for distance in (0.0, 0.3))
        shares = " | ".join(f"{share:.1%}" for share in (equal.held, equal.shown, apart.held, apart.shown))
        yield f"| {between:g} | {models} | {shares} | {apart.width:.2f} |"
