"""Registers our model and tasks with lm-eval. No other module changes lm-eval's registries. All functions may be called repeatedly."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness_ext.tasks.options import TaskOptions

log = logging.getLogger(__name__)

MODEL = "pruned-hf"
TARGET = "harness_ext.host.model:PrunedHFLM"

# Modules that make the items of our tasks. ``load`` is the custom_dataset. The checks run before a model is loaded.
SOURCES = tuple(f"harness_ext.tasks.{name}" for name in ("icl", "lab_facts", "lookup", "dials", "relations", "hub_facts"))


def register() -> None:
    """Registers the model and the tasks with lm-eval. Only needed if the .pth file of the package is not read (``python -S``)."""
    import lm_eval.config.evaluate_config
    import lm_eval.models  # registering before lm-eval's own models would hide them
    import lm_eval.tasks.manager  # noqa: F401

    models_imported()
    tasks_imported()
    command_line_imported()


def models_imported() -> None:
    """Adds the model to lm-eval's registry. Its module is imported on first use."""
    from lm_eval.api.registry import model_registry

    if MODEL not in model_registry:
        model_registry.register(MODEL, target=TARGET)
    _shorten_errors()


def tasks_imported() -> None:
    """Makes every TaskManager with default tasks find our tasks. Tasks in the ``include_path`` of a user take precedence."""
    from lm_eval.tasks.manager import TaskManager

    _shorten_errors()
    original = TaskManager.__init__
    if getattr(original, "_harness_ext", False):
        return

    @functools.wraps(original)
    def __init__(
        self: Any,
        verbosity: str | None = None,
        include_path: str | Path | list[str | Path] | None = None,
        include_defaults: bool = True,
        metadata: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        if metadata:
            check_metadata(metadata)
        paths = [*task_folders(), *_as_list(include_path)] if include_defaults else include_path
        original(self, verbosity, paths, include_defaults, metadata, **others)
        self.include_path = include_path

    __init__._harness_ext = True  # type: ignore[attr-defined]
    TaskManager.__init__ = __init__

    original_match = TaskManager.match_tasks

    @functools.wraps(original_match)
    def match_tasks(self: Any, task_list: list[str]) -> Any:
        names = original_match(self, task_list)
        if not names and len(task_list) == 1 and _is_run_of_ours(sys.argv):
            from harness_ext.errors import UnknownNameError, did_you_mean, shown

            hint = did_you_mean(task_list[0], self.all_tasks)
            raise UnknownNameError(f"no task named {shown(task_list[0])}.{hint} lm_eval ls tasks lists them")
        check_tasks(self, names)
        return names

    TaskManager.match_tasks = match_tasks


def command_line_imported() -> None:
    """On lm-eval's command line, says which options in ``--metadata`` no chosen task reads, before a model is loaded."""
    from lm_eval.config.evaluate_config import EvaluatorConfig

    original = EvaluatorConfig.process_tasks
    if getattr(original, "_harness_ext", False):
        return

    @functools.wraps(original)
    def process_tasks(self: Any, metadata: dict[str, Any] | None = None) -> Any:
        manager = original(self, metadata)
        warn_of_unread(manager, self.tasks, manager.metadata or {})
        return manager

    process_tasks._harness_ext = True  # type: ignore[attr-defined]
    EvaluatorConfig.process_tasks = process_tasks


def task_folders() -> list[str | Path]:
    """The task folders of all plugins that can be loaded."""
    from harness_ext.plugins import Plugins

    return [folder for folder, _ in Plugins(hooks=["register_tasks"]).task_folders]


def check_metadata(metadata: dict[str, Any]) -> None:
    """Checks the options of our tasks before a model is loaded."""
    from harness_ext.host.task_metadata import check_names

    for source in SOURCES:
        import_module(source).check_options(metadata)
    check_names(metadata)


def warn_of_unread(manager: Any, names: Iterable[Any], metadata: Mapping[str, Any]) -> None:
    """Logs which options of our tasks in ``metadata`` no chosen task reads. One list of options may serve several runs: it is no error.

    Args:
        names: all chosen tasks and groups. The configuration of a task may take the place of its name.
    """
    from harness_ext.host.task_metadata import unread

    if line := unread(metadata, _readers(manager, names)):
        log.warning(line)


def _readers(manager: Any, names: Iterable[Any]) -> Iterator[tuple[str, tuple[str, ...]] | None]:
    """What each task reads, as for :func:`harness_ext.host.task_metadata.unread`."""
    for name in names:
        entry = manager.task_index.get(name) if isinstance(name, str) else None
        if entry is None:
            yield None
            continue
        config = entry.cfg or {}
        source = _source(config)
        if source in SOURCES:
            arguments = config.get("dataset_kwargs") or {}
            yield name, import_module(source).reads(**arguments)
        elif isinstance(config.get("task"), list):
            if not all(isinstance(task, str) and task in manager.task_index for task in config["task"]):
                yield None
            yield from _readers(manager, [task for task in config["task"] if isinstance(task, str)])
        elif "task" in config and not {"custom_dataset", "class"} & config.keys():
            yield name, ()
        else:
            yield None  # a task with code of its own, or a tag


def check_tasks(manager: Any, names: Iterable[str]) -> dict[str, TaskOptions]:
    """Checks the options of our tasks. lm-eval looks up names before it loads a model, and makes items after that.

    Returns:
        The options of our tasks by name, including tasks in groups.
    """
    return {name: import_module(source).check_task(**values) for name, source, values in _ours(manager, names)}


def count_items(manager: Any, names: Iterable[str]) -> dict[str, int]:
    """How many items those tasks have that are ours, those in groups included. The items are not made; facts are read.

    Raises:
        HarnessExtError: as making the items would.
    """
    return {name: import_module(source).count(**values) for name, source, values in _ours(manager, names)}


def _ours(manager: Any, names: Iterable[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The name of each task that is ours, the module that makes its items, and the values of its options."""
    for name in names:
        config = manager.task_index[name].cfg or {}
        source = _source(config)
        if source in SOURCES:
            yield name, source, (config.get("metadata") or {}) | (manager.metadata or {}) | (config.get("dataset_kwargs") or {})
        elif "group" in config and isinstance(config.get("task"), list):
            yield from _ours(manager, [task for task in config["task"] if isinstance(task, str) and task in manager.task_index])


def _source(config: Mapping[str, Any]) -> str:
    """The module of the ``custom_dataset`` of a task. lm-eval puts the folder of the YAML before it."""
    return Path(str(config.get("custom_dataset", ""))).name.removesuffix(".load")


def _as_list(include_path: str | Path | Iterable[str | Path] | None) -> list[str | Path]:
    if not include_path:
        return []
    return [include_path] if isinstance(include_path, (str, os.PathLike)) else list(include_path)


def is_command(argv: list[str]) -> bool:
    """Whether this process is lm-eval's command line, not another program that uses lm-eval."""
    started = Path(argv[0] if argv else "")
    return started.stem.replace("-", "_") == "lm_eval" or started.parts[-2:] == ("lm_eval", "__main__.py")


def _is_run_of_ours(argv: list[str]) -> bool:
    """Whether this process is lm-eval's command line, with our model."""
    return is_command(argv) and any(word in (MODEL, f"--model={MODEL}") for word in argv)


def _shorten_errors() -> None:
    """On lm-eval's command line, prints our uncaught errors in one line, without a traceback."""
    from harness_ext.errors import HarnessExtError

    previous = sys.excepthook
    if not is_command(sys.argv) or getattr(previous, "_harness_ext", False):
        return

    def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, HarnessExtError):
            sys.stderr.write(f"{kind.__name__}: {error}\n")
        else:
            previous(kind, error, traceback)

    excepthook._harness_ext = True  # type: ignore[attr-defined]
    sys.excepthook = excepthook
