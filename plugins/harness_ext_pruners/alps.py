"""ALPS (Meng et al., arXiv 2406.07831)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from harness_ext import BadOptionError, Hessian, NumericalError, Pruned, Sparsity
from harness_ext_pruners.layerwise import Inputs, removes_nothing, scale_inputs
from harness_ext_pruners.masked_solver import MaskedSolver

RAISES = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))  # by what rho is raised where at least this share of the support has changed
LOWERING, MAX_LOWERED = 5.0, 4
ESCALATION, MAX_RETRIES = 10.0, 6


class ALPS(MaskedSolver):
    """Finds the mask by ADMM whose penalty grows as the mask settles, then solves for the weights on it (algorithm 1).

    Inputs are divided by their norms and weights multiplied by them. With ``H`` the scaled Hessian plus ``damping`` on its diagonal, which
    is 1, and ``W0`` the scaled weights, ``D`` the dense weights with the lowest set to 0 and ``V = 0`` at first, an iteration is ::

        W = (W0 H - V + rho D) (H + rho I)^-1
        D = (W + V / rho) with the entries of the lowest magnitude set to 0
        V = V + rho (W - D)

    compared within the matrix (the default) or within each row. Every ``check_every`` iterations the support of ``D`` is compared with the
    one before: where at least 10 % of it has changed ``rho`` is multiplied by 1.3, from 0.5 % on by 1.2, otherwise by 1.1, and where
    nothing has changed the search ends. If nothing has changed before ``rho`` was ever raised, the penalty is so high that it holds the
    first mask: it is divided by 5, as in the paper's public code, at most 4 times.

    The weights on the mask that was found are improved by ``solve_iterations`` steps of conjugate gradients in each row. The scaling is
    their preconditioner: the diagonal of ``H`` is constant. One eigendecomposition, in float64, serves every ``rho`` and all layers with
    the same inputs. Weights of inputs that were always zero have the lowest score, and those that stay keep their value.
    """

    name: ClassVar[str] = "alps"
    iterations: int = 300
    check_every: int = 3
    solve_iterations: int = 10
    rho: float = 0.1
    damping: float = 0.01

    def __post_init__(self) -> None:
        for option in ("iterations", "check_every"):
            if getattr(self, option) < 1:
                raise BadOptionError(f"pruner.{option}={getattr(self, option)}: want at least one iteration")
        if self.solve_iterations < 0:
            raise BadOptionError(f"pruner.solve_iterations={self.solve_iterations}: want at least 0")
        if not 0 < self.rho < float("inf"):
            raise BadOptionError(f"pruner.rho={self.rho}: want a penalty above 0, such as 0.1")
        if not 0 < self.damping < float("inf"):
            raise BadOptionError(f"pruner.damping={self.damping}: want a fraction of the diagonal above 0, such as 0.01")

    def prune_together(self, weights: Sequence[torch.Tensor], sparsities: Sequence[Sparsity], statistic: Hessian) -> list[Pruned]:
        """As ``prune``, with one eigendecomposition for all the layers.

        Raises:
            NumericalError: the Hessian is not finite, or no damping that was tried makes it positive definite.
        """
        inputs = scale_inputs(statistic)
        spectrum = _Spectrum(inputs, self.damping)
        return [self._prune(weight, sparsity, inputs, spectrum) for weight, sparsity in zip(weights, sparsities, strict=True)]

    def _prune(self, weight: torch.Tensor, sparsity: Sparsity, inputs: Inputs, spectrum: _Spectrum) -> Pruned:
        notes: dict[str, Any] = {"damping": spectrum.damping, "damping_retries": spectrum.retries} | inputs.notes()
        if removes_nothing(weight, sparsity, self.per):
            return Pruned(weight.clone(), notes)
        scaled = inputs.scale(weight)
        goal = scaled @ spectrum.hessian
        sparse, removed, iterations = self._search(scaled, goal, sparsity, spectrum)
        solution = conjugate_gradients(spectrum.hessian, goal, sparse, removed, self.solve_iterations)
        return Pruned(inputs.unscale(solution, weight, removed), notes | {"iterations": iterations})

    def _search(
        self, scaled: torch.Tensor, goal: torch.Tensor, sparsity: Sparsity, spectrum: _Spectrum
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        """The sparse weights, the mask of removed weights, and the number of iterations."""
        removed = before = sparsity.mask(scaled.abs(), self.per)
        kept = removed.numel() - int(removed.sum())
        sparse, dual = scaled.masked_fill(removed, 0), torch.zeros_like(scaled)
        rho, raised, lowered = self.rho, False, 0
        inverse = spectrum.inverse(rho)
        for iteration in range(1, self.iterations + 1):
            shifted = (goal - dual + rho * sparse) @ inverse + dual / rho
            removed = sparsity.mask(shifted.abs(), self.per)
            sparse = shifted.masked_fill(removed, 0)
            dual = rho * (shifted - sparse)
            if iteration % self.check_every:
                continue
            changed, before = int((removed != before).sum()), removed
            if changed:
                rho, raised = rho * next(factor for share, factor in RAISES if changed >= share * kept), True
            elif raised or lowered == MAX_LOWERED:
                break
            else:
                rho, lowered = rho / LOWERING, lowered + 1
            inverse = spectrum.inverse(rho)
        return sparse, removed, iteration


class _Spectrum:
    """The eigenvalues and eigenvectors of the damped Hessian of the scaled inputs.

    Raises:
        NumericalError: it is not positive definite, with any of the dampings tried.
    """

    def __init__(self, inputs: Inputs, damping: float) -> None:
        dtype = inputs.hessian.dtype
        try:
            values, vectors = torch.linalg.eigh(inputs.hessian.double())
        except RuntimeError as error:
            if "linalg" not in str(error):
                raise
            raise NumericalError(f"the Hessian has no eigendecomposition ({error}); use more calibration samples") from error
        self.damping, self.retries = damping, 0
        while not values[0] + self.damping > 0:
            if self.retries == MAX_RETRIES:
                raise NumericalError(
                    f"the Hessian is not positive definite, not even with {self.damping:g} of its diagonal added to the diagonal; "
                    "use more calibration samples"
                )
            self.damping, self.retries = self.damping * ESCALATION, self.retries + 1
        self.hessian = inputs.hessian.clone()
        self.hessian.diagonal().add_(self.damping)
        self._values, self._vectors, self._dead = (values + self.damping).to(dtype), vectors.to(dtype), inputs.dead

    def inverse(self, rho: float) -> torch.Tensor:
        """Of the damped Hessian plus ``rho`` on the diagonal; 0 in the columns of dead inputs, which eigenvectors may mix with others."""
        inverse: torch.Tensor = (self._vectors / (self._values + rho)) @ self._vectors.T
        return inverse.masked_fill_(self._dead, 0)


def conjugate_gradients(
    hessian: torch.Tensor, goal: torch.Tensor, start: torch.Tensor, removed: torch.Tensor, iterations: int
) -> torch.Tensor:
    """Improves the weights of each row for ``W H = goal`` on the entries that were not removed; the others stay as they are.

    Args:
        hessian: [in, in], positive definite.
        goal, start, removed: [out, in].

    Returns:
        [out, in]; a row whose residual is as small as rounding leaves it does not change any more.
    """
    solution = start
    residual = direction = (goal - start @ hessian).masked_fill(removed, 0)
    square = residual.square().sum(1, keepdim=True)
    enough = goal.square().sum(1, keepdim=True) * torch.finfo(goal.dtype).eps ** 2
    for _ in range(iterations):
        image = (direction @ hessian).masked_fill(removed, 0)
        curvature = (direction * image).sum(1, keepdim=True)
        step = torch.where((square > enough) & (curvature > 0), square / curvature, 0)
        solution = solution + step * direction
        residual = residual - step * image
        square, previous = residual.square().sum(1, keepdim=True), square
        direction = residual + torch.where(previous > enough, square / previous, 0) * direction
    return solution
