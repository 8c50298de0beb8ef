"""Finds the facts that a model answers closed-book, and writes them to a file. Fact tasks can be restricted to the facts in the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from harness_ext.atomic import write_file
from harness_ext.errors import BadOptionError, HarnessExtError, UnknownNameError, did_you_mean, shortened, shown


class NoKnownFactsError(HarnessExtError):
    """The model answered no fact."""


def check_output(out: Path, *, force: bool) -> None:
    """Checks that a path can be written, before the model is evaluated.

    Raises:
        BadOptionError: the file exists and ``force`` is not set, its folder does not exist, or the path is impossible.
    """
    try:
        out.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BadOptionError(f"--out {shortened(out)}: {error.strerror}") from error
    if os.path.exists(out) and not force:
        raise BadOptionError(f"--out {shortened(out)}: the file exists: want another path, or --force")
    if os.path.isdir(out) or not os.path.isdir(out.parent):
        raise BadOptionError(f"--out {shortened(out)}: want the path of a file in a folder that exists")


def load_model(name: str, arguments: str, batch_size: int) -> Any:
    """Loads a model of lm-eval by its name in lm-eval's registry.

    Raises:
        UnknownNameError: there is no such model.
    """
    from lm_eval.api.registry import get_model, model_registry

    if name not in model_registry:
        raise UnknownNameError(f"no model named {shown(name)}.{did_you_mean(name, model_registry)}")
    return get_model(name).create_from_arg_string(arguments, {"batch_size": batch_size})


def closed_task(name: str, metadata: dict[str, Any]) -> Any:
    """Builds a task with lm-eval's own manager.

    Raises:
        UnknownNameError: there is no such task.
        BadOptionError: the task does not ask for facts closed-book.
    """
    from lm_eval.tasks import TaskManager

    from harness_ext.tasks.qa import FactTask

    manager = TaskManager(metadata=metadata)
    if name not in manager.all_subtasks:
        raise UnknownNameError(f"no task named {shown(name)}.{did_you_mean(name, manager.all_subtasks)}")
    manager.match_tasks([name])
    task = manager.load([name])["tasks"][name]
    if not isinstance(task, FactTask) or {row["condition"] for row in task.eval_docs} != {"closed"}:
        raise BadOptionError(
            f"--task {shortened(name)}: want a task that asks for facts closed-book, such as lab_facts_closed or lre_closed"
        )
    return task


def known_facts(lm: Any, task: Any, *, limit: int | None = None) -> dict[str, Any]:
    """Asks a model for every fact of a closed-book task.

    Args:
        lm: a model of lm-eval.
        task: a task of :func:`closed_task`.
        limit: number of facts to ask for; None for all.

    Returns:
        ``known``: ids of the facts that the model answers (exact match), in the order of the task. ``asked``: number of facts. ``task``,
        its ``options``, and the ``model``, as lm-eval records it.

    Raises:
        NoKnownFactsError: the model answered no fact.
    """
    from lm_eval.evaluator import evaluate

    name = task.config.task
    results = evaluate(lm=lm, task_dict={"tasks": {name: task}, "groups": {}, "group_map": {}}, limit=limit, bootstrap_iters=0)
    samples = results["samples"][name]
    known = [sample["doc"]["id"] for sample in samples if sample["exact_match"]]
    if not known:
        raise NoKnownFactsError(
            f"{shortened(name)}: the model answers none of {len(samples)} facts: there is nothing to restrict a task to"
        )
    metadata = task.config.metadata or {}
    return {
        "known": known,
        "asked": len(samples),
        "task": name,
        "options": {option: metadata[option] for option in sorted(metadata) if option == "relations" or option.startswith("facts_")},
        "model": lm.get_model_info() if hasattr(lm, "get_model_info") else {},
    }


def write(found: dict[str, Any], out: Path) -> None:
    """Writes the whole file, or nothing."""
    write_file(out, json.dumps(found, indent=1, ensure_ascii=False, default=str) + "\n")
