"""What the pruning methods should do, written from the papers in float64, without a line of the code under test.

Everything is a NumPy array [outputs, inputs] or plain Python; nothing here is meant to be fast.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]


def removed_of(ratio: float, size: int) -> int:
    """``floor(ratio * size)``, with the ratio as it is written in decimal digits."""
    return int(Decimal(str(ratio)) * size)


def lowest(scores: ArrayLike, count: int) -> list[bool]:
    """Marks the ``count`` lowest of a list, by selecting one after the other; the first of equals goes first."""
    left = list(enumerate(np.asarray(scores, dtype=np.float64).tolist()))
    marked = [False] * len(left)
    for _ in range(count):
        position, value = left[0]
        for candidate in left:
            if candidate[1] < value:
                position, value = candidate
        marked[position] = True
        left.remove((position, value))
    return marked


def mask_of_matrix(scores: Matrix, ratio: float) -> Mask:
    return np.array(lowest(scores.flatten(), removed_of(ratio, scores.size))).reshape(scores.shape)


def mask_of_rows(scores: Matrix, ratio: float) -> Mask:
    return np.array([lowest(row, removed_of(ratio, len(row))) for row in scores])


def mask_of_groups(scores: Matrix, n: int, m: int) -> Mask:
    """``n`` of every ``m`` consecutive inputs."""
    return np.array([[mark for start in range(0, len(row), m) for mark in lowest(row[start : start + m], n)] for row in scores])


def wanda_scores(weight: Matrix, inputs: Matrix) -> Matrix:
    """Equation 1 of arXiv 2306.11695, ``|W_ij| * ||X_j||_2``; inputs are [tokens, inputs]."""
    return np.array([[abs(w) * np.sqrt(np.sum(inputs[:, j] ** 2)) for j, w in enumerate(row)] for row in weight])


def ria_scores(weight: Matrix, inputs: Matrix, power: float) -> Matrix:
    """A weight's share of its column plus its share of its row, times ``||X_j||_2^power``; a share of nothing is nothing."""
    rows, columns = weight.shape
    scores = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            column, row = sum(abs(weight[k, j]) for k in range(rows)), sum(abs(weight[i, k]) for k in range(columns))
            share = (abs(weight[i, j]) / column if column else 0.0) + (abs(weight[i, j]) / row if row else 0.0)
            scores[i, j] = share * np.sqrt(np.sum(inputs[:, j] ** 2)) ** power
    return scores


def hessian(inputs: Matrix) -> Matrix:
    """Of the squared output error, averaged over the tokens: ``2/n X X^T`` in the papers' orientation."""
    return 2 / len(inputs) * sum(np.outer(token, token) for token in inputs)


def damped(matrix: Matrix, damping: float) -> Matrix:
    """``H + lambda I`` with lambda a fraction of the mean diagonal; inputs that were never there count as one on the diagonal."""
    matrix = matrix.copy()
    for j in np.flatnonzero(np.diag(matrix) == 0):
        matrix[j, j] = 1
    return matrix + damping * np.mean(np.diag(matrix)) * np.eye(len(matrix))


def sparsegpt(
    weight: Matrix, raw: Matrix, *, ratio: float = 0.0, pattern: tuple[int, int] | None = None, block: int, damping: float
) -> tuple[Matrix, Mask]:
    """Algorithm 1 of arXiv 2301.00774 with ``B = block``, and ``Bs = B`` for a ratio or ``Bs = m`` for a pattern.

    The shares of the blocks are rounded such that they add up; a multiple of ``m`` columns makes a block.

    Returns:
        the new weight and the mask of what was removed.
    """
    W, (rows, columns) = weight.astype(np.float64).copy(), weight.shape
    dead = np.diag(raw) == 0
    # H^-1 <- Cholesky(H^-1)^T: upper triangular U with U^T U = (H + lambda I)^-1
    U = np.linalg.cholesky(np.linalg.inv(damped(raw, damping))).T
    M = np.ones((rows, columns))  # 1 is kept
    B = max(block // pattern[1], 1) * pattern[1] if pattern else block
    Bs = pattern[1] if pattern else B
    done = 0
    for i in range(0, columns, B):
        end = min(i + B, columns)
        E = np.zeros((rows, end - i))
        for j in range(i, end):
            if (j - i) % Bs == 0:
                select = slice(j, min(j + Bs, end))
                saliency = np.where(dead[select], 0, W[:, select] ** 2 / np.diag(U)[select] ** 2)
                if pattern:
                    M[:, select] = ~mask_of_groups(saliency, *pattern)
                else:
                    count = removed_of(ratio, rows * end) - done
                    done += count
                    M[:, select] = ~np.array(lowest(saliency.flatten(), count)).reshape(saliency.shape)
            E[:, j - i] = W[:, j] / U[j, j]
            E[:, j - i] = (1 - M[:, j]) * E[:, j - i]
            W[:, j:end] -= np.outer(E[:, j - i], U[j, j:end])
        W[:, end:] -= E @ U[i:end, end:]
    return W * M, M == 0


def optimal_brain_surgeon(row: Matrix, matrix: Matrix, removed: int) -> Matrix:
    """The row after ``removed`` is taken out and all others make up for it: equation 3 of arXiv 2301.00774."""
    inverse = np.linalg.inv(matrix)
    return row - row[removed] / inverse[removed, removed] * inverse[removed]


def output_error(dense: Matrix, pruned: Matrix, inputs: Matrix) -> float:
    """``||W X - W' X||^2``."""
    return float(np.sum(((dense - pruned) @ inputs.T) ** 2))
