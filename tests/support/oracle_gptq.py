"""GPTQ and rounding to nearest in NumPy and float64, from the equations and without a Cholesky factor: each column inverts anew the
Hessian of the columns that are left (equation 2 of arXiv 2210.17323, and section 3.5 of arXiv 2301.00774 for weights that go)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from oracle import Mask, Matrix, damped, lowest, mask_of_groups, removed_of


class Row(NamedTuple):
    """The grids of one group, for each row."""

    scale: Matrix
    zero: Matrix
    bits: int

    def code(self, column: Matrix) -> Matrix:
        return np.clip(np.round(column / self.scale) + self.zero, 0, 2**self.bits - 1)

    def value(self, code: Matrix) -> Matrix:
        return (code - self.zero) * self.scale


def grid(group: Matrix, bits: int, symmetric: bool) -> Row:
    """From the smallest to the largest weight of each row of a group, and 0."""
    scales, zeros = [], []
    for row in group:
        low, high = min(0.0, *row), max(0.0, *row)
        if symmetric:
            low, high = -max(-low, high), max(-low, high)
        scale = (high - low) / (2**bits - 1) or 1.0
        scales.append(scale)
        zeros.append(2 ** (bits - 1) if symmetric else np.round(-low / scale))
    return Row(np.array(scales), np.array(zeros), bits)


def nearest(weight: Matrix, bits: int, group: int, *, symmetric: bool = False) -> Matrix:
    """The values of the nearest codes."""
    new = np.empty_like(weight)
    for start in range(0, weight.shape[1], group):
        of_group = grid(weight[:, start : start + group], bits, symmetric)
        for j in range(start, min(start + group, weight.shape[1])):
            new[:, j] = of_group.value(of_group.code(weight[:, j]))
    return new


def gptq(
    weight: Matrix,
    raw: Matrix,
    bits: int,
    group: int,
    *,
    damping: float,
    block: int = 128,
    act_order: bool = False,
    static: bool = False,
    symmetric: bool = False,
    ratio: float = 0.0,
    pattern: tuple[int, int] | None = None,
) -> tuple[Matrix, Matrix, Mask]:
    """The new weight, its codes, and the mask of what was removed.

    Args:
        raw: the Hessian, without damping.
        group: the inputs of a group.
        block: the columns among which weights to remove are chosen, for a ratio.
    """
    rows, columns = weight.shape
    dead = np.diag(raw) == 0
    order = np.argsort(-np.diag(raw), kind="stable") if act_order else np.arange(columns)
    fixed = [grid(weight[:, start : start + group], bits, symmetric) for start in range(0, columns, group)]
    hessian, dead = damped(raw, damping)[np.ix_(order, order)], dead[order]
    W = weight[:, order].astype(np.float64).copy()
    spread = [np.linalg.inv(hessian[j:, j:])[0, 0] for j in range(columns)]  # of column j, once those before are fixed
    M, values, codes = np.zeros((rows, columns), bool), np.empty_like(W), np.empty_like(W)
    gone, current = 0, fixed[0]
    for j in range(columns):
        if not pattern and j % block == 0:
            select = slice(j, min(j + block, columns))
            saliency = np.where(dead[select], 0, W[:, select] ** 2 / np.array(spread)[select])
            count = removed_of(ratio, rows * select.stop) - gone
            gone += count
            M[:, select] = np.array(lowest(saliency.flatten(), count)).reshape(saliency.shape)
        if pattern and j % pattern[1] == 0:
            select = slice(j, j + pattern[1])
            M[:, select] = mask_of_groups(np.where(dead[select], 0, W[:, select] ** 2 / np.array(spread)[select]), *pattern)
        if static:
            current = fixed[order[j] // group]
        elif j % group == 0:
            current = grid(W[:, j : j + group], bits, symmetric)
        codes[:, j] = np.where(M[:, j], current.zero, current.code(W[:, j]))
        values[:, j] = current.value(codes[:, j])
        inverse = np.linalg.inv(hessian[j:, j:])
        W[:, j:] -= np.outer((W[:, j] - values[:, j]) / inverse[0, 0], inverse[0])
    back = np.argsort(order)
    return values[:, back], codes[:, back], M[:, back]
