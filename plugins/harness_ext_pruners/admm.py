"""ADMM pruning (Boža, arXiv 2401.02938)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch

from harness_ext import BadOptionError, Hessian, Pruned, Sparsity, inverse_factor, lowest
from harness_ext_pruners.layerwise import Inputs, removes_nothing, scale_inputs
from harness_ext_pruners.masked_solver import MaskedSolver


class ADMM(MaskedSolver):
    """Finds the mask and the remaining weights together by the alternating direction method of multipliers (algorithms 1 and 2).

    Inputs are divided by their norms and weights multiplied by them. With ``H`` the scaled Hessian plus ``damping`` on its diagonal, which
    is 1, and ``W0`` the scaled weights, ``W = W0`` and ``U = 0`` at first, an iteration is ::

        Z = (W + U) with the removed weights set to 0
        U = U + W - Z
        W = (W0 H + rho (Z - U)) (H + rho I)^-1

    and the result is the last ``Z``. In each of the first ``mask_iterations`` the weights with the lowest ``|W + U|`` are removed, compared
    within the matrix (the default) or within each row; after that the mask stays. By the ``cubic`` schedule ``s (1 - (1 - t / T)^3)`` are
    removed in iteration ``t`` of these ``T``; ``constant`` removes all ``s`` from the first one on, as the paper's public code does for
    ratios of a matrix. With a pattern, those removed early are the lowest of the ``n`` of each ``m``, over the whole matrix.

    The paper has ``rho`` 1 and ``damping`` 0.1; on the layers of the embedded ``lab-m`` the defaults here leave 0.8 times their output
    error at ratios from 0.5 to 0.7. With these defaults ``constant`` is the better schedule from 0.6 on, with the paper's ``cubic`` is.

    Weights of inputs that were always zero have the lowest score, and those that stay keep their value.
    """

    name: ClassVar[str] = "admm"
    iterations: int = 20
    mask_iterations: int = 15
    rho: float = 0.3
    damping: float = 0.01
    schedule: Literal["cubic", "constant"] = "cubic"

    def __post_init__(self) -> None:
        if self.mask_iterations < 1:
            raise BadOptionError(f"pruner.mask_iterations={self.mask_iterations}: want at least one iteration, to choose a mask")
        if self.iterations < self.mask_iterations:
            raise BadOptionError(f"pruner.iterations={self.iterations}: want at least mask_iterations, which is {self.mask_iterations}")
        if not 0 < self.rho < float("inf"):
            raise BadOptionError(f"pruner.rho={self.rho}: want a penalty above 0, such as 0.3")
        if not 0 <= self.damping < float("inf"):
            raise BadOptionError(f"pruner.damping={self.damping}: want a fraction of the diagonal of at least 0, such as 0.01")

    def prune_together(self, weights: Sequence[torch.Tensor], sparsities: Sequence[Sparsity], statistic: Hessian) -> list[Pruned]:
        """As ``prune``, with one inverse for all the layers.

        Raises:
            NumericalError: the Hessian is not finite, or no damping that was tried makes it positive definite.
        """
        inputs = scale_inputs(statistic)
        factor = inverse_factor(inputs.hessian, self.damping + self.rho)
        inverse = factor.upper.T @ factor.upper
        damping = factor.damping - self.rho if factor.retries else self.damping
        inputs.hessian.diagonal().add_(damping)
        notes = {"damping": damping, "damping_retries": factor.retries} | inputs.notes()
        return [Pruned(self._solve(weight, sparsity, inputs, inverse), notes) for weight, sparsity in zip(weights, sparsities, strict=True)]

    def _solve(self, weight: torch.Tensor, sparsity: Sparsity, inputs: Inputs, inverse: torch.Tensor) -> torch.Tensor:
        if removes_nothing(weight, sparsity, self.per):
            return weight.clone()
        solution = inputs.scale(weight)
        goal = solution @ inputs.hessian
        dual = torch.zeros_like(solution)
        removed = torch.zeros_like(solution, dtype=torch.bool)
        for iteration in range(1, self.iterations + 1):
            both = solution + dual
            if iteration <= self.mask_iterations:
                removed = self._mask(both.abs(), sparsity, iteration)
            sparse = both.masked_fill(removed, 0)
            dual = both - sparse
            solution = (goal + self.rho * (sparse - dual)) @ inverse
        return inputs.unscale(solution + dual, weight, removed)

    def _mask(self, scores: torch.Tensor, sparsity: Sparsity, iteration: int) -> torch.Tensor:
        """What is removed in one of the first ``mask_iterations``: bool, of the shape of ``scores``."""
        last = self.schedule == "constant" or iteration == self.mask_iterations
        if last or sparsity.pattern:
            final = sparsity.mask(scores, self.per)
            if last:
                return final
            scores = scores.masked_fill(~final, float("inf"))
        groups = scores if self.per == "row" and not sparsity.pattern else scores.reshape(1, -1)
        due, stages = sparsity.removed_of(groups.shape[1]), self.mask_iterations**3
        return lowest(groups, due * (stages - (self.mask_iterations - iteration) ** 3) // stages).view(scores.shape)
