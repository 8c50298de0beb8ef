"""SparseGPT (Frantar and Alistarh, arXiv 2301.00774)."""

from __future__ import annotations

from typing import ClassVar

import torch

from harness_ext import BadOptionError, Hessian, Pruned, Pruner, Sparsity, inverse_factor, lowest


class SparseGPT(Pruner):
    """Removes weights column block by column block and lets the remaining columns make up for the error (algorithm 1).

    With ``U`` the upper Cholesky factor of the inverse of the damped Hessian, the mask of a block is chosen by ``w^2 / U_jj^2`` from the
    weights as updated so far, among all rows of the block; removing ``w`` in column ``j`` changes the columns to its right by
    ``-w / U_jj * U_j``. A share of ``s`` goes from each block, so rounded that it is ``floor(s * size)`` of all the columns up to its end;
    with a pattern it is ``n`` of ``m`` inputs of every row.

    Inputs that were always zero have no say in the output: their weights have the lowest score, and those that stay keep their value.
    """

    name: ClassVar[str] = "sparsegpt"
    statistic: ClassVar[type[Hessian]] = Hessian
    block_size: int = 128
    damping: float = 0.01

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise BadOptionError(f"pruner.block_size={self.block_size}: want at least one column")
        if not 0 < self.damping < float("inf"):
            raise BadOptionError(f"pruner.damping={self.damping}: want a fraction of the mean diagonal above 0, such as 0.01")

    def prune(self, weight: torch.Tensor, sparsity: Sparsity, statistic: Hessian) -> Pruned:
        hessian = statistic.matrix
        dead = hessian.diagonal() == 0
        hessian.diagonal()[dead] = 1
        factor = inverse_factor(hessian, self.damping)
        upper, diagonal = factor.upper, factor.upper.diagonal()
        # The saliency of a weight is w^2 times this.
        importance = diagonal.square().reciprocal().masked_fill(dead, 0)
        weight = weight.clone()
        rows, columns = weight.shape
        step = self.block_size
        if sparsity.pattern:  # a group of m inputs must lie in one block
            step = max(1, step // sparsity.pattern[1]) * sparsity.pattern[1]
        removed = torch.zeros_like(weight, dtype=torch.bool)
        done = 0
        for start in range(0, columns, step):
            stop = min(start + step, columns)
            block, errors = weight[:, start:stop].clone(), torch.zeros_like(weight[:, start:stop])
            mask = removed[:, start:stop]
            if not sparsity.pattern:
                # What is still missing from the whole matrix, so that the roundings of the blocks do not add up.
                due = sparsity.removed_of(rows * stop) - done
                mask |= lowest((block.square() * importance[start:stop]).reshape(1, -1), due).view(mask.shape)
                done += due
            for j in range(start, stop):
                k = j - start
                if sparsity.pattern and k % sparsity.pattern[1] == 0:
                    ahead = slice(k, k + sparsity.pattern[1])
                    mask[:, ahead] = sparsity.mask(block[:, ahead].square() * importance[start:stop][ahead])
                error = block[:, k] * mask[:, k] / diagonal[j]
                block[:, k:] -= error[:, None] * upper[j, j:stop]
                errors[:, k] = error
            weight[:, start:stop] = block.masked_fill(mask, 0)
            weight[:, stop:] -= errors @ upper[start:stop, stop:]
        notes = {"damping": factor.damping, "damping_retries": factor.retries}
        if dead.any():
            notes["dead_inputs"] = int(dead.sum())
        return Pruned(weight, notes)
