"""Measures how long each part of a run takes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up seconds by part. The time of a nested part counts for the inner part alone.

    Args:
        device: a CUDA device is synchronised when the part changes, so that queued work counts for the part that queued it.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._parts: list[str] = []
        self._since = 0.0
        self._device = device

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        self._book()
        self._parts.append(part)
        try:
            yield
        finally:
            self._book()
            self._parts.pop()

    def _book(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._parts:
            self.seconds[self._parts[-1]] += now - self._since
        self._since = now
