"""Copies of a key-value cache with some of its rows, each for one continuation of a prompt."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch


class CannotRepeatError(Exception):
    """A cache has states that transformers does not select with its rows."""


def select(cache: Any, rows: torch.Tensor | None = None) -> Any:
    """A copy of a cache with the given rows, which may repeat. The cache itself does not change, and neither does it if the copy grows.

    Args:
        cache: with ``layers``, as transformers has them.
        rows: int64 [rows], indices of the sequences that the cache is of; by default all.

    Raises:
        CannotRepeatError: the cache or a layer holds a recurrent state, or another one that ``batch_select_indices`` leaves as it is.
    """
    if _states(cache, "layers"):
        raise CannotRepeatError(f"its {type(cache).__name__} keeps more than its layers")
    selected = copy.copy(cache)
    selected.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in selected.layers:
        # A hybrid of attention and a recurrent state inherits a method that selects keys and values alone.
        if "batch_select_indices" not in vars(type(layer)) and _states(layer, "keys", "values"):
            raise CannotRepeatError(f"a {type(layer).__name__} of its cache keeps more than keys and values")
        if rows is not None:
            layer.batch_select_indices(rows)
    return selected


def bytes_of(cache: Any) -> int:
    """What the tensors in the layers of a cache take."""
    return sum(tensor.nbytes for tensor in _tensors(cache.layers))


def _states(owner: Any, *without: str) -> list[torch.Tensor]:
    """The tensors of one or more dimensions in all attributes but some: those that may have a row for each sequence."""
    others = {name: value for name, value in vars(owner).items() if name not in without}
    return [tensor for tensor in _tensors(others) if tensor.ndim]


def _tensors(value: Any, seen: set[int] | None = None) -> Iterator[torch.Tensor]:
    """All tensors in a value, its items and its attributes."""
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        yield value
    elif id(value) not in seen:
        seen.add(id(value))
        if isinstance(value, (list, tuple, Mapping)):
            inner = list(value.values() if isinstance(value, Mapping) else value)
        else:
            inner = [] if isinstance(value, type) else list(getattr(value, "__dict__", {}).values())
        for one in inner:
            yield from _tensors(one, seen)
