"""Grids of quantised weights: evenly spaced values around a zero point that is on the grid."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch

N = TypeVar("N", int, float)

SCALE_BITS = 16
"""What a scale counts in the size of a model."""


class Grid(NamedTuple):
    """The values ``(code - zero_point) * scale`` for the codes 0 to ``2**bits - 1``. The value 0 is always among them.

    Examples:
        >>> import torch
        >>> from harness_ext import Grid
        >>> weight = torch.tensor([[-0.5, 0.1, 0.3, 1.0]])
        >>> grid = Grid.of(weight, bits=2)
        >>> grid.codes(weight)
        tensor([[0., 1., 2., 3.]])
        >>> grid.values(grid.codes(weight))
        tensor([[-0.5000,  0.0000,  0.5000,  1.0000]])
    """

    scales: torch.Tensor
    """The distance between neighbouring values, above 0. Any shape that broadcasts with the weights."""
    zero_points: torch.Tensor
    """The codes of the value 0: whole numbers in [0, 2**bits), of the shape and dtype of ``scales``."""
    bits: int
    """The bits of a code."""

    @classmethod
    def of(cls, weights: torch.Tensor, bits: int, *, symmetric: bool = False, dim: int = 1) -> Grid:
        """The grid from the smallest to the largest weight and 0, as in the code of GPTQ (arXiv 2210.17323).

        Args:
            weights: the weights of a group, floating. There is one grid for each index of the other dimension.
            symmetric: put the zero point at ``2**(bits - 1)``. The scale is then ``2 * max|w| / (2**bits - 1)``, so that the largest
                positive weight may be rounded down by up to half a step.
            dim: the dimension of the weights that share a grid. It has size 1 in the grid.
        """
        highest = 2**bits - 1
        low, high = weights.amin(dim, keepdim=True).clamp(max=0), weights.amax(dim, keepdim=True).clamp(min=0)
        if symmetric:
            scales = torch.maximum(-low, high) * 2 / highest
            zero_points = torch.full_like(scales, 2 ** (bits - 1))
        else:
            scales = (high - low) / highest
            zero_points = torch.zeros_like(scales)
        scales = scales.masked_fill(scales == 0, 1).clamp(min=torch.finfo(scales.dtype).tiny)
        return cls(scales, zero_points if symmetric else torch.round(-low / scales), bits)

    def codes(self, weights: torch.Tensor) -> torch.Tensor:
        """The codes of the nearest values, as whole numbers in the dtype of the weights. Halves go to the even number."""
        return torch.round(weights / self.scales).add_(self.zero_points).clamp_(0, 2**self.bits - 1)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """The values of codes."""
        return (codes - self.zero_points) * self.scales


def stored_bits(size: int, zeros: int, bits: N) -> N:
    """The bits that ``size`` numbers of ``bits`` bits take, of which ``zeros`` were removed.

    The cheaper of two forms: all numbers, or those that are left and one bit a number that says which they are.
    """
    return min(size * bits, (size - zeros) * bits + size) if zeros else size * bits
