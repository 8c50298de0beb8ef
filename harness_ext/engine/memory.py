"""Returns freed memory to the operating system."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch


def give_back() -> None:
    """Returns freed memory to the operating system. The C library keeps freed pieces below 32 MB, and they add up from block to block."""
    with suppress(OSError, AttributeError, TypeError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def pinned_given_back(device: torch.device) -> Iterator[None]:
    """Returns pinned memory at the end of the context, if this torch can. It keeps that memory for later copies to a CUDA device.

    Args:
        device: the one that computes.
    """
    try:
        yield
    finally:
        empty = getattr(torch.accelerator, "empty_host_cache", None)
        if device.type == "cuda" and empty is not None:
            empty()
