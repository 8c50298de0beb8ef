"""A pruner that keeps what it was given."""

from __future__ import annotations

from typing import Any

import torch

from harness_ext import Hessian, Pruner


class Recording(Pruner):
    """Prunes by magnitude, and keeps the weight, the Hessian, its tokens and the statistic of each call in ``seen``."""

    name = "recording"
    statistic = Hessian

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["seen"] = []

    def prune(self, weight: torch.Tensor, sparsity: Any, statistic: Any) -> torch.Tensor:
        self.__dict__["seen"].append((weight, statistic.matrix, statistic.tokens, statistic))
        return weight.masked_fill(sparsity.mask(weight.abs()), 0)
