"""The tasks of a sweep, which lm-eval makes once and ``simple_evaluate`` gets for each trial."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness_ext.errors import HarnessExtError, UnknownNameError, did_you_mean, shown, with_type
from harness_ext.host.environment import compile_templates_once
from harness_ext.host.registration import SOURCES, check_metadata, register, task_folders, warn_of_unread
from harness_ext.sweep.fields import Sweep
from harness_ext.sweep.kept_requests import KeptRequests
from harness_ext.sweep.random_states import random_state, set_random_state, set_seeds, words_drawn
from harness_ext.sweep.task_names import each_task_once
from harness_ext.tasks.corpora import Corpus


class TaskError(HarnessExtError):
    """A task that cannot be made."""


class Catalogue:
    """Looks tasks up by name, with their options, by one ``TaskManager`` of lm-eval.

    Args:
        names: of tasks, groups or tags, or patterns of them, as ``lm_eval --tasks`` takes them.
        metadata: options of the tasks, as ``lm_eval --metadata`` takes them.
        include_path: further folders of tasks.
        arguments: the model arguments of every trial, which lm-eval passes to functions that make data sets.

    Raises:
        UnknownNameError: no such task.
        BadOptionError: two of the groups have a task in common.
        HarnessExtError: an option that no task takes, or a wrong value.
    """

    def __init__(
        self,
        names: Sequence[str],
        metadata: Mapping[str, Any],
        include_path: Sequence[str] = (),
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        register()
        compile_templates_once()
        self._asked, self._include_path, self._metadata = list(names), list(include_path), dict(metadata)
        self._arguments = dict(arguments or {})
        check_metadata(self._metadata)
        # One dictionary for as long as the manager lives: ``pretrained``, which is a model argument as well, changes in it.
        self._metadata_of_model: dict[str, Any] = {"pretrained": "", **self._arguments, **self._metadata}
        are_names = not any(re.search(r"[*?\[]", name) for name in names)
        self.manager: Any = (self._small_manager() if are_names else None) or self._full_manager()
        matched = self._matched()
        self.names = each_task_once(self.manager, matched, f"--tasks {','.join(self._asked)}")
        self.as_asked = self.names == matched
        """Whether lm-eval's command line takes what was asked for as it is."""
        warn_of_unread(self.manager, self.names, self._metadata)

    def load(self, pretrained: str, metadata: Mapping[str, Any] | None = None) -> list[Any]:
        """The tasks and groups, made anew, as ``simple_evaluate`` takes them.

        Args:
            metadata: further options of the tasks, for this call.

        Raises:
            TaskError: whatever a task raises.
        """
        self._metadata_of_model.clear()
        self._metadata_of_model.update({"pretrained": pretrained, **self._arguments, **self._metadata, **(metadata or {})})
        with _without_hints(), _task_errors(f"--tasks {','.join(self._asked)}"):
            loaded = self.manager.load(list(self.names))  # in one call, as simple_evaluate: making a task may draw random numbers
        groups = [loaded["groups"][name] for name in self.names if name in loaded["groups"]]
        group_of = {id(task): group for group in groups for task in group.get_all_tasks()}
        made = {id(part): part for part in (group_of.get(id(task), task) for task in loaded["tasks"].values())}
        return list(made.values())

    def tasks(self, made: Sequence[Any]) -> dict[str, Any]:
        """The tasks in what :meth:`load` made, by name, without groups."""
        tasks: dict[str, Any] = self.manager.load(list(made))["tasks"]
        return tasks

    def _small_manager(self) -> Any:
        """Without lm-eval's own tasks, which takes a tenth of the time; None if something that was asked for may need them."""
        from lm_eval.tasks import TaskManager

        folders = [*task_folders(), *self._include_path]
        manager = TaskManager(include_path=folders, include_defaults=False, metadata=self._metadata_of_model)
        known = manager.all_subtasks if self._include_path else manager.task_index  # a group of the user may hold any task
        return manager if set(self._asked) <= set(known) else None

    def _full_manager(self) -> Any:
        from lm_eval.tasks import TaskManager

        return TaskManager(include_path=self._include_path or None, metadata=self._metadata_of_model)

    def _matched(self) -> list[str]:
        """Names, in the order and without the repetitions of lm-eval's command line."""
        names: dict[str, None] = {}
        for name in self._asked:
            matches = self.manager.match_tasks([name])
            if not matches:
                raise UnknownNameError(
                    f"no task named {shown(name)}.{did_you_mean(name, self.manager.all_tasks)} lm_eval ls tasks lists them"
                )
            names |= dict.fromkeys(matches)
        return list(names)


class MadeTasks:
    """A task manager of lm-eval for tasks that are made already: to load them draws no random numbers.

    lm-eval draws from Python's generator whenever it reads the name of a task. Here, scoring goes on from where making the tasks has left
    the generator, as in a process of its own.
    """

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def load(self, tasks: Any) -> Any:
        before = random.getstate()
        loaded = self._manager.load(tasks)
        random.setstate(before)
        return loaded

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)


