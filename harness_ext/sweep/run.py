"""The loop over the trials of a sweep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness_ext.engine import ranks
from harness_ext.errors import BadOptionError, HarnessExtError
from harness_ext.plugins import Plugins
from harness_ext.sweep import estimate
from harness_ext.sweep.dense import DenseModel
from harness_ext.sweep.display import Display, shown
from harness_ext.sweep.evaluation import Results, Samples, run_trial
from harness_ext.sweep.fields import Sweep
from harness_ext.sweep.grid import TrialSpec, trials
from harness_ext.sweep.identity import key, model_identity, settings
from harness_ext.sweep.items import Catalogue, Items
from harness_ext.sweep.processes import held
from harness_ext.sweep.records import TrialRecord, scan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A trial that may have to be run, with all that decides its numbers."""

    key: str
    trial: TrialSpec
    settings: dict[str, Any]
    cost: float


@dataclass
class Outcome:
    """What became of a trial: results, or an error."""

    job: Job
    results: Results = field(default_factory=dict)
    samples: Samples = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None


@dataclass
class Summary:
    """How a sweep went."""

    out: Path
    before: int = 0
    done: int = 0
    failed: list[str] = field(default_factory=list)
    others: int = 0
    """Records in the folder that are not of this sweep."""

    def __str__(self) -> str:
        asked = self.before + self.done + len(self.failed)
        text = f"{self.out}: {asked} trials: {self.done} done, {self.before} done before, {len(self.failed)} failed"
        text += f"; {self.others} more in this folder are of other settings" if self.others else ""
        return "\n".join([text, *(f"failed: {reason}" for reason in self.failed)])


Engine = Callable[[Sweep, Sequence[Job], dict[str, Items], Display], Iterator[Outcome]]


class Prepared:
    """A sweep that was checked in full, with its jobs; no weight is loaded.

    Raises:
        HarnessExtError: whatever is wrong with what was asked.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        plugins = Plugins()
        self._trials = trials(sweep, plugins)
        catalogue = Catalogue(sweep.tasks, dict(sweep.metadata), sweep.include_path)
        identities = {name: model_identity(plugins, name, sweep.revision) for name in sweep.pretrained}
        self.items: dict[str, Items] = {}
        for name in sweep.pretrained:
            first = next(iter(self.items.values()), None)
            self.items[name] = first if first and not first.depends_on_model else Items(catalogue, name, sweep)
        jobs: dict[str, Job] = {}
        for trial in self._trials:
            items = self.items[trial.pretrained]
            found = settings(sweep, trial, identities[trial.pretrained], items.digests)
            size = estimate.size(trial.pretrained, sweep.revision, sweep.trust_remote_code)
            job = Job(key(found), trial, found, estimate.cost(trial, items, *size))
            if job.key in jobs:
                raise BadOptionError(f"two trials are the same: {jobs[job.key].trial} and {trial}: leave one out")
            jobs[job.key] = job
        self.jobs = list(jobs.values())


def run(prepared: Prepared, out: Path, engine: Engine | None = None) -> Summary:
    """Does what is not done, and writes the tables; of several processes, the first writes.

    Raises:
        HarnessExtError: the folder is in use, or cannot be written; what was done before is kept.
    """
    summary = Summary(out)
    with held(out) as folder:
        records = ranks.broadcast(set(folder.records) if folder else set())
        left = [job for job in prepared.jobs if job.key not in records]
        summary.before = len(prepared.jobs) - len(left)
        summary.others = len(records) - summary.before
        with shown({job.key: job.cost or 1.0 for job in left}) as display:
            for outcome in (engine or in_this_process)(prepared.sweep, left, prepared.items, display):
                job = outcome.job
                if outcome.error is None:
                    if folder:
                        folder.keep(prepared.sweep, job.trial, job.settings, outcome.results, outcome.samples, outcome.measured)
                    summary.done += 1
                else:
                    if folder:
                        folder.fail(job.key, job.trial, job.settings, outcome.error)
                    summary.failed.append(f"{job.trial}: {type(outcome.error).__name__}: {' '.join(str(outcome.error).split())}")
                display.end(job.key)
        if folder:
            folder.write_tables()
    return summary


def in_this_process(sweep: Sweep, jobs: Sequence[Job], items: dict[str, Items], display: Display) -> Iterator[Outcome]:
    """Runs the jobs one after the other, loading each model once. An error is the outcome of its trial, and the others go on.

    Raises:
        Exception: in several processes, anything but an error of this package, which all of them find: the others may wait for this one.
    """
    model: DenseModel | None = None
    loaded = ""
    for job in jobs:
        display.begin(str(job.trial))
        try:
            if model is None or loaded != job.trial.pretrained:
                model = None  # free the one before, first
                model, loaded = DenseModel(sweep, job.trial.pretrained), job.trial.pretrained
            outcome = attempt(sweep, job, model, items[job.trial.pretrained])
        except Exception as error:  # a trial may fail in any way, and the others go on
            if ranks.count() > 1 and not isinstance(error, HarnessExtError):
                raise
            log.debug("%s", job.trial, exc_info=True)
            outcome = Outcome(job, error=error)
        if outcome.error is not None and model is not None:
            model.after_failure()
        yield outcome


def attempt(sweep: Sweep, job: Job, model: DenseModel, items: Items) -> Outcome:
    """One trial."""
    results, samples, measured = run_trial(sweep, job.trial, model, items)
    return Outcome(job, results, samples, measured | {"cost": job.cost})


def preview(prepared: Prepared, out: Path) -> list[tuple[Job, bool, float | None]]:
    """Each job, whether it is done, and the seconds that it is expected to take, if trials in the folder tell; writes nothing."""
    done: dict[str, TrialRecord] = {record.key: record for record in scan(out)[0]}
    unit, _ = estimate.seconds_a_unit(done.values())
    return [(job, job.key in done, job.cost * unit if unit is not None else None) for job in prepared.jobs]
