"""Whether a tensor has NaN or infinite values."""

from __future__ import annotations

import torch

FAST = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def all_finite(tensor: torch.Tensor) -> torch.Tensor:
    """Whether no element is NaN or infinite, from the smallest and the largest one.

    It is much faster than ``isfinite().all()``, and takes no further memory. It does not wait for the device.

    Args:
        tensor: of any shape and dtype; float16, bfloat16, float32 and float64 are fast.

    Returns:
        A bool tensor without dimensions, on the device of ``tensor``.
    """
    if tensor.dtype not in FAST or not tensor.numel():
        return tensor.isfinite().all()
    smallest, largest = torch.aminmax(tensor)  # NaN if an element is
    return smallest.isfinite() & largest.isfinite()
