"""``harness-ext sweep``: what it prints."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_ext.commands.printing import console, folded_table
from harness_ext.engine import ranks
from harness_ext.errors import BadOptionError, shortened
from harness_ext.extras import require_extra
from harness_ext.sweep.display import clock
from harness_ext.sweep.fields import over, read, sweep_from
from harness_ext.sweep.prepared import Checked, Prepared
from harness_ext.sweep.preview import preview
from harness_ext.sweep.processes import asked_for, join
from harness_ext.sweep.scores import columns, score

if TYPE_CHECKING:
    from rich.console import Console

    from harness_ext.sweep.run import Engine, Summary

WIDTH = 200  # of tables in a file or a pipe


def sweep(
    typed: Mapping[str, Any], config: Path | None, *, dry_run: bool, engine: str, address: str | None, share: Mapping[str, float]
) -> int:
    """Runs a sweep, or prints what it would do, and returns the exit code.

    Args:
        typed: the fields that were given on the command line.
        config: a YAML file with further fields. See :func:`harness_ext.sweep.fields.over`.
        share: ``cpus`` and ``gpus`` of a trial, for ``engine="ray"``.

    Raises:
        HarnessExtError: the first mistake, in one line.
    """
    fields = over(typed, read(config) if config else {})
    if engine == "ray" and share["gpus"] > 0:
        fields.setdefault("device", "cuda")  # of the workers; the driver may have none
    if engine == "ray" and asked_for() > 1:
        raise BadOptionError("--engine ray: want one process; accelerate launch is for one trial at a time over several devices")
    checked_fields = sweep_from(fields)
    if checked_fields.refine is not None:
        from harness_ext.sweep.refine import check_refine

        check_refine(checked_fields)
        require_extra("report", "--refine")
    if checked_fields.out is None:
        raise BadOptionError("--out: nothing given: want the folder for the records, such as runs/first")
    out = Path(checked_fields.out).expanduser()
    trial_engine = None if dry_run and engine == "ray" else _engine(engine, address, share)
    join()
    screen = console(WIDTH)
    if dry_run:
        if ranks.is_first():
            checked = Checked(checked_fields)
            _print_preview(screen, checked, out)
            if checked_fields.refine is not None:
                from harness_ext.sweep.refine import in_words

                screen.print(in_words(checked_fields, checked.trials), soft_wrap=True)
        return 0
    from harness_ext.sweep.run import run  # it loads models; --dry-run does not wait for what that imports

    prepared = Prepared(checked_fields)
    if checked_fields.refine is None:
        summary = run(prepared, out, trial_engine)
    else:
        prepared, summary = _refined(screen, prepared, out, trial_engine)
    if ranks.is_first():
        if summary.records:
            _print_scores(screen, prepared, summary)
        screen.print(str(summary), soft_wrap=True)
        if summary.records:
            screen.print(f"Next: {shlex.join(['harness-ext', 'report', str(out)])}", soft_wrap=True)
    return 1 if summary.failed else 0


def _refined(screen: Console, prepared: Prepared, out: Path, engine: Engine | None) -> tuple[Prepared, Summary]:
    """Runs the grid, and then further sparsities where they decide."""
    from harness_ext.report.refining import check_tasks, reached, sparsities_to_measure
    from harness_ext.sweep.refine import in_words, refine
    from harness_ext.sweep.run import run

    def say(line: str) -> None:
        if ranks.is_first():
            screen.print(line, soft_wrap=True)

    sweep = prepared.sweep
    check_tasks(prepared)
    summary = run(prepared, out, engine)
    if summary.failed:
        say("Not refined: trials of the grid failed.")
        return prepared, summary
    say(in_words(sweep, prepared.trials))
    prepared, summary = refine(prepared, summary, out, engine, sparsities_to_measure, say)
    for line in reached(list(summary.records.values()), sweep.refine or 0.0) if ranks.is_first() else ():
        say(line)
    return prepared, summary


def _engine(name: str, address: str | None, share: Mapping[str, float]) -> Engine | None:
    """None for this process."""
    if name not in ("local", "ray"):
        raise BadOptionError(f"--engine {shortened(name)}: want local or ray")
    if name == "local":
        if address is not None:
            raise BadOptionError(f"--address {shortened(address)}: goes with --engine ray")
        return None
    from harness_ext.sweep.ray_engine import on_ray

    return on_ray(address, cpus=share["cpus"], gpus=share["gpus"])


def _print_scores(screen: Console, prepared: Prepared, summary: Summary) -> None:
    tasks = columns(summary.records.values())
    table = folded_table(["trial", *tasks], right=tasks, title="Scores")
    for job in prepared.jobs:
        if record := summary.records.get(job.key):
            values = [score(record, task) for task in tasks]
            table.add_row(str(job.trial), *("" if value is None else f"{value:.4f}" for value in values))
    screen.print(table)


def _print_preview(screen: Console, checked: Checked, out: Path) -> None:
    plan = preview(checked, out)
    table = folded_table(("trial", "options", "seconds", "done"), right=("seconds",), title=f"{len(plan.rows)} trials")
    for row in plan.rows:
        options = ", ".join(f"{name}={value}" for name, value in row.trial.arguments.items() if "." in name and name != "calibration.seed")
        seconds = "" if row.done else "?" if row.seconds is None else f"{row.seconds:.0f}" if row.seconds >= 1 else "<1"
        table.add_row(str(row.trial), options, seconds, "yes" if row.done else "")
    screen.print(table)
    texts = [f"{count} windows of {length} tokens" for count, length in dict.fromkeys(checked.windows.values())]
    screen.print(" and ".join([f"About {plan.requests.count} requests", *texts]) + " in each trial.")
    left = [row for row in plan.rows if not row.done]
    known = [row.seconds for row in left if row.seconds is not None]
    if not left:
        screen.print("All are done.")
    elif known:
        rest = f" and {len(left) - len(known)} more" if len(known) < len(left) else ""
        screen.print(f"About {clock(math.ceil(sum(known)))} for {len(known)} trials{rest}, by {plan.basis}.")
    else:
        screen.print("The time cannot be estimated: the model cannot be made from its configuration.")
