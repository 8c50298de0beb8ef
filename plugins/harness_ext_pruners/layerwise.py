"""Code shared by the pruners that solve for the weights of a linear layer: inputs scaled to one norm, and the choice of a mask."""

from __future__ import annotations

from typing import NamedTuple

import torch

from harness_ext import Hessian, NumericalError, Sparsity


class Inputs(NamedTuple):
    """The inputs of a layer after a division by their norms, which the weights are multiplied by.

    The weights are then compared as in Wanda, and the Hessian has 1 on the diagonal, so that its diagonal is no preconditioner any more.
    """

    hessian: torch.Tensor
    """[in, in], symmetric; inputs that were always zero have only the 1."""
    norms: torch.Tensor
    """[in], up to a constant; 1 for inputs that were always zero."""
    dead: torch.Tensor
    """bool [in]: the inputs that were always zero."""

    def notes(self) -> dict[str, int]:
        """``dead_inputs`` for the pruning record, where there are any."""
        return {"dead_inputs": int(self.dead.sum())} if self.dead.any() else {}

    def scale(self, weight: torch.Tensor) -> torch.Tensor:
        """The weights [out, in] for the scaled inputs; 0 where the input is dead, so that they are removed first."""
        return (weight * self.norms).masked_fill(self.dead, 0)

    def unscale(self, scaled: torch.Tensor, weight: torch.Tensor, removed: torch.Tensor) -> torch.Tensor:
        """Undoes :func:`scale`. Kept weights of dead inputs have their value in ``weight``."""
        return torch.where(self.dead, weight, scaled / self.norms).masked_fill_(removed, 0)


def scale_inputs(statistic: Hessian) -> Inputs:
    """Divides the inputs by their norms.

    Raises:
        NumericalError: the Hessian is not finite.
    """
    hessian = statistic.matrix
    if not hessian.isfinite().all():
        raise NumericalError("the Hessian has NaN or infinite entries")
    dead = hessian.diagonal() == 0
    norms = hessian.diagonal().sqrt().masked_fill(dead, 1)
    hessian.div_(norms).div_(norms[:, None]).diagonal().fill_(1)
    return Inputs(hessian, norms, dead)


def removes_nothing(weight: torch.Tensor, sparsity: Sparsity, per: str) -> bool:
    """Whether the sparsity removes no weight."""
    return sparsity.removed_of(weight.shape[1] if per == "row" or sparsity.pattern else weight.numel()) == 0
