"""Random scores."""

from __future__ import annotations

from typing import ClassVar

import torch

from harness_ext import BadOptionError, Pruner, seed_for


class Random(Pruner):
    """Removes weights at random. Every method should be better than this.

    The scores of a layer depend on the seed and on the layer's weight, so two layers of one shape lose different weights.
    """

    name: ClassVar[str] = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise BadOptionError(f"pruner.seed={self.seed}: want a number of at least 0 and below 2^32")

    def score(self, weight: torch.Tensor, statistic: None) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed_for(weight, self.seed))
        return torch.rand(weight.shape, generator=generator, dtype=torch.float64).to(weight.device)
