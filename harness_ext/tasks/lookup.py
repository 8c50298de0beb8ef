"""Key-value lookup: retrieval from prompts of different lengths.

The tasks follow Liu et al. (arXiv 2307.03172), with keys and values that small models can read: a key is three digits, and a value is one
of sixteen common words. All keys of a prompt differ; values repeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness_ext.tasks.options import LARGEST_SEED, MOST_ITEMS, TaskOptions, whole

if TYPE_CHECKING:
    import datasets

DIGITS = 3
VALUES = tuple("apple bird boat book door fire fish house king moon rain road ship stone sun tree".split())


def draw_pairs(rng: np.random.RandomState, pairs: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draws distinct keys, and a value for each.

    Returns:
        keys: int64 [pairs, 3], digits; values: int64 [pairs], indices into ``VALUES``.
    """
    numbers = rng.permutation(10**DIGITS)[:pairs]
    keys = np.stack([numbers // 10**place % 10 for place in reversed(range(DIGITS))], axis=1)
    return keys, rng.randint(len(VALUES), size=pairs)


def render_pairs(keys: NDArray[Any], values: NDArray[Any]) -> str:
    """The prompt: a ``Key:`` and a ``Value:`` line for each pair. If there is one more key than values, the last key is the query.

    Args:
        keys: int64 [n, 3].
        values: int64 [n] or [n - 1], indices into ``VALUES``.
    """
    lines = ["Key: " + ", ".join(map(str, key)) + "\nValue:" for key in keys.tolist()]
    shown = [f"{line} {VALUES[value]}" for line, value in zip(lines, values.tolist(), strict=False)]
    return "\n\n".join(shown + lines[len(shown) :])


class Options(TaskOptions):
    """The options of the lookup tasks, with the prefix ``lookup_``."""

    prefix: ClassVar[str] = "lookup_"
    items: int = whole(1024, 1, MOST_ITEMS)
    pairs: int = whole(32, 1, 10**DIGITS)  # the number of different keys
    seed: int = whole(0, 0, LARGEST_SEED)


check_options = Options.check_metadata


def reads(**_: Any) -> tuple[str, ...]:
    """The prefixes of the options that a task reads."""
    return (Options.prefix,)


def check_task(**metadata: Any) -> Options:
    """Reads the options in the metadata of a task. Names without the prefix are ignored.

    Raises:
        BadOptionError: an option is unknown or impossible.
    """
    return Options.from_metadata(metadata)


def count(**metadata: Any) -> int:
    """How many items a task has; arguments and errors as for :func:`check_task`."""
    return check_task(**metadata).items


def load(**metadata: Any) -> dict[str, datasets.Dataset]:
    """The ``custom_dataset`` of the lookup tasks. Arguments and errors as for :func:`check_task`."""
    import datasets

    options = check_task(**metadata)
    return {"test": datasets.Dataset.from_list([item(options, index) for index in range(options.items)])}


def item(options: Options, index: int) -> dict[str, Any]:
    """Makes one item. It depends on the arguments only. Over items, the queried pair takes every position in the prompt.

    Returns:
        ``prompt``, ``choices`` (all sixteen values), ``target`` (index of the right value) and ``position`` (of the queried pair, from 0).
    """
    rng = np.random.RandomState([options.seed, 0x10C4, options.pairs, index])
    keys, values = draw_pairs(rng, options.pairs)
    position = index % options.pairs
    prompt = render_pairs(np.concatenate([keys, keys[position : position + 1]]), values)
    return {"prompt": prompt, "choices": list(VALUES), "target": int(values[position]), "position": position}
