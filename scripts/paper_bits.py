"""What each way of making a model smaller keeps at equal bits: pruned, quantised, both, and smaller dense models, over training seeds.

The sweeps are ``family`` (dense and pruned), ``bits`` and ``bits-sparse`` (quantised, and pruned as well) and ``bits-sizes`` (smaller
models, quantised). Intervals are Student's over the training seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from lab_settings import SIZES
from paper_family import PRUNER, OverSeeds, decoder_weights, seed_of
from paper_scores import ABILITIES, chance

from harness_ext.report.axis import bits_of_model
from harness_ext.report.reading import read
from harness_ext.report.trials import LoadedTrial

SWEEPS = ("family", "bits", "bits-sparse", "bits-sizes")
LARGEST = max(SIZES, key=decoder_weights)
SHOWN = ("recall", "functions", "in-context")
KEPT = 0.95
"""The share of the dense score of the largest model that counts as kept."""


DRAWN = (
    "dense, 16 bits",
    "smaller, gptq 8 bits",
    "smaller, gptq 4 bits",
    f"{LARGEST} pruned, {PRUNER}",
    f"{LARGEST} quantised, gptq",
    f"{LARGEST} quantised, rtn",
    f"{LARGEST} with 4 bits and pruned",
)
"""The lines of the figure; the table has all."""


@dataclass(frozen=True)
class Way:
    """A way of making a model smaller: another size, a method, bits a weight, or a sparsity."""

    size: str
    method: str = ""
    bits: int | None = None
    sparsity: float = 0.0

    @property
    def line(self) -> str:
        """What points of one line of the figure share."""
        if not self.method:
            return "dense, 16 bits"
        if self.size != LARGEST:
            return f"smaller, {self.method} {self.bits} bits"
        if self.bits is None:
            return f"{self.size} pruned, {self.method}"
        return f"{self.size} with {self.bits} bits and pruned" if self.sparsity else f"{self.size} quantised, {self.method}"

    @property
    def amount(self) -> str:
        parts = [f"{self.bits} bits"] if self.bits else []
        return ", ".join([*parts, *([f"sparsity {self.sparsity:g}"] if self.sparsity else [])]) or "dense"


Scores = dict[Way, dict[int, tuple[float, dict[str, float]]]]
"""By way and training seed: the bits of the whole model, and the chance-corrected score of each ability."""


def corrected(trial: LoadedTrial) -> dict[str, float]:
    """The chance-corrected mean of each ability over its tasks."""

    def above(task: str) -> float:
        score = trial.tasks[task]
        floor = chance(task, score.metric)
        return (score.value - floor) / (1 - floor)

    return {ability: float(np.mean([above(task) for task in tasks])) for ability, tasks in ABILITIES.items()}


def collected(trials: Sequence[LoadedTrial]) -> Scores:
    """The scores of all trials of the family.

    Raises:
        ValueError: results that do not tell the bits of the model, or two results of one trial that differ.
    """
    found: Scores = {}
    for trial in trials:
        size = Path(trial.pretrained.removesuffix("/model")).name.rpartition("-")[0]
        method = "" if trial.is_dense else str(trial.plan["pruner"])
        if size not in SIZES or (trial.weight_bits is None and (method not in ("", PRUNER) or (method and size != LARGEST))):
            continue
        bits = bits_of_model(trial)
        if bits is None:
            raise ValueError(f"{trial.name}: the results do not say how many bits there are")
        value = bits, corrected(trial)
        way = Way(size, method, trial.weight_bits, trial.ratio)
        if found.setdefault(way, {}).setdefault(seed_of(trial.pretrained), value) != value:
            raise ValueError(f"{trial.name}: two results differ: name sweeps of one state of the code")
    return found


def rows_of(scores: Scores) -> list[dict[str, Any]]:
    """A row for each way, lines together and bits falling: bits, abilities, and in-context ability less recall, over training seeds.

    The last is of shares of the dense score of the largest model with the same training seed.

    Raises:
        ValueError: a way lacks a training seed of the dense largest model.
    """
    largest = scores[Way(LARGEST)]
    rows = []
    for way, by_seed in scores.items():
        if missing := sorted(largest.keys() ^ by_seed.keys()):
            raise ValueError(f"{way.line}, {way.amount}: training seed {missing[0]} is missing, or {LARGEST} lacks it")
        seeds = sorted(by_seed)
        kept = {ability: [by_seed[seed][1][ability] / largest[seed][1][ability] for seed in seeds] for ability in ("recall", "in-context")}
        rows.append({
            "line": way.line, "size": way.size, "amount": way.amount, "bits": float(np.mean([by_seed[seed][0] for seed in seeds])),
            "scores": {ability: OverSeeds(tuple(by_seed[seed][1][ability] for seed in seeds)) for ability in ABILITIES},
            "kept": {ability: OverSeeds(tuple(values)) for ability, values in kept.items()},
            "difference": OverSeeds(tuple(b - a for a, b in zip(kept["recall"], kept["in-context"], strict=True))),
        })  # fmt: skip
    order = [*DRAWN, *sorted({row["line"] for row in rows} - {*DRAWN})]
    return sorted(rows, key=lambda row: (order.index(row["line"]), -row["bits"]))


def fewest(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each line and ability: the row with the fewest bits down to which every mean keeps ``KEPT`` of the dense score, or None."""
    found = []
    for line in dict.fromkeys(row["line"] for row in rows):
        falling = sorted((row for row in rows if row["line"] == line), key=lambda row: -row["bits"])
        kept = {
            ability: list(takewhile(lambda row, ability=ability: row["kept"][ability].mean >= KEPT, falling))
            for ability in ("recall", "in-context")
        }
        found.append({"line": line} | {ability: larger[-1] if larger else None for ability, larger in kept.items()})
    return found


def recall_first(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the largest model quantised with GPTQ in which in-context ability keeps more than recall, by the interval."""
    quantised = [dict(row) for row in rows if row["line"] == f"{LARGEST} quantised, gptq" and row["difference"].half_width is not None]
    return [row for row in quantised if row["difference"].mean > row["difference"].half_width]


def keeps_with_fewer(kept: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the largest model, quantised with GPTQ, keeps recall and in-context ability with fewer bits than pruned.

    Args:
        kept: as :func:`fewest` returns it.
    """
    quantised, pruned = (
        next((row for row in kept if row["line"] == line), None) for line in (f"{LARGEST} quantised, gptq", f"{LARGEST} pruned, {PRUNER}")
    )
    return bool(quantised and pruned) and all(
        quantised[ability] and pruned[ability] and quantised[ability]["bits"] < pruned[ability]["bits"]
        for ability in ("recall", "in-context")
    )


def measured(folder: Path) -> dict[str, Any]:
    """All that the page tells of equal bits; empty where nothing was quantised."""
    folders = [folder / name for name in SWEEPS if (folder / name / "trials").is_dir()]
    if folder / "bits" not in folders or folder / "family" not in folders:
        return {}
    trials, _ = read(folders)
    rows = rows_of(collected(trials))
    kept = fewest(rows)
    dense = next(row for row in rows if row["size"] == LARGEST and row["amount"] == "dense")
    return {
        "rows": rows, "fewest": kept, "fewer": keeps_with_fewer(kept), "first": recall_first(rows), "dense": dense,
        "shown": SHOWN, "kept": KEPT,
    }  # fmt: skip