@dataclass(frozen=True)
class Requests:
    """How much a trial asks a model."""

    count: int
    prompts: int
    """Different prompts: the answers to one prompt share a forward pass where they are one token long."""
    characters: int
    """Of the different prompts."""

    @classmethod
    def of(cls, tasks: Mapping[str, Any], shares: Mapping[str, float] | None = None) -> Requests:
        """Counts the requests of tasks.

        Args:
            shares: by task, the share of its requests that were made, where not all were.
        """
        count = prompts = characters = 0.0
        for name, task in tasks.items():
            share = (shares or {}).get(name, 1.0)
            different = {(instance.doc_id, str(instance.args[0])) for instance in task.instances}
            count += len(task.instances) / share
            prompts += len(different) / share
            characters += sum(len(prompt) for _, prompt in different) / share
        return cls(round(count), round(prompts), round(characters))


class Items:
    """The tasks of a sweep for one model, and digests of what they ask.

    Trials share the tasks. Tasks whose items hang on the global random generators are made anew for each trial, which then asks what a
    process of its own would ask.

    Args:
        text: what trials measure their perplexity on, if they do.

    Raises:
        TaskError: a task cannot be made.
    """

    def __init__(self, catalogue: Catalogue, pretrained: str, sweep: Sweep, text: Corpus | None = None) -> None:
        self.catalogue, self._pretrained = catalogue, pretrained
        self._sweep, self.text = sweep, text
        set_seeds()
        before = random_state()
        self._made = catalogue.load(pretrained)
        self._words = words_drawn(before, random_state())
        self.digests = self._digests(self._made)
        tasks = catalogue.tasks(self._made)
        self.requests = Requests.of(tasks)
        for task in tasks.values():
            task.build_all_requests = KeptRequests(task)
        self.depends_on_model = not all(_ignores_model(task) for task in tasks.values())

    @cached_property
    def draws(self) -> bool:
        """Whether other seeds change what the tasks ask, or making them changes more than the place in Python's generator.

        That place alone does not tell: lm-eval draws whenever it reads the name of a task.
        """
        if self._words is None:
            return True
        before = random_state()
        set_seeds(plus=1)
        digests = self._digests(self.catalogue.load(self._pretrained))
        set_random_state(before)
        return digests != self.digests

    def _digests(self, made: Sequence[Any]) -> dict[str, str]:
        """Makes the requests of tasks, and their digests."""
        tasks = self.catalogue.tasks(made)
        for name, task in tasks.items():
            make_requests(name, task, self._sweep, self._sweep.limit)
        return {name: digest(task, self._sweep.evaluation()) for name, task in tasks.items()}

    def for_trial(self) -> list[Any]:
        """The tasks and groups for one call of ``simple_evaluate``.

        Raises:
            TaskError: a task cannot be made.
        """
        if self._words is None or self.draws:
            return self.catalogue.load(self._pretrained)
        for _ in range(self._words):  # the generator goes on from where making the tasks would leave it
            random.getrandbits(32)
        return self._made

    def digests_of(self, task_hashes: Mapping[str, str]) -> dict[str, str]:
        """The digests of what a trial asked.

        Args:
            task_hashes: lm-eval's digests of the items of the trial.
        """
        return {name: hashlib.sha256(f"{value} {task_hashes[name]}".encode()).hexdigest()[:16] for name, value in self.digests.items()}


def digest(task: Any, evaluation: Mapping[str, Any]) -> str:
    """SHA-256 of what a task asks a model and of how it scores the answers, as 16 hexadecimal digits.

    Args:
        task: with its requests.
        evaluation: what differs from lm-eval's defaults in how prompts are made.
    """
    config = {name: value for name, value in task.dump_config().items() if name not in ("metadata", "dataset_kwargs")}
    text = json.dumps(config | ({"evaluation": evaluation} if evaluation else {}), sort_keys=True, default=str)
    sha = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", text).encode())
    sha.update(str(task.VERSION).encode())
    for instance in task.instances:
        asked = [instance.request_type, instance.doc_id, instance.idx, instance.repeats, instance.args, instance.doc]
        sha.update(json.dumps(asked, sort_keys=True, default=str).encode())
    return sha.hexdigest()[:16]


def make_requests(name: str, task: Any, sweep: Sweep, limit: float | None) -> None:
    """Makes the requests of a task for its digest and for the estimate: without a chat template, which only a loaded model has."""
    from lm_eval.defaults import DEFAULT_OTHER_SEED
    from lm_eval.evaluator_utils import get_sample_size

    shots = task.get_config("num_fewshot")
    if shots is None or (shots and sweep.num_fewshot is not None):  # as simple_evaluate
        task.set_config(key="num_fewshot", value=sweep.num_fewshot or 0)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    with _task_errors(f"task {shown(name)}"):
        task.build_all_requests(limit=get_sample_size(task, limit), rank=0, world_size=1)


@contextmanager
def _task_errors(what: str) -> Iterator[None]:
    """A task is any code: names the task in what it raises."""
    try:
        yield
    except HarnessExtError:
        raise
    except Exception as error:
        raise TaskError(f"{what}: {with_type(error)}") from error


@contextmanager
def _without_hints() -> Iterator[None]:
    """Without the warning that lm-eval gives for every task that takes --metadata."""

    def is_other(record: logging.LogRecord) -> bool:
        return "Custom kwargs can be passed" not in record.getMessage()

    logger = logging.getLogger("lm_eval.api.task")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _ignores_model(task: Any) -> bool:
    """Whether the name of the model, which lm-eval passes to functions that make data sets, cannot change the items."""
    custom = task.config.custom_dataset
    return custom is None or getattr(custom, "__module__", "") in SOURCES
