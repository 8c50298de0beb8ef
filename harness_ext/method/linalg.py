"""Gram matrices and Cholesky factors. If a factorisation fails, the damping is raised and recorded; nothing is substituted silently."""

from __future__ import annotations

from typing import NamedTuple

import torch

from harness_ext.errors import NumericalError

MAX_RETRIES = 6
ESCALATION = 10.0
LEAF = 192  # columns of a triangle; smaller triangles cost more time in small products than halving saves
LEAF_ON_DEVICE = 2048  # where a small product takes less time than its start
HALVES = (torch.bfloat16, torch.float16)

PART = 2**20  # elements moved at once


class InverseFactor(NamedTuple):
    """A factor of the inverse of a damped matrix: ``inverse = upper^T upper``."""

    upper: torch.Tensor
    """[n, n], upper triangular."""
    damping: float
    """The damping that was used, as a fraction of the mean diagonal."""
    retries: int
    """How often the damping was raised."""


def add_gram(products: torch.Tensor, inputs: torch.Tensor) -> None:
    """Adds the upper triangle of ``inputs^T inputs`` to ``products`` in place, for about half the work of the full product.

    The function halves the columns: the block above the diagonal is one product, and the two triangles are halved again. The entries of
    ``products`` below the diagonal are undefined afterwards.

    Args:
        products: [n, n].
        inputs: [tokens, n] of the same dtype, or of another one where :func:`multiplies_as_they_are` says so.
    """
    if len(products) <= (LEAF if products.device.type == "cpu" else LEAF_ON_DEVICE):
        _add_product(products, inputs, inputs)
        return
    middle = len(products) // 2
    _add_product(products[:middle, middle:], inputs[:, :middle], inputs[:, middle:])
    add_gram(products[:middle, :middle], inputs[:, :middle])
    add_gram(products[middle:, middle:], inputs[:, middle:])


def multiplies_as_they_are(inputs: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether the device multiplies bfloat16 or float16 inputs as they are and adds their products up in ``dtype``, which is float32.

    A product of two such numbers is exact in float32: nothing is lost against a product of inputs that were converted before.
    """
    return inputs.is_cuda and inputs.dtype in HALVES and dtype == torch.float32 and hasattr(torch.ops.aten.mm, "dtype")


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Adds ``left^T right`` to ``total`` in place."""
    if left.dtype == total.dtype:
        total.addmm_(left.T, right)
    else:
        total += torch.mm(left.T, right, out_dtype=total.dtype)


def inverse_factor(matrix: torch.Tensor, damping: float, diagonal: torch.Tensor | None = None) -> InverseFactor:
    """Factorises the inverse of ``matrix + damping * mean(diag(matrix)) * I``.

    Let ``P`` reverse rows and columns, and let ``L L^T`` be the Cholesky decomposition of ``P H P``. Then ``R = P L P`` is upper triangular
    and ``H = R R^T``, so ``R^-1`` is the upper factor of the inverse. This takes one decomposition and one triangular inverse; computing
    the inverse first takes two decompositions more. If the decomposition fails, the damping is multiplied by 10, at most 6 times.
    Without damping it is tried once.

    Args:
        matrix: symmetric float32 or float64 [n, n] with a positive diagonal. Only the upper triangle is read.
        damping: a fraction of the mean diagonal.
        diagonal: [n], used instead of the diagonal of ``matrix``.

    Raises:
        NumericalError: the matrix is not finite, or no damping that was tried makes it positive definite.

    Examples:
        >>> import torch
        >>> from harness_ext import inverse_factor
        >>> factor = inverse_factor(torch.tensor([[2.0, 0.0], [0.0, 8.0]]), damping=0.0)
        >>> factor.upper.T @ factor.upper
        tensor([[0.5000, 0.0000],
                [0.0000, 0.1250]])
        >>> factor.retries
        0
    """
    reversed_diagonal = (matrix.diagonal() if diagonal is None else diagonal).flip(0)
    mean, tried = reversed_diagonal.mean(), damping
    for retries in range(MAX_RETRIES + 1 if damping else 1):
        lower = matrix.flip(0, 1).contiguous()  # its lower triangle, which the decomposition reads, is the upper triangle of the matrix
        lower.diagonal().copy_(reversed_diagonal + tried * mean)
        failed = torch.empty((), dtype=torch.int32, device=matrix.device)
        torch.linalg.cholesky_ex(lower, out=(lower, failed))
        if not failed:
            _invert_lower(lower)
            if lower.sum().isfinite():
                _reverse(lower)
                return InverseFactor(lower, tried, retries)
        if retries == 0 and not matrix.triu().isfinite().all():  # checked only after a failure: triu() copies the matrix
            raise NumericalError("the Hessian has NaN or infinite entries")
        tried *= ESCALATION
    raise NumericalError(
        f"the Hessian cannot be factorised, not even with {tried / ESCALATION:g} of its mean diagonal added to the diagonal; "
        "use more calibration samples"
    )


def _reverse(matrix: torch.Tensor) -> None:
    """Reverses the order of rows and of columns in place."""
    values = matrix.view(-1)
    for start in range(0, len(values) // 2, PART):
        stop = min(start + PART, len(values) // 2)
        head, tail = values[start:stop], values[len(values) - stop : len(values) - start]
        kept = head.flip(0)
        head.copy_(tail.flip(0))
        tail.copy_(kept)


def _invert_lower(matrix: torch.Tensor) -> None:
    """Inverts a lower triangular matrix in place: ``[A 0; B C]^-1 = [A^-1 0; -C^-1 B A^-1, C^-1]``, halved until the parts are small."""
    if len(matrix) <= LEAF:
        identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        matrix.copy_(torch.linalg.solve_triangular(matrix, identity, upper=False))
        return
    middle = len(matrix) // 2
    first, last, between = matrix[:middle, :middle], matrix[middle:, middle:], matrix[middle:, :middle]
    _invert_lower(first)
    _invert_lower(last)
    between.copy_((last @ between).neg_() @ first)
