"""Names of tasks and groups that lm-eval can evaluate together: it takes each task once, alone or in one group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from harness_ext.errors import BadOptionError, shortened


def each_task_once(manager: Any, names: Sequence[str], asked: str) -> list[str]:
    """The names without tasks and groups that another of the groups holds as they are.

    Args:
        manager: a ``TaskManager`` of lm-eval.
        names: names of tasks, groups and tags.
        asked: what was asked for, for errors.

    Raises:
        BadOptionError: two groups have a task in common, or a group has a task with options of its own.
    """
    holders = {name: dict(_members(manager, name)) for name in names if _is_group(manager, name)}

    def is_held(name: str) -> bool:
        return any(holder != name and holders[holder].get(name) for holder in holders)

    kept: list[str] = []
    for name in names:
        tagged = _tagged(manager, name)
        if any(map(is_held, tagged)):
            kept += [task for task in tagged if not is_held(task)]
        elif not is_held(name):
            kept.append(name)
    _check_each_once(manager, kept, asked)
    return list(dict.fromkeys(kept))


def _check_each_once(manager: Any, names: Sequence[str], asked: str) -> None:
    first: dict[str, str] = {}
    for name in names:
        own = _tasks(manager, name)
        whole = name if _is_group(manager, name) else None  # the tasks of a tag are as if each was named
        if shared := [task for task in own if first.get(task, whole or task) != (whole or task)]:
            one, other = first[shared[0]], name
            if not (_is_group(manager, one) and whole):
                group, task = (other, one) if whole else (one, shared[0])
                raise BadOptionError(f"{asked}: the group {group} has {task} with options of its own: name only one of the two")
            children = [child for child, _ in _children(manager, other) if not set(_tasks(manager, child)) & first.keys()]
            rest = f", or name {','.join([one, *children])}" if children else ""
            raise BadOptionError(
                f"{asked}: {one} and {other} both have {shortened(', '.join(shared))}, and lm-eval takes a task once: "
                f"name {one} or {other} alone{rest}"
            )
        first |= {task: whole or task for task in own}


def _is_group(manager: Any, name: str) -> bool:
    entry = manager.task_index.get(name)
    return entry is not None and isinstance((entry.cfg or {}).get("task"), list)


def _children(manager: Any, name: str) -> Iterator[tuple[str, bool]]:
    """The tasks, groups and tags in a group that have names of their own, and whether they are as they would be alone."""
    config = manager.task_index[name].cfg or {}
    yield from _listed(manager, config)


def _listed(manager: Any, config: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    from lm_eval.config.group import GroupConfig

    plain = config.keys() <= {field.name for field in fields(GroupConfig)}  # other entries are options for the tasks
    for item in config["task"]:
        name = item if isinstance(item, str) else item.get("group", item.get("task"))
        if isinstance(name, str) and name in manager.task_index:
            yield name, plain and isinstance(item, str)
        elif isinstance(item, dict) and isinstance(item.get("task"), list):  # a group without a file
            yield from ((child, False) for child, _ in _listed(manager, item))


def _members(manager: Any, name: str) -> Iterator[tuple[str, bool]]:
    """All that is in a group, at any depth, as :func:`_children`."""
    for child, plain in _children(manager, name):
        yield child, plain
        yield from ((task, plain) for task in _tagged(manager, child))
        if _is_group(manager, child):
            yield from ((member, plain and as_alone) for member, as_alone in _members(manager, child))


def _tasks(manager: Any, name: str) -> list[str]:
    """The tasks that a name stands for."""
    if _is_group(manager, name):
        return [member for member, _ in _members(manager, name) if not _is_group(manager, member) and not _tagged(manager, member)]
    return _tagged(manager, name) or [name]


def _tagged(manager: Any, name: str) -> list[str]:
    """The tasks of a tag; none for a task or a group."""
    from lm_eval.tasks._index import Kind

    entry = manager.task_index.get(name)
    return sorted(task for task in entry.tags if task in manager.task_index) if entry is not None and entry.kind is Kind.TAG else []
