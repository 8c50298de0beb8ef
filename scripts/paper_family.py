"""What holds over training seeds: the ladder of dense models, and when each of its models loses recall and in-context ability.

The sweep ``family`` has every size with several training seeds, dense and pruned. Intervals are Student's over the training seeds of a
size: they cover other trainings of the same recipe, which intervals over items do not. With three seeds they are wide (two degrees of
freedom).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lab_settings import SIZES
from paper_scores import ABILITIES, Cell, Scores, read, rounded
from scipy import stats

from harness_ext.statistics import Curve, StatisticsError, ability_critical
from harness_ext.tasks.people import MEMORISED, WORDS

DROPS = (0.05, 0.5)
PRUNER = "sparsegpt"
FACTS = MEMORISED * 4 * math.log2(WORDS**2)  # bits


@dataclass(frozen=True)
class OverSeeds:
    """The mean of a figure over training seeds, with its 95 % interval; one seed has no interval."""

    values: tuple[float, ...]
    beyond: int = 0
    """How many of the values are the end of a grid, which the true ones lie beyond."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def half_width(self) -> float | None:
        count = len(self.values)
        return None if count < 2 else float(stats.t.ppf(0.975, count - 1) * np.std(self.values, ddof=1) / math.sqrt(count))

    def __str__(self) -> str:
        half = self.half_width
        if self.beyond:
            return f"at least {self.mean:.2f} ({self.beyond} of {len(self.values)} beyond the grid)"
        return rounded(self.mean) if half is None else f"{rounded(self.mean)} ({rounded(self.mean - half)} to {rounded(self.mean + half)})"


def shown(found: OverSeeds, sign: int = 1) -> str:
    """Whether the interval of a difference lies above zero, or below it with ``sign=-1``."""
    if found.half_width is None or abs(found.mean) <= found.half_width:
        return "not shown"
    return "shown" if sign * found.mean > 0 else "the reverse is shown"


def thousandths(found: OverSeeds) -> str:
    """A figure with three digits."""
    half = found.half_width
    more = "" if half is None else f" ({found.mean - half:.3f} to {found.mean + half:.3f})"
    return f"{found.mean:.3f}{more}"


def decoder_weights(size: str) -> int:
    """Weights in the linear layers of the decoder: four of attention and two of an FFN four times as wide."""
    return SIZES[size]["depth"] * (4 + 2 * 4) * SIZES[size]["width"] ** 2


def models(scores: Scores) -> dict[str, list[str]]:
    """The names of the models of each size in the sweep, the smallest size first."""
    found: dict[str, list[str]] = {size: [] for size in sorted(SIZES, key=decoder_weights)}
    for name in dict.fromkeys(cell.model for cell, _ in scores.values):
        size = Path(name.removesuffix("/model")).name.rpartition("-")[0]
        if size in found:
            found[size].append(name)
    return {size: sorted(names, key=seed_of) for size, names in found.items() if names}


def seed_of(name: str) -> int:
    """The training seed of a model."""
    return int(name.removesuffix("/model").rpartition("-")[2])


def dense_rows(scores: Scores) -> list[dict[str, Any]]:
    """For each size: weights, bits of facts a weight, and the chance-corrected score of each ability over seeds."""
    return [
        {
            "size": size, "weights": decoder_weights(size), "load": FACTS / decoder_weights(size), "seeds": len(names),
            "scores": {ability: OverSeeds(tuple(scores.mean(Cell(name), ability) for name in names)) for ability in ABILITIES},
        }
        for size, names in models(scores).items()
    ]  # fmt: skip


def split_rows(scores: Scores) -> list[dict[str, Any]]:
    """For each size: the share of the score of the largest model that it has, in-context ability less recall, each pair of seeds.

    Raises:
        ValueError: a size has other training seeds than the largest.
    """
    *smaller, (_, largest) = models(scores).items()
    rows = []
    for size, names in smaller:
        if [seed_of(name) for name in names] != [seed_of(name) for name in largest]:
            raise ValueError(f"{size} and the largest size have other training seeds: want the same")
        pairs = list(zip(names, largest, strict=True))
        shares = {
            ability: [scores.mean(Cell(small), ability) / scores.mean(Cell(large), ability) for small, large in pairs]
            for ability in ("recall", "in-context")
        }
        difference = OverSeeds(tuple(b - a for a, b in zip(shares["recall"], shares["in-context"], strict=True)))
        rows.append({"size": size, "shares": {name: OverSeeds(tuple(values)) for name, values in shares.items()}, "difference": difference})
    return rows


def curve(scores: Scores, name: str, task: str, seed: int = 0) -> Curve:
    """The scores of one model in one task over the whole grid of sparsities, pruned with one calibration seed.

    Raises:
        MissingError: a sparsity was not measured with this seed.
    """
    grid = [0.0, *sorted({cell.ratio for cell, asked in scores.values if cell.model == name and asked == task and cell.ratio})]
    cells = [Cell(name, PRUNER, ratio) if ratio else Cell(name) for ratio in grid]
    rows = np.stack([scores.rows(cell, task, [seed]) for cell in cells], axis=1)
    return Curve(task, grid, rows, scores.ids[task], scores.chances[task])


def critical(curves: Sequence[Curve], drop: float) -> tuple[float, bool]:
    """The critical sparsity of one model, and whether it is the end of the grid, because the score never falls so far."""
    found = ability_critical(list(curves), drop=drop, corrected=True, resamples=100)
    return (found.last, True) if found.sparsity is None else (found.sparsity, False)


def over_seeds(found: Sequence[tuple[float, bool]]) -> OverSeeds:
    """Critical sparsities over training seeds."""
    return OverSeeds(tuple(value for value, _ in found), beyond=sum(end for _, end in found))


def critical_rows(scores: Scores) -> list[dict[str, Any]]:
    """For each size and drop: the critical sparsities of the abilities, and of in-context ability less recall, over seeds."""
    rows = []
    for size, names in models(scores).items():
        for drop in DROPS:
            try:
                found = {
                    ability: [critical(scores.curves(Cell(name, PRUNER), tasks), drop) for name in names]
                    for ability, tasks in ABILITIES.items()
                }
            except StatisticsError:
                continue
            pairs = list(zip(found["recall"], found["in-context"], strict=True))
            gaps = tuple(context - recall for (recall, _), (context, _) in pairs)
            beyond = sum(recall_ends or context_ends for (_, recall_ends), (_, context_ends) in pairs)
            rows.append({
                "size": size, "drop": drop, "critical": {ability: over_seeds(values) for ability, values in found.items()},
                "difference": OverSeeds(gaps, beyond), "later": sum(gap > 0 for gap in gaps), "seeds": len(gaps),
            })  # fmt: skip
    return rows


def measured(folders: Sequence[Path]) -> dict[str, Any]:
    """All that the page tells of training seeds."""
    scores = read(folders)
    return {"dense": dense_rows(scores), "split": split_rows(scores), "critical": critical_rows(scores), "abilities": list(ABILITIES)}
