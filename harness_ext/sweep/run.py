"""The loop over the trials of a sweep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness_ext.engine import ranks
from harness_ext.errors import BadOptionError, HarnessExtError, UnsupportedModelError, with_type
from harness_ext.sweep.dense import DenseModel
from harness_ext.sweep.display import Display, displayed
from harness_ext.sweep.evaluation import Results, Samples, run_trial
from harness_ext.sweep.fields import Sweep
from harness_ext.sweep.items import Items
from harness_ext.sweep.prepared import Job, Prepared
from harness_ext.sweep.processes import held
from harness_ext.sweep.records import TrialRecord

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """The results of a trial, or its error."""

    job: Job
    results: Results = field(default_factory=dict)
    samples: Samples = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None


class Failure(NamedTuple):
    """A trial and why it failed, in words."""

    trial: str
    reason: str


@dataclass
class Summary:
    """The counts and the records of a sweep that has ended."""

    out: Path
    before: int = 0
    done: int = 0
    failed: list[Failure] = field(default_factory=list)
    others: int = 0
    """The number of records in the folder that are not of this sweep."""
    records: dict[str, TrialRecord] = field(default_factory=dict)
    """The records of this sweep by their keys, in the order of its trials."""

    def __str__(self) -> str:
        total = self.before + self.done + len(self.failed)
        text = f"{self.out}: {total} trials: {self.done} done, {self.before} done before, {len(self.failed)} failed"
        text += f"; {self.others} more in this folder are of other settings" if self.others else ""
        trials: dict[str, list[str]] = {}
        for trial, reason in self.failed:
            trials.setdefault(reason, []).append(trial)
        return "\n".join([text, *(f"failed: {_some(own)}: {reason}" for reason, own in trials.items())])


Engine = Callable[[Sweep, Sequence[Job], dict[str, Items], Display], Iterator[Outcome]]


def run(prepared: Prepared, out: Path, engine: Engine | None = None) -> Summary:
    """Runs the trials that have no record yet, and writes the tables. Of several processes, the first one writes.

    Raises:
        HarnessExtError: the folder is in use, or cannot be written. Finished trials are kept.
    """
    summary, jobs = Summary(out), prepared.jobs
    with held(out) as folder:
        records = ranks.broadcast(set(folder.records) if folder else set())
        left = [job for job in jobs if job.key not in records]
        summary.before = len(jobs) - len(left)
        summary.others = len(records) - summary.before
        with displayed({job.key: job.cost or 1.0 for job in left}) as display:
            for outcome in (engine or in_this_process)(prepared.sweep, left, prepared.items, display):
                job = outcome.job
                if outcome.error is None:
                    if folder:
                        folder.keep(prepared.sweep, job.trial, job.settings, outcome.results, outcome.samples, outcome.measured)
                    summary.done += 1
                else:
                    if folder:
                        folder.fail(job.key, job.trial, job.settings, outcome.error)
                    summary.failed.append(Failure(str(job.trial), with_type(outcome.error)))
                display.end(job.key)
        if folder:
            folder.write_tables()
            summary.records = {job.key: folder.records[job.key] for job in jobs if job.key in folder.records}
    return summary


def in_this_process(sweep: Sweep, jobs: Sequence[Job], items: dict[str, Items], display: Display) -> Iterator[Outcome]:
    """Runs the jobs one after the other, and loads each model once. An error is the outcome of its trial. The other trials still run, but
    not those of a model that cannot be loaded.

    Raises:
        Exception: in several processes, any error that is not of this package: the other processes may wait for this one.
    """
    model: DenseModel | None = None
    loaded = ""
    not_loaded: dict[str, Exception] = {}
    for job in jobs:
        display.begin(str(job.trial))
        try:
            if model is None or loaded != job.trial.pretrained:
                model = None  # free the previous model first
                if job.trial.pretrained in not_loaded:
                    raise not_loaded[job.trial.pretrained]
                try:
                    model, loaded = DenseModel(sweep, job.trial.pretrained), job.trial.pretrained
                except (BadOptionError, UnsupportedModelError) as error:  # another error may be gone the next time
                    not_loaded[job.trial.pretrained] = type(error)(str(error))  # without the frames, and what they hold
                    raise
            outcome = attempt(sweep, job, model, items[job.trial.pretrained])
        except Exception as error:  # a trial may fail in any way, and the others still run
            if ranks.count() > 1 and not isinstance(error, HarnessExtError):
                raise
            log.debug("%s", job.trial, exc_info=True)
            outcome = Outcome(job, error=error)
        if outcome.error is not None and model is not None:
            model.after_failure()
        yield outcome


def attempt(sweep: Sweep, job: Job, model: DenseModel, items: Items) -> Outcome:
    """Runs one trial."""
    results, samples, measured = run_trial(sweep, job.trial, model, items)
    return Outcome(job, results, samples, measured | {"cost": job.cost})


def _some(trials: Sequence[str]) -> str:
    """The first of trials, and how many more there are."""
    return trials[0] if len(trials) == 1 else f"{trials[0]} and {len(trials) - 1} more"
