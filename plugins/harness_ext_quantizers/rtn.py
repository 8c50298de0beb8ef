"""Rounding to nearest."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from harness_ext import Quantized, Quantizer, Sparsity


class RTN(Quantizer):
    """Rounds each weight to the nearest value of its group's grid, which goes from the smallest to the largest weight and 0.

    With a sparsity, the weights of smallest magnitude in the matrix are removed first. The grid is that of the weights that are left.
    """

    name: ClassVar[str] = "rtn"

    def quantize(self, weight: torch.Tensor, bits: int, sparsity: Sparsity, statistic: Any) -> Quantized:
        return self.nearest(weight, bits, sparsity)
