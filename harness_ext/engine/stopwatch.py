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
        device: of a CUDA device, the work that was queued for it is awaited when the part changes, so that it counts for the part that
            queued it. Copies on other streams go on.
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
            torch.cuda.current_stream(self._device).synchronize()
        now = time.perf_counter()
        if self._parts:
            self.seconds[self._parts[-1]] += now - self._since
        self._since = now
