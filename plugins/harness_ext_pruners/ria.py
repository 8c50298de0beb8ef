"""Relative importance and activations (Zhang et al., ICLR 2024, openreview.net/forum?id=Tr0lPx9woF)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from harness_ext import BadOptionError, ChannelNorms, Pruner


class RIA(Pruner):
    """Scores a weight by its share of its input channel and of its output, times a power of the L2 norm of the input channel.

    ``(|W_ij| / sum_k |W_kj| + |W_ij| / sum_k |W_ik|) * ||X_j||_2^power``, compared within the matrix (the default) or within each row.
    A channel or an output whose weights are all zero has no shares: they count as zero.
    """

    name: ClassVar[str] = "ria"
    statistic: ClassVar[type[ChannelNorms]] = ChannelNorms
    power: float = 0.5
    per: Literal["matrix", "row"] = "matrix"

    def __post_init__(self) -> None:
        if not 0 <= self.power < float("inf"):
            raise BadOptionError(f"pruner.power={self.power}: want a power of the channel's norm of at least 0, such as 0.5")

    def score(self, weight: torch.Tensor, statistic: ChannelNorms) -> torch.Tensor:
        size = weight.abs()
        shares = sum(torch.where(total > 0, size / total, 0) for total in (size.sum(0, keepdim=True), size.sum(1, keepdim=True)))
        return shares * statistic.norms**self.power

    def compared_within(self) -> Literal["matrix", "row"]:
        return self.per
