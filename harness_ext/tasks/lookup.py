"""Key-value lookup: retrieval from the prompt alone, by length.

After the key-value task of Liu et al. (arXiv 2307.03172), with keys and values that small models can read too: a key is three digits, a
value one of sixteen common words. Every key of a prompt is another one; values come again.
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
    """Distinct keys with a value each.

    Returns:
        keys: int64 [pairs, 3], digits; values: int64 [pairs], indices into ``VALUES``.
    """
    numbers = rng.permutation(10**DIGITS)[:pairs]
    keys = np.stack([numbers // 10**place % 10 for place in reversed(range(DIGITS))], axis=1)
    return keys, rng.randint(len(VALUES), size=pairs)


def render_pairs(keys: NDArray[Any], values: NDArray[Any]) -> str:
    """The prompt: one ``Key:`` and ``Value:`` for each pair; if there is a key more than values, it is the query, without its value.

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
    pairs: int = whole(32, 1, 10**DIGITS)  # as many as there are keys
    seed: int = whole(0, 0, LARGEST_SEED)


OPTION_NAMES = Options.names()
check_options = Options.check_metadata


def check_task(**metadata: Any) -> Options:
    """The options among a task's metadata; names without the prefix are ignored.

    Raises:
        BadOptionError: an unknown or impossible option.
    """
    return Options.from_metadata(metadata)


def load(**metadata: Any) -> dict[str, datasets.Dataset]:
    """The ``custom_dataset`` of the lookup tasks; arguments and errors as for :func:`check_task`."""
    import datasets

    options = check_task(**metadata)
    return {"test": datasets.Dataset.from_list([item(options, index) for index in range(options.items)])}


def item(options: Options, index: int) -> dict[str, Any]:
    """One item, a pure function of its arguments; the place of the pair that is asked for runs through all of the prompt.

    Returns:
        ``prompt``, ``choices`` (all sixteen values), ``target`` (the index of the right one) and the ``position`` of its pair, from 0.
    """
    rng = np.random.RandomState([options.seed, 0x10C4, options.pairs, index])
    keys, values = draw_pairs(rng, options.pairs)
    position = index % options.pairs
    prompt = render_pairs(np.concatenate([keys, keys[position : position + 1]]), values)
    return {"prompt": prompt, "choices": list(VALUES), "target": int(values[position]), "position": position}
