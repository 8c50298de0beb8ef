"""Puts pruned, quantised and dense models beside each other at the bits of the whole model, on tasks that all dense models have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness_ext.report.abilities import ABILITIES, NAMES
from harness_ext.report.axis import bits_of_model
from harness_ext.report.ladder import between, interval_of, mean_of, shared_tasks
from harness_ext.report.series import Series, dense_trials
from harness_ext.report.trials import LoadedTrial


@dataclass
class AtBits:
    """The mean chance-corrected score of an ability, for a dense model or for one point of a series.

    Args:
        series: label of the series; None for a dense model.
        amount: the sparsity, or the bits of a quantised weight, as a text.
        bits: of the whole model.
        low, high: the 95 % interval over items and calibration seeds; None without per-sample records, and where a task is not above
            chance in the dense model.
        dense_at_equal: the score of a dense model of as many bits, interpolated between the two nearest dense models, linearly in the
            logarithm of bits. Dense models of equal bits count with their mean. None if there is no dense model on both sides.
    """

    pretrained: str
    series: str | None
    amount: str
    ability: str
    bits: float
    score: float
    low: float | None = None
    high: float | None = None
    dense_at_equal: float | None = None


@dataclass
class EqualBits:
    """The scores, the tasks behind them by ability, and what could not be computed."""

    scores: list[AtBits] = field(default_factory=list)
    tasks: dict[str, list[str]] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)


def equal_bits(
    trials: Sequence[LoadedTrial],
    series: Sequence[Series],
    quantised: Sequence[Series],
    abilities: Mapping[str, str],
    families: Mapping[str, str],
    resamples: int = 2000,
) -> EqualBits:
    """Computes the scores of all ways of making a model smaller. Nothing is computed where no model is quantised.

    Args:
        series, quantised: of pruned and of quantised models.
        abilities, families: the ability and the family of each task, by name.
        resamples: those of intervals that have no closed form.
    """
    result = EqualBits()
    dense = list(dense_trials(trials).values())
    if not quantised:
        return result
    if not dense:
        result.gaps.append("no comparison at equal bits: there is no dense trial")
        return result
    if unknown := [trial.name for trial in trials if bits_of_model(trial) is None]:
        result.gaps.append(f"no comparison at equal bits: the results do not say how many bits there are in {unknown[0]}")
        return result
    dense.sort(key=_bits)
    for ability in ABILITIES:
        tasks = shared_tasks(dense, [task for task, of in abilities.items() if of == ability], result.gaps, "not compared at equal bits")
        if not tasks:
            result.gaps.append(f"no comparison at equal bits for {NAMES[ability]}: there is no task of it that all dense models have")
            continue
        result.tasks[ability] = tasks
        steps = [(_bits(trial), mean_of([trial], tasks, families)) for trial in dense]
        for trial, (bits, score) in zip(dense, steps, strict=True):
            low, high = interval_of(trial, [trial], tasks, families, resamples)
            result.scores.append(AtBits(trial.pretrained, None, "0", ability, bits, score, low, high, score))
        for each in [*series, *quantised]:
            for by_seed in [each.points[place] for place in sorted(each.points)]:
                changed = list(by_seed.values())
                if not all(task in trial.tasks for trial in changed for task in tasks):
                    result.gaps.append(f"{changed[0].name} is not compared at equal bits for {NAMES[ability]}: a task is missing")
                    continue
                bits, score = float(np.mean([_bits(trial) for trial in changed])), mean_of(changed, tasks, families)
                low, high = interval_of(each.dense, changed, tasks, families, resamples)
                equal = between(bits, steps)
                result.scores.append(AtBits(each.pretrained, each.label, changed[0].amount, ability, bits, score, low, high, equal))
    return result


def _bits(trial: LoadedTrial) -> float:
    return bits_of_model(trial) or 0.0
