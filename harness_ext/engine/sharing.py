"""Learns which layers of a block read the same tensors, so that one statistic does for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from harness_ext.engine import ranks
from harness_ext.engine.calls import version_of


class _Last(NamedTuple):
    tensor: torch.Tensor
    """Kept, so that no other tensor gets its memory."""
    content: tuple[Any, ...]
    number: int
    reader: str


class Sharing:
    """Layers share a statistic if they read the same tensors with the same content, in all their calls, in all batches.

    A layer joins the layer that read the same tensor just before it. After each batch all that they read is compared, and layers that
    read other tensors are taken apart. What was measured so far is then worth nothing: the batches have to be run again.

    Args:
        owners: layers of which it is assumed that they read the same tensors: the first of them, by layer.
    """

    def __init__(self, owners: Mapping[str, str]) -> None:
        self.owners = dict(owners)
        """By layer, the first layer that reads the same tensors, in the order of the first calls."""
        self.changed = False
        """Whether layers were taken apart since the batches were begun anew."""
        self._assumed = dict(owners)
        self._known = frozenset(self.owners)
        self._last: dict[str, _Last] = {}  # by the layers that are assumed to share; those that are called are in one
        self._reads: dict[str, list[int]] = {}
        self._number = 0

    def begin(self) -> None:
        """Begins a batch."""
        self._known, self._reads, self._number = frozenset(self.owners), {}, 0

    def note(self, layer: str, inputs: torch.Tensor) -> bool:
        """Takes note of a call. True if the statistic of the layer is its own."""
        among = self._assumed.get(layer, "")
        last = self._last.get(among)
        if last is None or inputs.is_inference() or last.content != _content(inputs):  # inference tensors do not count what is written
            if last is None or last.content[0] != _memory(inputs):
                self._last.clear()
            self._number += 1
            last = self._last[among] = _Last(inputs, _content(inputs), self._number, layer)
        if layer not in self.owners:
            owner = self.owners.get(last.reader, layer)
            self.owners[layer] = layer if owner in self._known else owner
        self._reads.setdefault(layer, []).append(last.number)
        return self.owners[layer] == layer

    def end(self) -> None:
        """Ends a batch: takes apart what has read different tensors in it."""
        self._last.clear()
        parts: dict[tuple[str, tuple[int, ...]], str] = {}
        apart = {layer: parts.setdefault((owner, tuple(self._reads.get(layer, ()))), layer) for layer, owner in self.owners.items()}
        self.changed = self.changed or apart != self.owners
        self.owners = apart

    def settled(self) -> bool:
        """Whether the layers that share were the same in all batches, of all processes. Every process must call this.

        If not, they are now; all batches are to be run again.
        """
        found = ranks.gather(self.owners)
        names = list(dict.fromkeys(name for owners in found for name in owners))
        parts: dict[tuple[str | None, ...], str] = {}
        common = {name: parts.setdefault(tuple(owners.get(name) for owners in found), name) for name in names}
        own = {name: common[name] for name in self.owners}
        settled = ranks.all_true(not self.changed and own == self.owners)
        self.owners, self.changed = own, False
        return settled


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _content(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Equal for two tensors that exist at the same time only if they have the same elements."""
    return _memory(tensor), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype, version_of(tensor)
