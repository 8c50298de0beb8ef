"""The base class of ``admm`` and ``alps``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch

from harness_ext import Hessian, Pruned, Pruner, Sparsity


class MaskedSolver(Pruner, ABC):
    """Finds the mask and the remaining weights together, from the Hessian of the inputs. Subclasses override ``prune_together``."""

    statistic: ClassVar[type[Hessian]] = Hessian
    per: Literal["matrix", "row"] = "matrix"

    def compared_within(self) -> Literal["matrix", "row"]:
        return self.per

    def score(self, weight: torch.Tensor, statistic: Hessian) -> torch.Tensor:
        """``|W_ij| * ||X_j||_2``, the scores of the first mask."""
        return weight.abs() * statistic.norms

    def prune(self, weight: torch.Tensor, sparsity: Sparsity, statistic: Hessian) -> Pruned:
        return self.prune_together([weight], [sparsity], statistic)[0]

    @abstractmethod
    def prune_together(self, weights: Sequence[torch.Tensor], sparsities: Sequence[Sparsity], statistic: Hessian) -> list[Pruned]:
        """Prunes the layers that read the same inputs, and shares what depends on the inputs alone."""
