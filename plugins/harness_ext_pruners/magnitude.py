"""Magnitude pruning."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from harness_ext import Pruned, Pruner, Sparsity


class Magnitude(Pruner):
    """Removes the weights of smallest magnitude. Weights are compared in the matrix (default) or in each row."""

    name: ClassVar[str] = "magnitude"
    per: Literal["matrix", "row"] = "matrix"

    def score(self, weight: torch.Tensor, statistic: None) -> torch.Tensor:
        return weight.abs()

    def prune(self, weight: torch.Tensor, sparsity: Sparsity, statistic: None) -> torch.Tensor | Pruned:
        return weight.masked_fill(sparsity.mask(self.score(weight, statistic), self.per), 0)
