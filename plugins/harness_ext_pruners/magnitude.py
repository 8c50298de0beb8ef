"""Magnitude pruning."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from harness_ext import Pruner


class Magnitude(Pruner):
    """Removes the weights of smallest magnitude. Weights are compared in the matrix (default) or in each row."""

    name: ClassVar[str] = "magnitude"
    per: Literal["matrix", "row"] = "matrix"

    def score(self, weight: torch.Tensor, statistic: None) -> torch.Tensor:
        return weight.abs()

    def compared_within(self) -> Literal["matrix", "row"]:
        return self.per
