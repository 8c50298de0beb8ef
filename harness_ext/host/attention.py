"""Which implementation of attention answers requests whose lengths differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def without_cudnn(device: torch.device) -> Iterator[None]:
    """Leaves cuDNN out of the attention on a CUDA device. The caller's setting is put back.

    cuDNN comes first there with a mask on newer GPUs, and builds a plan for each new shape. That takes longer than a pass itself, and
    nearly each pass of requests has another shape.
    """
    backends: Any = torch.backends.cuda
    if device.type != "cuda" or not backends.cudnn_sdp_enabled():
        yield
        return
    backends.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        backends.enable_cudnn_sdp(True)
