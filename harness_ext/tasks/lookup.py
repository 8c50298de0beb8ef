"""Key-value lookup: retrieval from the prompt alone, by length.

After the key-value task of Liu et al. (arXiv 2307.03172), with keys and values that small models can read too: a key is three digits, a
value one of sixteen common words. Every key of a prompt is another one; values come again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness_ext.errors import BadOptionError, did_you_mean

if TYPE_CHECKING:
    import datasets

PREFIX = "lookup_"
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


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the lookup tasks; each is set by ``--metadata`` or in a task's YAML, with the prefix ``lookup_``."""

    items: int = 1024
    pairs: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_value(field.name, getattr(self, field.name))


# There are a thousand keys; RandomState takes seeds of 32 bits.
_RANGES = {"items": (1, 10**6), "pairs": (1, 10**DIGITS), "seed": (0, 2**32 - 1)}
OPTION_NAMES = tuple(PREFIX + field.name for field in fields(Options))


def _check_value(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadOptionError(f"{PREFIX}{name}={value!r}: want an integer")
    least, most = _RANGES[name]
    if not least <= value <= most:
        raise BadOptionError(f"{PREFIX}{name}={value}: want {least} to {most}")


def check_options(metadata: Mapping[str, Any]) -> None:
    """Checks the names of all options that begin with ``lookup_``, and each value by itself.

    Raises:
        BadOptionError: an option that does not exist, or a value that no task could take.
    """
    for name, value in metadata.items():
        if name in OPTION_NAMES:
            _check_value(name.removeprefix(PREFIX), value)
        elif name.startswith(PREFIX):
            raise BadOptionError(f"no option {name!r}.{did_you_mean(name, OPTION_NAMES)} Options: {', '.join(OPTION_NAMES)}")


def check_task(**metadata: Any) -> Options:
    """The options among a task's metadata; names without the prefix are ignored. Errors as for :func:`check_options`."""
    check_options(metadata)
    return Options(**{name.removeprefix(PREFIX): value for name, value in metadata.items() if name in OPTION_NAMES})


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
