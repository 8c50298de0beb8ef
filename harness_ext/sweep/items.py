"""The tasks of a sweep and their requests, built once and given to lm-eval's ``evaluate`` anew for each trial."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness_ext.errors import BadOptionError, HarnessExtError, UnknownNameError, did_you_mean
from harness_ext.host.registration import SOURCES, check_metadata, register, task_folders
from harness_ext.sweep.dense import RandomState, random_state, same_generators, set_random_state, set_seeds


class TaskError(HarnessExtError):
    """A task that cannot be made."""


class Catalogue:
    """Looks tasks up by name, with their options.

    Args:
        names: of tasks, groups or tags, or patterns of them, as ``lm_eval --tasks`` takes them.
        metadata: options of the tasks, as ``lm_eval --metadata`` takes them.
        include_path: further folders of tasks.

    Raises:
        UnknownNameError: no such task.
        HarnessExtError: an option that no task takes, or a wrong value.
    """

    def __init__(self, names: Sequence[str], metadata: dict[str, Any], include_path: Sequence[str] = ()) -> None:
        register()
        for folder in include_path:
            if not Path(folder).is_dir():
                raise BadOptionError(f"--include-path {folder}: no such folder")
        self._asked, self._include_path = list(names), list(include_path)
        self._metadata = metadata
        check_metadata(metadata)
        # One dictionary for as long as the manager lives: ``pretrained``, which lm-eval adds from the model arguments, changes in it.
        self._given: dict[str, Any] = {"pretrained": "", **metadata}
        small = not any(re.search(r"[*?\[]", name) for name in names)
        self._manager: Any = (self._small() if small else None) or self._full()
        self.names = self._matched(self._manager)

    def load(self, pretrained: str) -> dict[str, Any]:
        """The tasks as lm-eval's ``evaluate`` takes them, with the seeds and shots that ``simple_evaluate`` would give them.

        Raises:
            TaskError: whatever a task raises.
        """
        from lm_eval.defaults import DEFAULT_OTHER_SEED

        self._given.update({"pretrained": pretrained, **self._metadata})
        try:
            with _without_hints():
                loaded: dict[str, Any] = self._manager.load(self.names)
        except HarnessExtError:
            raise
        except Exception as error:  # a task is any code
            raise TaskError(f"--tasks {','.join(self._asked)}: {type(error).__name__}: {' '.join(str(error).split())}") from error
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
        return loaded

    def _small(self) -> Any:
        """Without lm-eval's own tasks, which takes a tenth of the time; None if something that was asked for may need them."""
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=[*task_folders(), *self._include_path], include_defaults=False, metadata=self._given)
        known = manager.all_subtasks if self._include_path else manager.task_index  # a group of the user may hold any task
        return manager if set(self._asked) <= set(known) else None

    def _full(self) -> Any:
        from lm_eval.tasks import TaskManager

        return TaskManager(include_path=self._include_path or None, metadata=self._given)

    def _matched(self, manager: Any) -> list[str]:
        """Names, in the order and without the repetitions of lm-eval's command line."""
        found: dict[str, None] = {}
        for name in self._asked:
            matches = manager.match_tasks([name])
            if not matches:
                raise UnknownNameError(f"no task named {name!r}.{did_you_mean(name, manager.all_tasks)} lm_eval ls tasks lists them")
            found |= dict.fromkeys(matches)
        return list(found)


class Items:
    """The tasks of a sweep for one model, and the requests that they make, built once for all trials.

    Building draws from the global random generators if a task does. It is done again for a trial that comes to it with these in another
    state than the one before: what a process of its own would ask is what is asked.

    Args:
        limit: as for ``lm_eval --limit``.

    Raises:
        TaskError: a task cannot be made.
    """

    def __init__(self, catalogue: Catalogue, pretrained: str, limit: float | None) -> None:
        self._asked = catalogue, pretrained, limit
        set_seeds()
        self._built = _Built(*self._asked)
        self.digests = self._built.digests
        self.instances, self.characters = self._built.instances, self._built.characters
        self.depends_on_model = not all(_ignores_model(task) for task in self._built.loaded["tasks"].values())

    def fresh(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The tasks for one call of ``evaluate``, and the digests of their items; sets the random generators to where building leaves them.

        Raises:
            TaskError: a task cannot be made.
        """
        now = random_state()
        if not self._built.serves(now):
            self._built = _Built(*self._asked)
        else:
            set_random_state(self._built.state_after(now))
        return self._built.loaded, self._built.digests


class _Built:
    """Tasks whose requests are kept pickled: what a trial does to them, the next does not see."""

    def __init__(self, catalogue: Catalogue, pretrained: str, limit: float | None) -> None:
        self._before = random_state()
        self.loaded = catalogue.load(pretrained)
        tasks = self.loaded["tasks"]
        for name, task in tasks.items():
            _build(name, task, limit)
        self._after = random_state()
        self.instances = sum(len(task.instances) for task in tasks.values())
        self.characters = sum(len(str(instance.args[0])) for task in tasks.values() for instance in task.instances)
        self.digests = {name: digest(task) for name, task in tasks.items()}
        for task in tasks.values():
            task.build_all_requests = _putting_back(task, pickle.dumps(task.instances))
            task._instances = None

    def serves(self, now: RandomState) -> bool:
        """Whether building in that state of the random generators would give the same."""
        drawn = self._drawn()
        return all(same for same, at in zip(same_generators(now, self._before), drawn, strict=True) if at)

    def state_after(self, now: RandomState) -> RandomState:
        after = [new if at else old for old, new, at in zip(now, self._after, self._drawn(), strict=True)]
        return after[0], after[1], after[2], after[3]

    def _drawn(self) -> list[bool]:
        """Which of the generators building draws from."""
        return [not same for same in same_generators(self._before, self._after)]


def _build(name: str, task: Any, limit: float | None) -> None:
    from lm_eval.evaluator_utils import get_sample_size

    try:
        task.build_all_requests(limit=get_sample_size(task, limit), rank=0, world_size=1)
    except HarnessExtError:
        raise
    except Exception as error:
        raise TaskError(f"task {name!r}: {type(error).__name__}: {' '.join(str(error).split())}") from error


def _putting_back(task: Any, kept: bytes) -> Callable[..., None]:
    def build_all_requests(*, rank: int = 0, world_size: int = 1, **_: Any) -> None:
        task._instances = [instance for instance in pickle.loads(kept) if instance.doc_id % world_size == rank]

    return build_all_requests


def digest(task: Any) -> str:
    """SHA-256 of all that a task asks a model and of how it scores the answers, as 16 hexadecimal digits."""
    config = {name: value for name, value in task.dump_config().items() if name not in ("metadata", "dataset_kwargs")}
    sha = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", json.dumps(config, sort_keys=True, default=str)).encode())
    sha.update(str(task.VERSION).encode())
    for instance in task.instances:
        asked = [instance.request_type, instance.doc_id, instance.idx, instance.repeats, instance.args, instance.doc]
        sha.update(json.dumps(asked, sort_keys=True, default=str).encode())
    return sha.hexdigest()[:16]


@contextmanager
def _without_hints() -> Iterator[None]:
    """Without what lm-eval says of every task that takes --metadata."""

    def keep(record: logging.LogRecord) -> bool:
        return "Custom kwargs can be passed" not in record.getMessage()

    logger = logging.getLogger("lm_eval.api.task")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _ignores_model(task: Any) -> bool:
    """Whether the name of the model, which lm-eval hands to functions that make data sets, cannot change the items."""
    custom = task.config.custom_dataset
    return custom is None or getattr(custom, "__module__", "") in SOURCES
