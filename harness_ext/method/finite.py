"""Whether a tensor has NaN or infinite values."""

from __future__ import annotations

import torch


def all_finite(tensor: torch.Tensor) -> torch.Tensor:
    """Whether no element is NaN or infinite, from the smallest and the largest one.

    It is much faster than ``isfinite().all()``, and takes no further memory. It does not wait for the device.

    Args:
        tensor: of a floating dtype and any shape.

    Returns:
        A bool tensor without dimensions, on the device of ``tensor``.
    """
    if not tensor.numel():
        return torch.ones((), dtype=torch.bool, device=tensor.device)
    smallest, largest = torch.aminmax(tensor)  # NaN if an element is
    return smallest.isfinite() & largest.isfinite()
