"""``harness-ext sweep``: what it prints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from harness_ext.engine import ranks
from harness_ext.errors import BadOptionError
from harness_ext.sweep.display import clock
from harness_ext.sweep.estimate import BASIS
from harness_ext.sweep.fields import read, sweep_from
from harness_ext.sweep.processes import asked_for, join
from harness_ext.sweep.run import Engine, Prepared, Summary, preview, run


def sweep(
    typed: Mapping[str, Any], config: Path | None, *, dry_run: bool, engine: str, address: str | None, share: Mapping[str, float]
) -> int:
    """Runs a sweep, or prints what it would do, and returns the exit code.

    Args:
        typed: the fields that were given on the command line.
        config: a YAML file with further fields, which those of the command line override.
        share: ``cpus`` and ``gpus`` of a trial, for ``engine="ray"``.

    Raises:
        HarnessExtError: whatever is wrong, in one line.
    """
    fields = (read(config) if config else {}) | dict(typed)
    if engine == "ray" and share["gpus"] > 0:
        fields.setdefault("device", "cuda")  # of the workers; the driver may have none
    if engine == "ray" and asked_for() > 1:
        raise BadOptionError("--engine ray: want one process; accelerate launch is for one trial at a time over several devices")
    asked = sweep_from(fields)
    if asked.out is None:
        raise BadOptionError("--out: nothing given: want the folder for the records, such as runs/first")
    out = Path(asked.out).expanduser()
    chosen = None if dry_run and engine == "ray" else _engine(engine, address, share)
    join()
    prepared = Prepared(asked)
    console = Console(markup=False, emoji=False, highlight=False)
    if dry_run:
        if ranks.is_first():
            _print_preview(console, prepared, out)
        return 0
    summary: Summary = run(prepared, out, chosen)
    if ranks.is_first():
        console.print(str(summary), soft_wrap=True)
    return 1 if summary.failed else 0


def _engine(name: str, address: str | None, share: Mapping[str, float]) -> Engine | None:
    """None for this process."""
    if name not in ("local", "ray"):
        raise BadOptionError(f"--engine {name}: want local or ray")
    if name == "local":
        if address is not None:
            raise BadOptionError(f"--address {address}: goes with --engine ray")
        return None
    from harness_ext.sweep.ray_engine import on_ray

    return on_ray(address, cpus=share["cpus"], gpus=share["gpus"])


def _print_preview(console: Console, prepared: Prepared, out: Path) -> None:
    rows = preview(prepared, out)
    table = Table(title=f"{len(rows)} trials")
    for column in ("trial", "options", "cost", "seconds", "done"):
        table.add_column(column, overflow="fold", justify="right" if column in ("cost", "seconds") else "left")
    for job, done, seconds in rows:
        options = ", ".join(f"{name}={value}" for name, value in job.trial.arguments.items() if "." in name and name != "calibration.seed")
        wait = "" if done or seconds is None else f"{seconds:.0f}"
        table.add_row(str(job.trial), options, f"{job.cost:.3g}" if job.cost else "?", wait, "yes" if done else "")
    console.print(table)
    console.print(f"{sum(items.instances for items in prepared.items.values()) // len(prepared.items)} requests in each trial. {BASIS}")
    finished = sum(done for _, done, _ in rows)
    expected = [seconds for _, done, seconds in rows if not done and seconds is not None]
    if finished == len(rows):
        console.print("All are done.")
    elif expected:
        console.print(f"About {clock(math.ceil(sum(expected)))} for what is left ({len(expected)}), at the speed of the trials in {out}.")
    else:
        console.print(f"No trial is done in {out} that would say what a unit takes in seconds.")
