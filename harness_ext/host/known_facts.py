"""The facts that a model knows: those that it answers closed-book, written to a file that the fact tasks can be restricted to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from harness_ext.atomic import write_file
from harness_ext.errors import BadOptionError, HarnessExtError, UnknownNameError, did_you_mean, shortened, shown


class NoKnownFactsError(HarnessExtError):
    """A model that answered none of the facts."""


def check_output(out: Path, *, force: bool) -> None:
    """Refuses a path that cannot be written to, before the model is asked anything.

    Raises:
        BadOptionError: the file exists and ``force`` is not set, its folder does not exist, or its name is none.
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


def options_from(text: str) -> dict[str, Any]:
    """Task options given as JSON.

    Raises:
        BadOptionError: not a JSON object.
    """
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadOptionError(f"--metadata {shortened(text)}: not JSON: {error}") from error
    if not isinstance(options, dict):
        raise BadOptionError(f"--metadata {shortened(text)}: want a JSON object, such as '{{\"facts_items\": 512}}'")
    return options


def load_model(name: str, arguments: str, batch_size: int) -> Any:
    """A model of lm-eval by its name there.

    Raises:
        UnknownNameError: no such model.
    """
    from lm_eval.api.registry import get_model, model_registry

    if name not in model_registry:
        raise UnknownNameError(f"no model named {shown(name)}.{did_you_mean(name, model_registry)}")
    return get_model(name).create_from_arg_string(arguments, {"batch_size": batch_size})


def closed_task(name: str, metadata: dict[str, Any]) -> Any:
    """The task of that name, made with lm-eval's own manager.

    Raises:
        UnknownNameError: no such task.
        BadOptionError: a task that does not ask closed-book for facts with ids.
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
    """Asks for every fact of a closed-book task.

    Args:
        lm: a model of lm-eval.
        task: as :func:`closed_task` gives it.
        limit: the number of facts to ask for; by default all of the task.

    Returns:
        ``known``: the ids of the facts that the model writes (exact match), in the order of the task; ``asked``: how many there were;
        ``task``, its ``options`` and the ``model`` as lm-eval records them.

    Raises:
        NoKnownFactsError: the model answered none.
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
    """Writes the list whole or not at all."""
    write_file(out, json.dumps(found, indent=1, ensure_ascii=False, default=str) + "\n")
