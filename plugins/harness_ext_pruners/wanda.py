"""Wanda (Sun et al., arXiv 2306.11695)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from harness_ext import ChannelNorms, Pruner


class Wanda(Pruner):
    """Scores a weight by its magnitude times the L2 norm of its input channel, compared within each row (equation 1)."""

    name: ClassVar[str] = "wanda"
    statistic: ClassVar[type[ChannelNorms]] = ChannelNorms
    group: ClassVar[Literal["row", "matrix"]] = "row"

    def score(self, weight: torch.Tensor, statistic: ChannelNorms) -> torch.Tensor:
        return weight.abs() * statistic.norms
