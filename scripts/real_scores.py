"""The item scores of the sweeps of scripts/real_model.sh, by ability, as curves over sparsities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from harness_ext.report import answers
from harness_ext.report.axis import bits_of_model
from harness_ext.report.reading import read_records
from harness_ext.statistics import Curve
from harness_ext.sweep import TrialRecord, load

RECALL, READING, OVERRIDE, LOOKUP, WORDS, SHUFFLED = "recall", "reading", "override", "lookup", "words", "shuffled words"
ABILITIES = {
    "lre_closed_4shot": RECALL,
    "lre_open_2shot": READING,
    "lre_override_2shot": OVERRIDE,
    "kv_4": LOOKUP,
    "icl_words": WORDS,
    "icl_words_shuffled": SHUFFLED,
}
"""The ability of each task. Override asks only for the facts that the dense model recalls: only these can mislead it."""


@dataclass(frozen=True)
class Way:
    """A way of pruning or quantising: method, kind of layer, and bits of a quantised weight."""

    pruner: str
    modules: str = "all"
    bits: int | None = None

    @property
    def name(self) -> str:
        return self.pruner if self.bits is None else f"{self.pruner}, {self.bits} bits"

    def place(self, sparsity: float) -> float:
        """The position in curves: the sparsity, or the share of 16 bits a weight that is gone."""
        return sparsity if self.bits is None else 1 - (1 - sparsity) * self.bits / 16


@dataclass
class Scores:
    """The scores of one ability, 0 or 1 for each item, and the chance of a right guess."""

    chance: float
    dense: dict[Any, float] = field(default_factory=dict)
    pruned: dict[Way, dict[float, dict[int, dict[Any, float]]]] = field(default_factory=dict)
    """By way, sparsity, calibration seed and item. The sparsity is 0 where weights were quantised and none removed."""

    @property
    def above_chance(self) -> bool:
        """Whether the dense model is above chance, by an exact one-sided binomial test at 5 %."""
        right = round(sum(self.dense.values()))
        return float(stats.binomtest(right, len(self.dense), self.chance, alternative="greater").pvalue) <= 0.05

    def curve(self, way: Way, name: str) -> Curve | None:
        """The curve over the sparsities and calibration seeds of :func:`whole_part`; None where nothing was measured.

        Its sparsities are those of ``Way.place``.

        Raises:
            StatisticsError: the dense model is not above chance.
        """
        return self.curve_over({way.place(ratio): by_seed for ratio, by_seed in self.pruned.get(way, {}).items()}, name)

    def quantised_curve(self, pruner: str, name: str) -> Curve | None:
        """As :meth:`curve`, over the bits of a quantizer that removes no weights."""
        ways = (way for way in self.pruned if way.pruner == pruner and way.modules == "all" and way.bits is not None)
        return self.curve_over(
            {way.place(0.0): self.pruned[way][0.0] for way in ways if way.place(0.0) > 0 and 0.0 in self.pruned[way]}, name
        )

    def curve_over(self, cells: Mapping[float, Mapping[int, Mapping[Any, float]]], name: str) -> Curve | None:
        """The curve of the scores at each position by calibration seed and item; None if there are none."""
        if not cells:
            return None
        places, seeds = whole_part(cells)
        items = list(self.dense)
        values = [
            [[self.dense[item] for item in items], *([cells[place][seed][item] for item in items] for place in places)] for seed in seeds
        ]
        return Curve(name, [0.0, *places], np.array(values), items, self.chance)


def whole_part(cells: Mapping[float, Iterable[int]]) -> tuple[list[float], list[int]]:
    """The largest part of a grid that has a trial of each of its sparsities with each of its calibration seeds.

    An interval over seeds needs every seed at every sparsity. Of parts with equally many trials, the one with more sparsities counts,
    then the one with lower seeds, as in reports.

    Args:
        cells: the seeds that were measured, by sparsity; at least one.

    Returns:
        The sparsities and the seeds, both in ascending order.
    """
    measured = {ratio: frozenset(seeds) for ratio, seeds in sorted(cells.items())}
    choices: set[frozenset[int]] = set()
    for seeds in measured.values():
        choices |= {seeds, *(seeds & others for others in choices)}
    choices.discard(frozenset())
    points = {choice: [ratio for ratio, seeds in measured.items() if choice <= seeds] for choice in choices}
    most = max(choices, key=lambda choice: (len(points[choice]) * len(choice), len(points[choice]), [-seed for seed in sorted(choice)]))
    return points[most], sorted(most)


@dataclass
class Results:
    """Everything that the page is made from."""

    abilities: dict[str, Scores]
    perplexity: dict[tuple[Way | None, float], list[float]]
    """By way (None: dense) and sparsity, one value a calibration seed."""
    zeros: dict[tuple[Way, float], int]
    """How many weights are zero in the pruned linear layers."""
    bits: dict[tuple[Way | None, float], float | None]
    """Bits of the whole model, by way (None: dense) and sparsity; None where the results do not tell the dtype."""
    trials: int
    minutes: float
    devices: str
    calibrated: set[Way]
    """The ways that read a calibration text: the others have no seeds."""

    def seeds(self) -> int:
        """The largest number of calibration seeds of a curve."""
        return max((self.seeds_of(way) for scores in self.abilities.values() for way in scores.pruned), default=0)

    def seeds_of(self, way: Way) -> int:
        """The number of calibration seeds of the curves of a way."""
        return max(len(whole_part(scores.pruned[way])[1]) for scores in self.abilities.values() if way in scores.pruned)


def read(folders: Iterable[Path]) -> Results:
    """The scores in sweep folders.

    Raises:
        ValueError: no dense model among the trials, or two trials of one cell, as from two devices.
    """
    records = list({record.key: record for folder in folders for record in load(folder)}.values())  # each sweep has the dense model
    dense = [record for record in records if record.is_dense]
    if not dense:
        raise ValueError("no trial of the dense model")
    abilities: dict[str, Scores] = {}
    for record in sorted(records, key=lambda record: not record.is_dense):
        for task in record.tasks:
            rows = [row for row in record.samples(task) if row["filter"] == "none"]
            if ABILITIES[task] not in abilities:  # by the dense model, of which alone kept trials have the choices
                abilities[ABILITIES[task]] = Scores(chance_of(task, rows))
            scores = abilities[ABILITIES[task]]
            by_item = {row.get("id", row["doc_id"]): float(row["acc"]) for row in rows}
            if record.is_dense:
                scores.dense.update(by_item)
            else:
                cells = scores.pruned.setdefault(way_of(record), {}).setdefault(record.ratio, {})
                if (record.seed or 0) in cells:
                    raise ValueError(
                        f"{task}: two trials of {way_of(record).name} at {record.ratio:g}, seed {record.seed}: want those of one device"
                    )
                cells[record.seed or 0] = by_item
    if RECALL in abilities and OVERRIDE in abilities:
        recalled = {item for item, right in abilities[RECALL].dense.items() if right}
        kept = abilities[OVERRIDE].dense
        abilities[OVERRIDE].dense = {item: right for item, right in kept.items() if item in recalled}
    return Results(
        abilities,
        _perplexities(records),
        {(way_of(record), record.ratio): record.parameters - record.nonzero for record in records if not record.is_dense},
        {
            (None, 0.0) if trial.is_dense else (way_of(record), record.ratio): bits_of_model(trial)
            for record, trial in zip(records, read_records(records)[0], strict=True)
        },
        len(records),
        sum(sum(record.seconds.values()) for record in records) / 60,
        " and ".join(sorted({record.settings["device"] for record in records})),
        {way_of(record) for record in records if not record.is_dense and record.seed is not None},
    )


def chance_of(task: str, rows: Sequence[Mapping[str, Any]]) -> float:
    """The score of a guess: among the choices of each item, or among the four values that a prompt of ``kv_4`` shows.

    Raises:
        ValueError: the rows do not tell the choices, or an item has several right ones.
    """
    chance = 1 / 4 if task == "kv_4" else answers.chance_of(rows, [float(row["acc"]) for row in rows])
    if chance is None:
        raise ValueError(f"{task}: the records do not tell the choices of each item")
    return chance


def way_of(record: TrialRecord) -> Way:
    return Way(record.pruner or "", record.modules or "all", record.bits)


def _perplexities(records: Iterable[TrialRecord]) -> dict[tuple[Way | None, float], list[float]]:
    values: dict[tuple[Way | None, float], list[float]] = {}
    for record in records:
        if "perplexity" in record.results:
            key = (None, 0.0) if record.is_dense else (way_of(record), record.ratio)
            values.setdefault(key, []).append(float(record.results["perplexity"]["token_perplexity"]))
    return values
