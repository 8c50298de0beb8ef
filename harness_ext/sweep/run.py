"""The loop over the trials of a sweep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_ext.engine import ranks
from harness_ext.errors import BadOptionError, HarnessExtError, with_type
from harness_ext.plugins import Plugins
from harness_ext.sweep import estimate
from harness_ext.sweep.dense import DenseModel
from harness_ext.sweep.display import Display, displayed
from harness_ext.sweep.evaluation import Results, Samples, run_trial
from harness_ext.sweep.fields import Sweep
from harness_ext.sweep.grid import TrialSpec, trials
from harness_ext.sweep.identity import identity_of, key, settings
from harness_ext.sweep.items import Catalogue, Items
from harness_ext.sweep.preflight import check_models, place_of, skeleton
from harness_ext.sweep.processes import held
from harness_ext.sweep.records import TrialRecord
from harness_ext.sweep.text import check_text, identity, text_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A trial that may have to be run, with everything that decides its scores."""

    key: str
    trial: TrialSpec
    settings: dict[str, Any]
    cost: float


@dataclass
class Outcome:
    """The results of a trial, or its error."""

    job: Job
    results: Results = field(default_factory=dict)
    samples: Samples = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None


@dataclass
class Summary:
    """The counts and the records of a sweep that has ended."""

    out: Path
    before: int = 0
    done: int = 0
    failed: list[str] = field(default_factory=list)
    others: int = 0
    """The number of records in the folder that are not of this sweep."""
    records: dict[str, TrialRecord] = field(default_factory=dict)
    """The records of this sweep by their keys, in the order of its trials."""

    def __str__(self) -> str:
        total = self.before + self.done + len(self.failed)
        text = f"{self.out}: {total} trials: {self.done} done, {self.before} done before, {len(self.failed)} failed"
        text += f"; {self.others} more in this folder are of other settings" if self.others else ""
        return "\n".join([text, *(f"failed: {reason}" for reason in self.failed)])


Engine = Callable[[Sweep, Sequence[Job], dict[str, Items], Display], Iterator[Outcome]]


class Checked:
    """A sweep whose trials, names and options were checked. No weight is loaded, and no items of tasks are made.

    Raises:
        HarnessExtError: the first mistake in what was asked for.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._plugins = plugins = Plugins()
        self._skeletons: dict[str, PreTrainedModel | None] = {}
        self.trials = trials(sweep, plugins)
        check_models(plugins, self.trials)
        self.text = text_of(sweep)
        self.windows = check_text(plugins, sweep, self.text, self.trials) if self.text else {}
        """How many windows of the text each model reads, and how many tokens are in a window."""
        self.catalogue = Catalogue(sweep.tasks, sweep.metadata, sweep.include_path, sweep.of_model())
        if not self.catalogue.as_asked:  # so that the commands in the records are those that lm-eval can run
            self.sweep = sweep.model_copy(update={"tasks": tuple(self.catalogue.names)})
        self._identities = {name: identity_of(plugins, name, sweep.revision) for name in sweep.pretrained}

    def settings(self, trial: TrialSpec, digests: Mapping[str, str]) -> dict[str, Any]:
        """Everything that decides the scores of a trial.

        Args:
            digests: of the items of each task.
        """
        of_text = identity(self.sweep, self.text) if self.text else None
        return settings(self.sweep, trial, self._identities[trial.pretrained](), digests, of_text)

    def skeleton(self, pretrained: str) -> PreTrainedModel | None:
        """A model without weights, for estimates; None where it cannot be built, which loading the model will say."""
        if pretrained not in self._skeletons:
            place = place_of(next(trial for trial in self.trials if trial.pretrained == pretrained))
            try:
                self._skeletons[pretrained] = skeleton(self._plugins, pretrained, place)
            except HarnessExtError:
                self._skeletons[pretrained] = None
        return self._skeletons[pretrained]


class Prepared(Checked):
    """A checked sweep with the items of its tasks, and its trials as jobs. No weight is loaded.

    Raises:
        HarnessExtError: also for a task that cannot be made, and for two trials that are the same.
    """

    def __init__(self, sweep: Sweep) -> None:
        super().__init__(sweep)
        sweep = self.sweep
        self.items: dict[str, Items] = {}
        for name in sweep.pretrained:
            first = next(iter(self.items.values()), None)
            self.items[name] = first if first and not first.depends_on_model else Items(self.catalogue, name, sweep, self.text)
        jobs: dict[str, Job] = {}
        for trial in self.trials:
            items = self.items[trial.pretrained]
            decisive = self.settings(trial, items.digests)
            job = Job(
                key(decisive),
                trial,
                decisive,
                estimate.cost(trial, items.requests, *estimate.size(self.skeleton(trial.pretrained)), self.windows.get(trial.pretrained)),
            )
            if job.key in jobs:
                raise BadOptionError(f"two trials are the same: {jobs[job.key].trial} and {trial}: leave one out")
            jobs[job.key] = job
        self.jobs = list(jobs.values())


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
                    summary.failed.append(f"{job.trial}: {with_type(outcome.error)}")
                display.end(job.key)
        if folder:
            folder.write_tables()
            summary.records = {job.key: folder.records[job.key] for job in jobs if job.key in folder.records}
    return summary


def in_this_process(sweep: Sweep, jobs: Sequence[Job], items: dict[str, Items], display: Display) -> Iterator[Outcome]:
    """Runs the jobs one after the other, and loads each model once. An error is the outcome of its trial; the other trials still run.

    Raises:
        Exception: in several processes, any error that is not of this package: the other processes may wait for this one.
    """
    model: DenseModel | None = None
    loaded = ""
    for job in jobs:
        display.begin(str(job.trial))
        try:
            if model is None or loaded != job.trial.pretrained:
                model = None  # free the previous model first
                model, loaded = DenseModel(sweep, job.trial.pretrained), job.trial.pretrained
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
