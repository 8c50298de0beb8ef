"""The in-context tasks with a dial: one option sets how difficult their items are.

Each kind of task has its options, with a prefix of its own, and a function that makes an item from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from harness_ext.errors import UnknownNameError, did_you_mean, shown
from harness_ext.tasks import counting, hops, mqar, needle, variables
from harness_ext.tasks.options import TaskOptions

if TYPE_CHECKING:
    import datasets


class Kind(NamedTuple):
    """The options of a kind of task, and the function that makes the item with a number."""

    options: type[TaskOptions]
    item: Callable[[Any, int], dict[str, Any]]


KINDS: Mapping[str, Kind] = {
    "hops": Kind(hops.Options, hops.item),
    "mqar": Kind(mqar.Options, mqar.item),
    "variables": Kind(variables.Options, variables.item),
    "counting": Kind(counting.Options, counting.item),
    "needle": Kind(needle.Options, needle.item),
}


def check_options(metadata: Mapping[str, Any]) -> None:
    """Checks each option of any kind of task by itself.

    Raises:
        BadOptionError: an option is unknown or impossible.
    """
    for kind in KINDS.values():
        kind.options.check_metadata(metadata)


def reads(dial: str, **_: Any) -> tuple[str, ...]:
    """The prefixes of the options that a task reads."""
    return (KINDS[dial].options.prefix,) if dial in KINDS else ()


def check_task(*, dial: str, **metadata: Any) -> Any:
    """Checks the options of a task, also in combination, without making its items.

    Args:
        dial: name of a kind of task; set in the task's YAML.
        metadata: metadata of the task. Names without the prefix of the kind are ignored.

    Raises:
        UnknownNameError, BadOptionError: the kind is unknown, or an option is unknown or impossible.
    """
    if dial not in KINDS:
        raise UnknownNameError(f"no dial named {shown(dial)}.{did_you_mean(dial, KINDS)} Dials: {', '.join(KINDS)}")
    return KINDS[dial].options.from_metadata(metadata)


def count(*, dial: str, **metadata: Any) -> int:
    """How many items a task has; arguments and errors as for :func:`check_task`."""
    return int(check_task(dial=dial, **metadata).items)


def load(*, dial: str, **metadata: Any) -> dict[str, datasets.Dataset]:
    """The ``custom_dataset`` of the tasks. Arguments and errors as for :func:`check_task`."""
    import datasets

    options = check_task(dial=dial, **metadata)
    return {"test": datasets.Dataset.from_list([item(dial, options, index) for index in range(options.items)])}


def item(dial: str, options: Any, index: int) -> dict[str, Any]:
    """Makes one item of a kind of task. It depends on the arguments only.

    Returns:
        ``prompt``, ``choices``, ``target`` (index of the right choice) and more columns of the kind.
    """
    return KINDS[dial].item(options, index)
