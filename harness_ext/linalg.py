"""Symmetric products and factorisations; a matrix that cannot be factorised is damped more, on record, and never replaced."""

from __future__ import annotations

from typing import NamedTuple

import torch

from harness_ext.errors import NumericalError

MAX_RETRIES = 6
ESCALATION = 10.0
GRAM_BLOCK = 512  # of 3,072 columns a symmetric product in such blocks costs 7/12 of a full one, and each block is still a fast product
INVERSE_BLOCK = 256  # where halving a triangle further costs more than it saves


class InverseFactor(NamedTuple):
    """``upper`` is the upper triangular Cholesky factor of the inverse of the damped matrix: ``inverse = upper^T upper``."""

    upper: torch.Tensor
    damping: float
    """What was added to the diagonal, as a fraction of its mean."""
    retries: int
    """How many times the damping had to be raised."""


def add_gram(products: torch.Tensor, inputs: torch.Tensor) -> None:
    """Adds ``inputs^T inputs`` to the blocks of ``products`` on and above the diagonal, in place; the blocks below it are not touched.

    Args:
        products: [n, n].
        inputs: [tokens, n] of the same dtype.
    """
    for start in range(0, len(products), GRAM_BLOCK):
        stop = start + GRAM_BLOCK
        products[start:stop, start:].addmm_(inputs[:, start:stop].T, inputs[:, start:])


def inverse_factor(matrix: torch.Tensor, damping: float) -> InverseFactor:
    """Factorises the inverse of ``matrix + damping * mean(diag(matrix)) * I``.

    With ``P`` the reversal of rows and columns and ``L L^T`` the Cholesky decomposition of ``P H P``, ``R = P L P`` is upper triangular and
    ``H = R R^T``, so that ``R^-1`` is the upper factor of the inverse: one decomposition and one triangular inverse, where the way over the
    inverse itself takes two decompositions besides. Where the decomposition fails the damping is multiplied by 10, at most 6 times.

    Args:
        matrix: symmetric float32 or float64 [n, n] with a positive diagonal.

    Raises:
        NumericalError: the matrix is not finite, or cannot be factorised with any of the dampings tried.
    """
    if not matrix.isfinite().all():
        raise NumericalError("the Hessian has NaN or infinite entries")
    mean = matrix.diagonal().mean()
    tried = damping
    for retries in range(MAX_RETRIES + 1):
        damped = matrix.flip(0, 1)
        damped.diagonal().add_(tried * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper = _invert_upper(lower.flip(0, 1))
            if upper.isfinite().all():
                return InverseFactor(upper, tried, retries)
        tried *= ESCALATION
    raise NumericalError(
        f"the Hessian cannot be factorised, not even with {tried / ESCALATION:g} of its mean diagonal added to the diagonal; "
        "use more calibration samples"
    )


def _invert_upper(matrix: torch.Tensor) -> torch.Tensor:
    """The inverse of an upper triangular matrix: ``[A B; 0 C]^-1 = [A^-1, -A^-1 B C^-1; 0, C^-1]``, halved until the parts are small."""
    inverse = torch.zeros_like(matrix)

    def invert(start: int, stop: int) -> None:
        if stop - start <= INVERSE_BLOCK:
            identity = torch.eye(stop - start, dtype=matrix.dtype, device=matrix.device)
            inverse[start:stop, start:stop] = torch.linalg.solve_triangular(matrix[start:stop, start:stop], identity, upper=True)
            return
        middle = start + (stop - start) // 2
        invert(start, middle)
        invert(middle, stop)
        above = inverse[start:middle, start:middle] @ matrix[start:middle, middle:stop]
        torch.mm(above.neg_(), inverse[middle:stop, middle:stop], out=inverse[start:middle, middle:stop])

    invert(0, len(matrix))
    return inverse
