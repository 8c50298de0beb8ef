"""The hidden states of the calibration tokens between two blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from harness_ext.engine.upload import SideStream


class _OnItsWay(NamedTuple):
    batch: int
    states: torch.Tensor
    done: torch.cuda.Event


class HiddenStates:
    """The hidden states in front of a block, by batch.

    For a CUDA device they wait in pinned host memory. While one batch is computed, the next one is copied to the device and the one
    before it back, on a stream of their own. For other devices they stay where they are.

    Args:
        device: the one that computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._line = SideStream(device) if device.type == "cuda" else None
        self._kept: list[torch.Tensor] = []
        self._ahead: _OnItsWay | None = None

    def append(self, states: torch.Tensor) -> None:
        """Keeps a copy of the hidden states of one more batch."""
        self._kept.append(self._line.copy_home(states, None) if self._line else states.clone())

    def replace(self, batch: int, states: torch.Tensor) -> None:
        """Keeps a copy of new hidden states of a batch. It takes the place of the old ones in memory, if dtype and shape are the same."""
        kept = self._kept[batch]
        same = kept.dtype == states.dtype and kept.shape == states.shape
        if self._line:
            if self._ahead and self._ahead.batch == batch:
                self._ahead = None
            self._kept[batch] = self._line.copy_home(states, kept if same else None)
        elif same:
            kept.copy_(states)  # the allocator would keep freed tensors of this size and double the peak
        else:
            self._kept[batch] = states.clone()

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, batch: int) -> torch.Tensor:
        """The hidden states of a batch, on the device. Also starts to copy the next batch; after the last one, that is the first."""
        if not self._line:
            return self._kept[batch]
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.batch != batch:
            ahead = self._start(self._line, batch)
        self._line.wait(ahead.done, [ahead.states])
        if len(self) > 1:
            self._ahead = self._start(self._line, (batch + 1) % len(self))
        return ahead.states

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[batch] for batch in range(len(self)))

    def _start(self, line: SideStream, batch: int) -> _OnItsWay:
        copies, done = line.copy({"states": self._kept[batch]})
        return _OnItsWay(batch, copies["states"], done)
