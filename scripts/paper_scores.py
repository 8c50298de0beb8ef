"""The item scores of the sweeps of scripts/reproduce_paper.sh, and intervals of anything computed from their means."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness_ext.statistics import Curve, Estimate
from harness_ext.statistics.checks import RESAMPLES
from harness_ext.statistics.resampling import interval, method
from harness_ext.statistics.weighting import Sample, Table
from harness_ext.sweep import TrialRecord, load
from harness_ext.tasks.people import WORDS

Array = NDArray[np.float64]

ABILITIES = {
    "recall": ("lab_facts_closed",),
    "reading": ("lab_facts_open", "lab_unseen_open"),
    "override": ("lab_facts_override", "lab_unseen_override"),
    "lookup": ("kv_4", "kv_32"),
    "functions": ("icl_linear", "icl_nn", "icl_tree"),
}
ABILITIES["in-context"] = tuple(task for name, tasks in ABILITIES.items() if name != "recall" for task in tasks)
TASKS = (*ABILITIES["recall"], *ABILITIES["in-context"])


def chance(task: str, metric: str) -> float:
    """What a model scores that knows the form of the answers and nothing else: a fact takes one of 4,096 values."""
    if task.startswith("icl_"):
        return 0.5
    return 1 / WORDS**2 if metric == "exact_match" else 1 / 16


@dataclass(frozen=True)
class Cell:
    """A model in one state: dense, or pruned in one way (over all calibration seeds)."""

    model: str = "lab-m"
    pruner: str = "dense"
    ratio: float = 0.0
    modules: str = "all"
    source: str = "self"

    def at(self, ratio: float) -> Cell:
        """The same at another sparsity; the dense model at 0."""
        if ratio == 0:
            return Cell(self.model)
        return Cell(self.model, self.pruner, ratio, self.modules, self.source)


class MissingError(Exception):
    """The sweeps do not hold what a claim wants."""


@dataclass
class Scores:
    """Scores in [0, 1] by cell, task and calibration seed, each an array over the items of ``ids[task]``."""

    ids: dict[str, tuple[Hashable, ...]] = field(default_factory=dict)
    values: dict[tuple[Cell, str], dict[int, Array]] = field(default_factory=dict)
    chances: dict[str, float] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)  # what the page tells of the run

    def add(self, cell: Cell, task: str, seed: int, by_item: Mapping[Hashable, float], chance: float) -> None:
        """Adds the scores of one trial on one task.

        Raises:
            ValueError: other items than before, or another result of the same trial.
        """
        ids = self.ids.setdefault(task, tuple(by_item))
        if set(ids) != set(by_item):
            raise ValueError(f"{task}: {len(set(ids) ^ set(by_item))} items of {cell} are not those of the other trials")
        values = np.array([by_item[one] for one in ids])
        first = self.values.setdefault((cell, task), {}).setdefault(seed, values)
        if (first != values).any():
            raise ValueError(f"{task}: two results of {cell}, seed {seed}, differ: name sweeps of one state of the code")
        self.chances[task] = chance

    def ratios(self, cell: Cell) -> list[float]:
        """The sparsities of the grid, in steps of 0.1, at which the way of pruning was measured."""
        found = {one.ratio for one, _ in self.values if one == cell.at(one.ratio) and one.ratio}
        return sorted(ratio for ratio in found if abs(10 * ratio - round(10 * ratio)) < 1e-9)

    def rows(self, cell: Cell, task: str, seeds: Sequence[int]) -> Array:
        """[seeds, items]; a cell without calibration has the same scores for every seed."""
        found = self.values.get((cell, task), {})
        if not found or (len(found) > 1 and not set(seeds) <= set(found)):
            raise MissingError(f"{task} of {cell.model} {cell.pruner} at {cell.ratio:g}, {cell.modules}, {cell.source}")
        return np.stack([found[seed] if len(found) > 1 else next(iter(found.values())) for seed in seeds])

    def seeds(self, cells: Iterable[Cell], tasks: Iterable[str]) -> list[int]:
        """Those that all cells have which have several; one if none has."""
        tasks = list(tasks)
        several = [set(self.values.get((cell, task), {})) for cell in cells for task in tasks]
        several = [seeds for seeds in several if len(seeds) > 1]
        return sorted(set.intersection(*several)) if several else [0]

    def mean(self, cell: Cell, ability: str, *, corrected: bool = True) -> float:
        """The mean over the tasks of an ability, over all seeds."""
        means = []
        for task in ABILITIES[ability]:
            floor = self.chances.get(task, 0.0) if corrected else 0.0
            means.append((float(self.rows(cell, task, self.seeds([cell], [task])).mean()) - floor) / (1 - floor))
        return float(np.mean(means))

    def curves(self, cell: Cell, tasks: Sequence[str], seeds: Sequence[int] | None = None) -> list[Curve]:
        """One curve a task over all sparsities of the grid."""
        grid = [0.0, *self.ratios(cell)]
        if len(grid) < 2:
            raise MissingError(f"{cell.model} {cell.pruner}, {cell.modules}, {cell.source}: no sparsity of the grid")
        cells = [cell.at(ratio) for ratio in grid]
        seeds = self.seeds(cells, tasks) if seeds is None else seeds
        return [
            Curve(task, grid, np.stack([self.rows(one, task, seeds) for one in cells], axis=1), self.ids[task], self.chances[task])
            for task in tasks
        ]


def read(folders: Sequence[Path], metric: str = "exact_match") -> Scores:
    """The scores in sweep folders, as :func:`scores_of`."""
    return scores_of((record for folder in folders for record in load(folder)), metric)


def scores_of(records: Iterable[TrialRecord], metric: str = "exact_match") -> Scores:
    """The scores in trials. Facts are scored by ``metric``, keys and functions by the best of the choices.

    Raises:
        ValueError: results that do not belong together.
    """
    scores = Scores()
    trials, seconds = 0, 0.0
    devices: dict[str, None] = {}
    for record in records:
        devices[record.settings["device"]] = None
        source = "self" if record.calibration is None else Path(record.calibration).stem
        cell = Cell(record.pretrained, record.pruner or "dense", record.ratio, record.modules or "all", source)
        cell = Cell(record.pretrained) if record.is_dense else cell
        trials, seconds = trials + 1, seconds + sum(record.seconds.values())
        for task in record.tasks:
            used = metric if task.startswith("lab_") else "acc"
            rows = [row for row in record.samples(task) if row["filter"] == "none"]
            by_item = {row.get("id", (task, row["doc_id"])): float(row[used]) for row in rows}
            scores.add(cell, task, record.seed or 0, by_item, chance(task, used))
    scores.facts = {"trials": str(trials), "minutes": f"{seconds / 60:.0f}", "devices": " and ".join(devices)}
    return scores


@dataclass(frozen=True)
class Quantity:
    """The mean score of an ability (or of tasks) in a cell."""

    tasks: tuple[str, ...]
    cell: Cell


def of(ability: str, cell: Cell) -> Quantity:
    return Quantity(ABILITIES[ability], cell)


def measure(
    scores: Scores,
    quantities: Sequence[Quantity],
    value: Callable[[Array], Array],
    *,
    corrected: bool = False,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """A function of mean scores with its interval over items, and over calibration seeds where there are several.

    An item has one weight for all its scores, in whatever cell and task they are, so differences are paired.

    Args:
        value: from [n, quantities] to [n].
        resamples: at least; a higher level has more.
        corrected: correct each task's score for chance first.

    Raises:
        MissingError: the sweeps do not hold a quantity.
    """
    tasks = list(dict.fromkeys(task for quantity in quantities for task in quantity.tasks))
    cells = list(dict.fromkeys(quantity.cell for quantity in quantities))
    seeds = scores.seeds(cells, tasks)
    columns: dict[tuple[Cell, str], int] = {}
    tables = []
    for task in tasks:
        used = list(dict.fromkeys(quantity.cell for quantity in quantities if task in quantity.tasks))
        tables.append(Table(scores.ids.get(task, ()), np.stack([scores.rows(cell, task, seeds) for cell in used], axis=1)))
        columns |= {(cell, task): len(columns) + place for place, cell in enumerate(used)}
    weights, offsets = np.zeros((len(columns), len(quantities))), np.zeros(len(quantities))
    for place, quantity in enumerate(quantities):
        for task in quantity.tasks:
            floor = scores.chances[task] if corrected else 0.0
            weights[columns[quantity.cell, task], place] += 1 / (1 - floor) / len(quantity.tasks)
            offsets[place] -= floor / (1 - floor) / len(quantity.tasks)
    sample = Sample(tables)

    def found(means: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(value(means @ weights + offsets))

    def bounds(means: Array) -> tuple[Array, Array]:
        got = found(means)
        return np.where(np.isfinite(got), got, -np.inf), np.where(np.isfinite(got), got, np.inf)

    steps = 1e-6 * np.eye(len(sample.means))
    gradient = np.nan_to_num((found(sample.means + steps) - found(sample.means - steps)) / 2e-6)
    resamples = max(resamples, math.ceil(20 / (1 - level)))  # ten beyond either end
    low, high = interval(sample, bounds, gradient, level=level, resamples=resamples, seed=0)
    ends = [end if np.isfinite(end) else None for end in (low, high)]
    return Estimate(float(found(sample.means[None])[0]), ends[0], ends[1], level, method(sample, gradient))


def rounded(value: float, digits: int = 2) -> str:
    """A number with so many digits, and zero without a sign."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def ends(low: float | None, high: float | None, scale: float = 1.0, digits: int = 2) -> str:
    """``0.35 to 0.41``, with open ends in words."""
    if low is None and high is None:
        return "no ends"
    if low is None or high is None:
        end = high if low is None else low
        return f"{'up to' if low is None else 'from'} {rounded(scale * (end or 0.0), digits)}"
    return f"{rounded(scale * low, digits)} to {rounded(scale * high, digits)}"


def told(found: Estimate, scale: float = 1.0, digits: int = 2) -> str:
    return f"{rounded(scale * found.value, digits)} ({ends(found.low, found.high, scale, digits)})"
