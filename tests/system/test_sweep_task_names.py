"""The names in ``harness-ext sweep --tasks``: each task once, as ``TaskManager.load`` of lm-eval wants it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from refusals import raises_line
from sweeps import TASK, TASK_FUNCTIONS, prepare

from harness_ext import BadOptionError
from harness_ext.sweep.evaluation import command
from harness_ext.sweep.task_names import each_task_once

GROUPS = {
    "pair": "task: [a, b]",
    "nested": "task: [pair, c]",
    "overlapping": "task: [b, d]",
    "tagged": "task: [some, c]",
    "changed": "task:\n  - task: a\n    num_fewshot: 1\n  - d",
    "all_changed": "task: [c]\nnum_fewshot: 1",
    "inline": "task:\n  - group: own\n    task: [c, d]\n  - a",
}  # fmt: skip
NAMES = ("a", "d", *GROUPS, "some")


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from lm_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("tasks")
    (folder / "raising.py").write_text(TASK_FUNCTIONS.replace("WHEN", "False"))
    for name in "abcd":
        tag = "tag: some\n" if name in "ad" else ""
        (folder / f"{name}.yaml").write_text(tag + TASK.replace("task: raising", f"task: {name}"))
    for name, content in GROUPS.items():
        (folder / f"{name}.yaml").write_text(f"group: {name}\n{content}\n")
    return TaskManager(include_path=str(folder), include_defaults=False)


def loaded(manager: Any, names: tuple[str, ...] | list[str]) -> dict[str, Any] | None:
    """The shots of each task by name; None if lm-eval refuses the names."""
    try:
        tasks = manager.load(list(names))["tasks"]
    except ValueError:
        return None
    return {name: task.get_config("num_fewshot") for name, task in tasks.items()}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_names_are_those_that_lm_eval_takes(manager: Any, count: int) -> None:
    refused, resolved = [], []
    for names in itertools.combinations(NAMES, count):
        found = loaded(manager, names)
        try:
            once = each_task_once(manager, names, "--tasks")
        except BadOptionError as error:
            assert found is None
            refused.append(str(error))
            continue
        if found is not None:
            assert once == list(names)
            continue
        resolved.append(names)
        alone = [loaded(manager, [name]) for name in names]
        assert loaded(manager, once) == {task: shots for tasks in alone for task, shots in tasks.items()}
    assert bool(refused) == bool(resolved) == (count > 1)


def test_what_an_error_proposes_works(manager: Any) -> None:
    with raises_line(BadOptionError, "--tasks x", "pair", "overlapping", "alone") as raised:
        each_task_once(manager, ["pair", "overlapping"], "--tasks x")
    proposed = str(raised.value).rpartition(" name ")[2].split(",")
    assert loaded(manager, proposed).keys() == loaded(manager, ["a", "b", "d"]).keys()
    with raises_line(BadOptionError, "--tasks x", "changed", "options of its own"):
        each_task_once(manager, ["changed", "a"], "--tasks x")


@pytest.mark.parametrize(("asked", "held"), [(["kv_hops", "kv_hops_1"], "kv_hops"), (["word_h*"], "word_hops")])
def test_a_sweep_leaves_out_the_tasks_of_its_groups(asked: list[str], held: str) -> None:
    prepared = prepare(tasks=asked, metadata={"hops_items": 4}, sparsity=["0"])
    [items] = prepared.items.values()
    assert list(items.digests) == [f"{held}_{hops}" for hops in (1, 2, 3, 4)]
    assert f"--tasks {held} " in command(prepared.sweep, prepared.trials[0]) + " "


def test_groups_that_share_tasks_are_refused_before_their_items_are_made(tmp_path: Path) -> None:
    with raises_line(BadOptionError, "--tasks kv,in_context", "kv_4", "kv or in_context alone"):
        prepare(tasks=["kv", "in_context"], metadata={})
