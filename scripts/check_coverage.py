"""Simulates experiments whose truth is known and counts how often the intervals of ``harness_ext.statistics`` hold it.

    python scripts/check_coverage.py                                  # all but the grids, 500 simulations each
    python scripts/check_coverage.py --only disparity --simulations 5000
    python scripts/check_coverage.py --only grids --save grids.jsonl  # the table of docs/statistics.md: 180 cells; resumes from the file
    python scripts/check_coverage.py --only "grid differences"
    python scripts/check_coverage.py --only models
    python scripts/check_coverage.py --only matching                  # the disparity at equal dense margin

coverage_curves.py says how scores are simulated. The truth is the mean score itself, and where the curve itself has fallen by the drop.
Methods were chosen on simulations with seeds below 20,000; those from there on, the default, are for judging them.
The binomial error of a coverage of 95 % is 1.0 points with 500 simulations.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import typer
from coverage_curves import BOOTSTRAP, Ability, critical
from coverage_grids import critical_table, disparity_table, model_table
from coverage_matching import matching_table

from harness_ext.statistics import Curve, Scores, ability_critical, compare, disparity, over_seeds

Inside = tuple[bool, bool]  # the truth lies below the interval, above it
TABLES: dict[str, Callable[[int, int], Iterator[Any]]] = {
    "grids": critical_table,
    "grid differences": disparity_table,
    "models": model_table,
    "matching": matching_table,
}


def outside(truth: float, low: float, high: float | None) -> Inside:
    return truth < low, high is not None and truth > high


def pairs(ability: Ability, at: int, seeds: bool = False, level: float = 0.95) -> Callable[[int], dict[str, Inside]]:
    """The retained fraction and the difference at one sparsity."""
    expected = ability.expected()
    gap = float(expected[at] - expected[0])
    share = float((expected[at] - ability.chance) / (expected[0] - ability.chance))

    def one(seed: int) -> dict[str, Inside]:
        values = ability.draw(np.random.default_rng(seed))
        ids = range(ability.items)
        dense, pruned = Scores(ids, values[0, 0]), [Scores(ids, of_seed[at]) for of_seed in values]
        if seeds:
            found = over_seeds(pruned, dense=dense, chance=ability.chance, level=level, seed=seed + BOOTSTRAP, resamples=1000)
            estimates = {"mean": (float(expected[at]), found.accuracy.mean)}
            if found.retained and found.difference:
                estimates |= {"retained": (share, found.retained.mean), "difference": (gap, found.difference.mean)}
        else:
            both = compare(dense, pruned[0], chance=ability.chance, level=level, seed=seed + BOOTSTRAP, resamples=1000)
            estimates = {"retained": (share, both.retained), "difference": (gap, both.difference)}
        return {name: outside(truth, estimate.low, estimate.high) for name, (truth, estimate) in estimates.items()}

    return one


def crossings(abilities: list[Ability], drop: float, corrected: bool = False, level: float = 0.95) -> Callable[[int], dict[str, Inside]]:
    """The critical sparsity of an ability of one task or more."""
    truth = critical(abilities, drop, corrected)

    def one(seed: int) -> dict[str, Inside]:
        generator = np.random.default_rng(seed)
        curves = [Curve("task", ability.grid, ability.draw(generator), chance=ability.chance) for ability in abilities]
        found = ability_critical(curves, drop=drop, corrected=corrected, level=level, seed=seed + BOOTSTRAP, resamples=1000)
        return {f"critical sparsity at {drop:.0%}": outside(truth, found.low, found.high)}

    return one


def differences(recall: Ability, other: Ability, drop: float, shared: bool = False) -> Callable[[int], dict[str, Inside]]:
    """The disparity, and whether it is shown: for equal curves falsely, and then counted as a truth below the interval."""
    truth = critical([other], drop) - critical([recall], drop)

    def one(seed: int) -> dict[str, Inside]:
        generator = np.random.default_rng(seed)
        values = recall.draw(generator), recall.draw(generator) if recall == other else other.draw(generator)
        if shared:  # half of the second ability's items are the first's, with the same scores
            half = recall.items // 2
            values[1][:, :, :half] = values[0][:, :, :half]
        keys = [("one", item) for item in range(recall.items)], [("other", item) for item in range(other.items)]
        if shared:
            keys[1][: recall.items // 2] = keys[0][: recall.items // 2]
        curves = [Curve("task", recall.grid, scores, ids) for scores, ids in zip(values, keys, strict=True)]
        found = disparity([curves[0]], [curves[1]], drop=drop, seed=seed + BOOTSTRAP, resamples=1000)
        low, high = (-math.inf if found.low is None else found.low), found.high
        results = {f"disparity at {drop:.0%}": outside(truth, low, high)}
        return results | ({f"disparity at {drop:.0%} not shown": (found.shown, False)} if recall == other else {})

    return one


def scenarios() -> Iterator[tuple[str, str, Callable[[int], dict[str, Inside]]]]:
    """Group, description, simulation."""
    plain = Ability()
    yield "pairs", "dense 0.90, 400 items", pairs(plain, 5)
    yield "pairs", "the same, rest 0.5", pairs(Ability(rest=0.5), 4)
    yield "pairs", "chance 0.5, dense 0.80, rest 0.2", pairs(Ability(dense=0.8, chance=0.5, rest=0.2), 5)
    yield "pairs", "few flips: 400 items, 6 lost", pairs(Ability(dense=0.9, rest=0.0, width=0.06, middle=0.545), 3)
    yield "pairs", "50 items", pairs(Ability(items=50), 5)
    for drop in (0.02, 0.05, 0.1):
        yield "critical", "dense 0.90, 400 items", crossings([plain], drop)
    yield "critical", "dense 1.00, 512 items", crossings([Ability(dense=0.9999, items=512)], 0.05)
    yield "critical", "rest 0.5", crossings([Ability(rest=0.5)], 0.05)
    yield "critical", "slow fall, rest 1", crossings([Ability(width=0.1, dense=0.8, rest=1.0)], 0.05)
    yield "critical", "sharp fall, 200 items, rest 0.3", crossings([Ability(width=0.04, middle=0.6, dense=0.8, items=200, rest=0.3)], 0.02)
    yield "critical", "chance 0.5, dense 0.85, corrected", crossings([Ability(dense=0.85, chance=0.5, rest=0.1)], 0.1, corrected=True)
    yield "critical", "near the end of the grid", crossings([Ability(middle=0.98, width=0.03, items=200, rest=0.1)], 0.05)
    yield "critical", "nine tasks of 128 items, dense 0.97", crossings([Ability(dense=0.97, items=128)] * 9, 0.02)
    unlike = [Ability(dense=0.9999, items=40), Ability(dense=0.8, items=1000)]
    yield "critical", "two tasks: 40 items, dense 1.00; 1000 items, dense 0.80", crossings(unlike, 0.05)
    yield "disparity", "equal curves", differences(plain, plain, 0.05)
    yield "disparity", "equal curves", differences(plain, plain, 0.1)
    yield "disparity", "equal curves, rest 0.5", differences(Ability(rest=0.5), Ability(rest=0.5), 0.05)
    yield "disparity", "equal curves, half of the items shared", differences(plain, plain, 0.05, shared=True)
    yield (
        "disparity",
        "0.35 against 0.65, unlike curves",
        differences(Ability(middle=0.35), Ability(middle=0.65, width=0.03, dense=0.8, items=200), 0.05),
    )
    for level in (0.8, 0.9, 0.99, 0.9917):
        yield "levels", f"{level:g}: dense 0.90, 400 items", pairs(plain, 5, level=level)
        yield "levels", f"{level:g}: 6 of 400 items lost", pairs(Ability(dense=0.9, rest=0.0, width=0.06, middle=0.545), 3, level=level)
        yield "levels", f"{level:g}: dense 0.90, 400 items", crossings([plain], 0.05, level=level)
        for count in (2, 3, 5):
            ability = Ability(seeds=count, seed_sd=0.03, rest=0.1)
            yield "levels", f"{level:g}: {count} calibration seeds", pairs(ability, 5, seeds=True, level=level)
    noisy = {"seed_sd": 0.03, "rest": 0.1}
    for count in (2, 3, 5, 10):
        yield "seeds", f"{count} calibration seeds", pairs(Ability(seeds=count, **noisy), 5, seeds=True)
    yield "seeds", "5 calibration seeds that do not matter", pairs(Ability(seeds=5, rest=0.1), 5, seeds=True)
    for count in (3, 5):
        yield "seeds", f"{count} calibration seeds", crossings([Ability(seeds=count, **noisy)], 0.05)
    yield "seeds", "5 calibration seeds, equal curves", differences(Ability(seeds=5, **noisy), Ability(seeds=5, **noisy), 0.05)


def coverage(simulation: Callable[[int], dict[str, Inside]], simulations: int, first: int = 0) -> dict[str, tuple[int, int]]:
    """How often the truth was below and above the interval, by statistic."""
    missed: dict[str, tuple[int, int]] = {}
    for seed in range(first, first + simulations):
        for name, (below, above) in simulation(seed).items():
            before = missed.get(name, (0, 0))
            missed[name] = before[0] + below, before[1] + above
    return missed


def main(
    simulations: Annotated[int, typer.Option(help="Of each scenario.")] = 500,
    only: Annotated[str, typer.Option(help=f"One group: pairs, critical, disparity, levels, seeds, {', '.join(TABLES)}.")] = "",
    first: Annotated[int, typer.Option(help="The first seed of the simulations.")] = 20_000,
    save: Annotated[Optional[Path], typer.Option(help="With --only grids: keep what was simulated here, and resume.")] = None,  # noqa: UP045
) -> None:
    began = time.process_time()
    if only == "grids":
        TABLES[only] = functools.partial(critical_table, save=save)
    elif save is not None:
        raise typer.BadParameter("--save goes with --only grids")
    if only in TABLES:
        for line in TABLES[only](simulations, first):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
        sys.stdout.write(f"\n{simulations} simulations each, {time.process_time() - began:.0f} s.\n")
        return
    sys.stdout.write("| statistic | scenario | coverage | binomial error | truth below | truth above |\n|---|---|---|---|---|---|\n")
    for group, description, simulation in scenarios():
        if only and group != only:
            continue
        for name, (below, above) in coverage(simulation, simulations, first).items():
            held = 1 - (below + above) / simulations
            error = math.sqrt(held * (1 - held) / simulations)
            sys.stdout.write(
                f"| {name} | {description} | {held:.1%} | {error:.1%} | {below / simulations:.1%} | {above / simulations:.1%} |\n"
            )
            sys.stdout.flush()
    sys.stdout.write(f"\n{simulations} simulations each, {time.process_time() - began:.0f} s.\n")


if __name__ == "__main__":
    typer.run(main)
