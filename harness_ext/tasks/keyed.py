"""Keys of the lookup tasks with a dial, and how a prompt writes a key with its value."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from harness_ext.errors import BadOptionError, did_you_mean, shown
from harness_ext.tasks.lookup import DIGITS, VALUES
from harness_ext.tasks.words import read_categories

KINDS = ("digits", "words")


def check_kind(name: str, value: Any) -> None:
    """Checks an option for the kind of keys.

    Raises:
        BadOptionError: there is no such kind.
    """
    if value not in KINDS:
        raise BadOptionError(f"{name}={shown(value)}: want {' or '.join(KINDS)}.{did_you_mean(str(value), KINDS)}")


def check_enough_keys(name: str, kind: str, needed: int) -> None:
    """Checks that there are enough different keys.

    Args:
        name: the options that need them, for the error.

    Raises:
        BadOptionError: there are too few.
    """
    most = len(words()) if kind == "words" else 10**DIGITS
    if needed > most:
        raise BadOptionError(f"{name}: {needed} keys: there are {most} different keys of {kind}")


@lru_cache(maxsize=1)
def words() -> tuple[str, ...]:
    """The words that are keys: all words of the package's categories that are not values."""
    return tuple(word for category in read_categories(None).values() for word in category if word not in VALUES)


def draw_keys(rng: np.random.RandomState, kind: str, count: int) -> list[str]:
    """Draws different keys: three digits, as in the ``kv`` tasks, or a word."""
    if kind == "words":
        return [words()[place] for place in rng.permutation(len(words()))[:count]]
    return [", ".join(f"{number:0{DIGITS}}") for number in rng.permutation(10**DIGITS)[:count].tolist()]


def render(kind: str, pairs: Sequence[tuple[str, str]], query: str) -> str:
    """The prompt: each key with its value, then the key that is asked for."""
    if kind == "words":
        return "\n".join([*(f"{key} -> {value}" for key, value in pairs), f"{query} ->"])
    return "\n\n".join([*(f"Key: {key}\nValue: {value}" for key, value in pairs), f"Key: {query}\nValue:"])
