"""A sweep that was checked, and one whose trials are ready to be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness_ext.errors import BadOptionError, HarnessExtError
from harness_ext.plugins import Plugins
from harness_ext.sweep import estimate
from harness_ext.sweep.fields import Sweep
from harness_ext.sweep.grid import TrialSpec, trials
from harness_ext.sweep.identity import identity_of, key, settings
from harness_ext.sweep.items import Catalogue, Items
from harness_ext.sweep.preflight import check_models, check_templates, place_of, skeleton
from harness_ext.sweep.text import check_text, identity, text_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Job:
    """A trial that may have to be run, with everything that decides its scores."""

    key: str
    trial: TrialSpec
    settings: dict[str, Any]
    cost: float


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
        check_templates(plugins, self.trials, bool(sweep.tasks) and sweep.apply_chat_template)
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
