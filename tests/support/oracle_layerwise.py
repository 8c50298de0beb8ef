"""What ``admm``, ``alps`` and ``dsnot`` should do, written from the papers in float64, without a line of the code under test.

As in ``oracle``: NumPy arrays [outputs, inputs], and slow. ``ratio`` or ``pattern`` says what to remove, ``per`` the group: matrix or row.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from oracle import Mask, Matrix, lowest, mask_of_groups, mask_of_matrix, mask_of_rows, removed_of

Pattern = tuple[int, int] | None


def scaled(raw: Matrix) -> tuple[Matrix, Matrix]:
    """The Hessian of inputs divided by their norms, and the norms; an input that was never there is left alone, with 1 on the diagonal."""
    norms = np.array([np.sqrt(raw[j, j]) or 1.0 for j in range(len(raw))])
    hessian = np.array([[raw[i, j] / norms[i] / norms[j] for j in range(len(raw))] for i in range(len(raw))])
    for j in range(len(raw)):
        hessian[j, j] = 1
    return hessian, norms


def choose(scores: Matrix, ratio: float, pattern: Pattern, per: str) -> Mask:
    """The mask of what is removed."""
    if pattern:
        return mask_of_groups(scores, *pattern)
    return mask_of_rows(scores, ratio) if per == "row" else mask_of_matrix(scores, ratio)


def gradual(scores: Matrix, ratio: float, pattern: Pattern, per: str, stage: Fraction) -> Mask:
    """The mask of an early iteration: ``s - s (1 - t/T)^3`` with ``stage = t/T``, equation of section 3.3 of arXiv 2401.02938.

    Of a pattern only weights that it would remove can go early, the lowest first.
    """
    share = 1 - (1 - stage) ** 3
    if pattern:
        allowed = mask_of_groups(scores, *pattern)
        order = [float(s) if a else np.inf for s, a in zip(scores.flatten(), allowed.flatten(), strict=True)]
        return np.array(lowest(order, int(share * int(allowed.sum())))).reshape(scores.shape)
    if per == "row":
        return np.array([lowest(row, int(share * removed_of(ratio, len(row)))) for row in scores])
    return np.array(lowest(scores.flatten(), int(share * removed_of(ratio, scores.size)))).reshape(scores.shape)


def admm(
    weight: Matrix,
    raw: Matrix,
    *,
    ratio: float = 0.0,
    pattern: Pattern = None,
    per: str = "matrix",
    rho: float,
    damping: float,
    iterations: int,
    mask_iterations: int,
    cubic: bool = True,
) -> tuple[Matrix, Mask]:
    """Algorithms 1 and 2 of arXiv 2401.02938 in its orientation, one output a column, with the equations solved anew each time."""
    dead = np.diag(raw) == 0
    XX, norms = scaled(raw)
    W = np.where(dead[:, None], 0, weight.T * norms[:, None])
    XX = XX + damping * np.eye(len(XX))
    XY = XX @ W
    U = np.zeros_like(W)
    mask = np.zeros(W.shape, dtype=bool)
    for k in range(1, iterations + 1):
        if k <= mask_iterations:
            stage = Fraction(k, mask_iterations) if cubic else Fraction(1)
            mask = gradual(np.abs(W + U).T, ratio, pattern, per, stage).T
        Z = np.where(mask, 0, W + U)
        U = U + W - Z
        W = np.linalg.solve(XX + rho * np.eye(len(XX)), XY + rho * (Z - U))
    Z = np.where(mask, 0, W + U) / norms[:, None]
    return np.where(dead, np.where(mask.T, 0, weight), Z.T), mask.T


def alps(
    weight: Matrix, raw: Matrix, *, ratio: float = 0.0, pattern: Pattern = None, per: str = "matrix", rho: float, damping: float
) -> tuple[Matrix, Mask]:
    """Algorithm 1 of arXiv 2406.07831, with the growth of rho of its appendix, one output a column, and a direct solution at the end."""
    dead = np.diag(raw) == 0
    H, norms = scaled(raw)
    dense = np.where(dead[:, None], 0, weight.T * norms[:, None])
    H = H + damping * np.eye(len(H))
    removed = supported = choose(np.abs(dense).T, ratio, pattern, per).T
    D, V = np.where(removed, 0, dense), np.zeros_like(dense)
    size, grew, shrunk = int((~removed).sum()), False, 0
    for t in range(1, 301):
        W = np.linalg.solve(H + rho * np.eye(len(H)), H @ dense - V + rho * D)
        removed = choose(np.abs(W + V / rho).T, ratio, pattern, per).T
        D = np.where(removed, 0, W + V / rho)
        V = V + rho * (W - D)
        if t % 3 == 0:
            change, supported = int((removed != supported).sum()), removed
            if change >= 0.1 * size:
                rho, grew = rho * 1.3, True
            elif change >= 0.005 * size:
                rho, grew = rho * 1.2, True
            elif change >= 1:
                rho, grew = rho * 1.1, True
            elif grew or shrunk == 4:
                break
            else:
                rho, shrunk = rho / 5, shrunk + 1
    result = np.array([least_squares(row, H, gone) for row, gone in zip(dense.T, removed.T, strict=True)]) / norms
    return np.where(dead, np.where(removed.T, 0, weight), result), removed.T


def least_squares(row: Matrix, hessian: Matrix, removed: Mask) -> Matrix:
    """The weights without the removed ones that are nearest to ``row`` in the norm of the Hessian: its normal equations."""
    kept = np.flatnonzero(~removed)
    result = np.zeros(len(row))
    if len(kept):
        result[kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], (hessian @ row)[kept])
    return result


def dsnot(
    weight: Matrix,
    inputs: Matrix,
    scores: Matrix,
    *,
    ratio: float = 0.0,
    pattern: Pattern = None,
    cycles: int = 50,
    threshold: float = 0.1,
    power: float = 1.0,
) -> Mask:
    """Algorithm 1 of arXiv 2310.08915 from the mask of ``scores``, row by row and swap by swap; inputs are [tokens, inputs]."""
    mean, variance, norm = inputs.mean(0), inputs.var(0), np.sqrt((inputs**2).sum(0))
    mask = choose(scores, ratio, pattern, "row")
    for row, gone in zip(weight, mask, strict=True):
        for _ in range(cycles):
            error = sum(w * a for w, a, g in zip(row, mean, gone, strict=True) if g)
            if abs(error) <= threshold:
                break
            sign = np.sign(error)
            droppable = [k for k in range(len(row)) if not gone[k] and sign * row[k] * mean[k] < 0]
            growable = [k for k in range(len(row)) if gone[k] and sign * row[k] * mean[k] > 0]
            if pattern:
                growable = [k for k in growable if any(d // pattern[1] == k // pattern[1] for d in droppable)]
            if not growable or not droppable:
                break
            i = max(growable, key=lambda k: sign * row[k] * mean[k] / variance[k] ** power)
            if pattern:
                droppable = [d for d in droppable if d // pattern[1] == i // pattern[1]]
            j = min(droppable, key=lambda k: abs(row[k]) * norm[k])
            if not abs(error - row[i] * mean[i] + row[j] * mean[j]) < abs(error):
                break
            gone[i], gone[j] = False, True
    return mask
