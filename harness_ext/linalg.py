"""Factorisations for second-order pruners; a matrix that cannot be factorised is damped more, on record, and never replaced."""

from __future__ import annotations

from typing import NamedTuple

import torch

from harness_ext.errors import NumericalError

MAX_RETRIES = 6
ESCALATION = 10.0


class InverseFactor(NamedTuple):
    """``upper`` is the upper triangular Cholesky factor of the inverse of the damped matrix: ``inverse = upper^T upper``."""

    upper: torch.Tensor
    damping: float
    """What was added to the diagonal, as a fraction of its mean."""
    retries: int
    """How many times the damping had to be raised."""


def inverse_factor(matrix: torch.Tensor, damping: float) -> InverseFactor:
    """Factorises the inverse of ``matrix + damping * mean(diag(matrix)) * I``.

    Where the Cholesky decomposition fails the damping is multiplied by 10, at most 6 times.

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
        damped = matrix + torch.diag_embed((tried * mean).expand(len(matrix)))
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed and upper.isfinite().all():
                return InverseFactor(upper, tried, retries)
        tried *= ESCALATION
    raise NumericalError(
        f"the Hessian cannot be factorised, not even with {tried / ESCALATION:g} of its mean diagonal added to the diagonal; "
        "use more calibration samples"
    )
