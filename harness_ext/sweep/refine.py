"""Measures more sparsities where they decide: the midpoints of the cells in which an ability may fail."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_ext.engine import ranks
from harness_ext.errors import BadOptionError
from harness_ext.method.sparsity import Sparsity
from harness_ext.sweep.fields import Sweep
from harness_ext.sweep.grid import TrialSpec
from harness_ext.sweep.prepared import Prepared
from harness_ext.sweep.records import TrialRecord
from harness_ext.sweep.run import Engine, Summary, run

NARROWEST = 0.01  # of the cells that are halved, whatever the width
ENDS = 4  # of the intervals of two abilities: so many cells are halved at most in a round
NEXT_TO = 5e-4  # sparsities that are no further apart are one

ToAdd = Callable[[Sequence[TrialRecord], float], Mapping[str, Sequence[float]]]
"""The sparsities to add to each method, by ``method_of``, from the records so far and the width that is wanted."""


@dataclass(frozen=True)
class Most:
    """What a refinement may do at most.

    Args:
        rounds: of halving cells.
        trials: in all rounds.
    """

    rounds: int
    trials: int


def check_refine(sweep: Sweep) -> None:
    """Raises BadOptionError where there is no grid of sparsities to refine."""
    if not [sparsity for sparsity in sweep.sparsity if sparsity.ratio > 0 and not sparsity.pattern]:
        raise BadOptionError(
            f"--refine {sweep.refine}: --sparsity {','.join(map(str, sweep.sparsity))} has no ratio above 0; want for example 0:0.9:0.3"
        )


def method_of(arguments: Mapping[str, Any]) -> str:
    """What a method is called by: the model arguments of its trials without sparsity and calibration seed."""
    return json.dumps({name: value for name, value in arguments.items() if name not in ("sparsity", "calibration.seed")}, sort_keys=True)


def most(sweep: Sweep, trials: Sequence[TrialSpec], width: float) -> Most:
    """The limits of a refinement: each round halves the cells at the two ends of the intervals of two abilities, for every method.

    Args:
        trials: of the grid.
        width: that is wanted.
    """
    grid = sorted({0.0, 1.0, *(sparsity.ratio for sparsity in sweep.sparsity if not sparsity.pattern)})
    widest = max(high - low for low, high in itertools.pairwise(grid))
    rounds = max(0, math.ceil(math.log2(widest / max(NARROWEST, width / 4)) - 1e-9))
    pruned = [trial for trial in trials if not trial.is_dense and not trial.plan.sparsity.pattern]
    seeds = {(method_of(trial.arguments), trial.arguments.get("calibration.seed")) for trial in pruned}
    return Most(rounds, rounds * ENDS * len(seeds))


def refine(
    prepared: Prepared, grid: Summary, out: Path, engine: Engine | None, to_add: ToAdd, report: Callable[[str], None]
) -> tuple[Prepared, Summary]:
    """Goes on from a sweep that has ended, until each interval is narrow enough, or more sparsities would not help.

    The same sweep, run again, finds the trials of earlier rounds in their records.

    Args:
        prepared: the sweep, with ``refine``.
        grid: its summary.
        engine: as for ``run``.
        to_add: says where to measure.
        report: takes one line on each round.

    Returns:
        the sweep with all trials, and their summary.
    """
    sweep, summary = prepared.sweep, grid
    width = sweep.refine or 0.0
    limit = most(sweep, prepared.trials, width)
    for number in range(1, limit.rounds + 1):
        wanted = ranks.broadcast(dict(to_add(list(summary.records.values()), width)) if ranks.is_first() else {})
        grown = _with(prepared, wanted)
        if summary.failed or len(grown.jobs) == len(prepared.jobs):
            break
        before = {job.key for job in prepared.jobs}
        added = sorted({job.trial.plan.sparsity.ratio for job in grown.jobs if job.key not in before})
        more = len(grown.jobs) - len(prepared.jobs)
        report(
            f"Round {number} of at most {limit.rounds}: {more} trials" + (f" at {', '.join(f'{one:g}' for one in added)}" if added else "")
        )
        done = summary.done
        summary = run(grown, out, engine)
        summary.done += done
        summary.before = len(grown.jobs) - summary.done - len(summary.failed)
        prepared = grown
    return prepared, summary


def _with(prepared: Prepared, wanted: Mapping[str, Sequence[float]]) -> Prepared:
    """The sweep with the trials that are wanted as well; one that is there, or is next to one that is, is not added."""
    there: dict[str, list[float]] = {}
    for trial in prepared.trials:
        if not trial.plan.sparsity.pattern:  # which is another constraint than the ratio that it has
            there.setdefault(method_of(trial.arguments), []).append(trial.plan.sparsity.ratio)
    new = {
        method: [place for place in map(rounded, places) if 0 < place < 1 and not _near(place, there.get(method, []))]
        for method, places in wanted.items()
    }
    known = {str(sparsity) for sparsity in prepared.sweep.sparsity}
    places = [Sparsity.parse(place) for place in sorted({place for places in new.values() for place in places})]
    more = [sparsity for sparsity in places if str(sparsity) not in known]
    if not places:
        return prepared
    grown = Prepared(prepared.sweep.model_copy(update={"sparsity": (*prepared.sweep.sparsity, *more)}))
    before = {job.key for job in prepared.jobs}
    grown.jobs = [
        job for job in grown.jobs if job.key in before or _near(job.trial.plan.sparsity.ratio, new.get(method_of(job.trial.arguments), []))
    ]
    grown.trials = [job.trial for job in grown.jobs]
    return grown


def rounded(place: float) -> float:
    """A sparsity that reads well."""
    return round(place, 4)


def _near(place: float, places: Sequence[float]) -> bool:
    return any(abs(place - other) <= NEXT_TO for other in places)


def in_words(sweep: Sweep, trials: Sequence[TrialSpec]) -> str:
    """What ``--refine`` will do at most."""
    limit = most(sweep, trials, sweep.refine or 0.0)
    return (
        f"--refine {sweep.refine:g}: then at most {limit.trials} more trials in at most {limit.rounds} rounds, at the midpoints of the "
        f"cells that decide, until the interval of each critical sparsity is at most {sweep.refine:g} wide."
    )
