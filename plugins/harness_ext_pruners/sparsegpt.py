"""SparseGPT (Frantar and Alistarh, arXiv 2301.00774)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from harness_ext import BadOptionError, Hessian, Pruned, Pruner, Sparsity, lowest

STRIP = 16  # columns that are corrected one after the other before the rest of their block is, by one matrix product
STRIP_ON_DEVICE = 32  # columns whose errors are solved for at once, where a kernel for each column would take longer to start than to run


class SparseGPT(Pruner):
    """Removes weights column block by column block and lets the remaining columns make up for the error (algorithm 1).

    With ``U`` the upper Cholesky factor of the inverse of the damped Hessian, the mask of a block is chosen by ``w^2 / U_jj^2`` from the
    weights as updated so far, among all rows of the block; removing ``w`` in column ``j`` changes the columns to its right by
    ``-w / U_jj * U_j``. A share of ``s`` goes from each block, so rounded that it is ``floor(s * size)`` of all the columns up to its end;
    with a pattern it is ``n`` of ``m`` inputs of every row.

    Inputs that were always zero do not change the output: their weights have the lowest score, and those that stay keep their value.
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

    def score(self, weight: torch.Tensor, statistic: Hessian) -> torch.Tensor:
        """The error that removing a weight alone leaves, ``w^2 / [H^-1]_jj`` (equation 3): compares layers, where an allocation asks."""
        upper = statistic.inverse_factor(self.damping).upper
        return weight.square() / upper.square().sum(0).masked_fill(statistic.dead, math.inf)

    def prune(self, weight: torch.Tensor, sparsity: Sparsity, statistic: Hessian) -> torch.Tensor | Pruned:
        return self.prune_together([weight], [sparsity], statistic)[0]

    def prune_together(
        self, weights: Sequence[torch.Tensor], sparsities: Sequence[Sparsity], statistic: Hessian
    ) -> Sequence[torch.Tensor | Pruned]:
        """One factorisation for all the layers, and one pass over the columns for those of one pattern, or of any ratios."""
        factor = statistic.inverse_factor(self.damping)
        notes: dict[str, Any] = {"damping": factor.damping, "damping_retries": factor.retries}
        if dead := int(statistic.dead.sum()):
            notes["dead_inputs"] = dead
        results: dict[int, torch.Tensor] = {}
        for pattern in dict.fromkeys(sparsity.pattern for sparsity in sparsities):
            chosen = [index for index, sparsity in enumerate(sparsities) if sparsity.pattern == pattern]
            pruned = self._sweep(
                [weights[index] for index in chosen], [sparsities[index] for index in chosen], factor.upper, statistic.dead
            )
            results |= dict(zip(chosen, pruned, strict=True))
        return [Pruned(results[index], notes) for index in range(len(weights))]

    def _sweep(
        self, weights: Sequence[torch.Tensor], sparsities: Sequence[Sparsity], upper: torch.Tensor, dead: torch.Tensor
    ) -> Sequence[torch.Tensor]:
        """The pruned weights of layers that have one pattern, or none. Works on the transposed weights, one beside the other: a column of
        the layers is a row in memory then."""
        sizes, pattern = [len(weight) for weight in weights], sparsities[0].pattern
        columns = torch.cat([weight.T for weight in weights], dim=1).contiguous()
        sparsities[0].check_row(len(columns))
        diagonal = upper.diagonal()
        importance = diagonal.square().reciprocal().masked_fill(dead, 0)[:, None]  # the saliency of a weight is w^2 times this
        step = max(1, self.block_size // pattern[1]) * pattern[1] if pattern else self.block_size  # a group of m lies in one block
        removed = [0] * len(weights)
        for start in range(0, len(columns), step):
            stop = min(start + step, len(columns))
            block, mask = columns[start:stop], torch.zeros_like(columns[start:stop], dtype=torch.bool)
            if not pattern:
                saliency = block.square() * importance[start:stop]
                for index, part in enumerate(torch.split(saliency, sizes, dim=1)):
                    # What is still missing from the whole matrix, so that the roundings of the blocks do not add up.
                    due = sparsities[index].removed_of(sizes[index] * stop) - removed[index]
                    removed[index] += due
                    chosen = lowest(part.T.reshape(1, -1), due).view(sizes[index], stop - start).T
                    mask[:, sum(sizes[:index]) : sum(sizes[: index + 1])] = chosen
            errors = _eliminate(block, mask, upper[start:stop, start:stop], sparsities[0], importance[start:stop])
            block.masked_fill_(mask, 0)
            columns[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
        return [part.T.contiguous() for part in torch.split(columns, sizes, dim=1)]


def _eliminate(
    block: torch.Tensor, mask: torch.Tensor, upper: torch.Tensor, sparsity: Sparsity, importance: torch.Tensor, at_once: bool | None = None
) -> torch.Tensor:
    """Removes the masked weights of a block one column after the other and corrects the columns behind, in place.

    Args:
        block: the weights, [columns, rows]; those that are removed keep their last value, and are still to be zeroed.
        mask: bool [columns, rows]; with a pattern it is chosen here, in place, from the corrected weights.
        upper: the factor, [columns, columns].
        importance: [columns, 1], see ``_sweep``.
        at_once: whether to solve for the errors of a strip at once; by default on devices other than the CPU.

    Returns:
        the errors ``w / U_jj`` of the removed weights, [columns, rows], 0 where nothing is removed.
    """
    at_once = block.device.type != "cpu" if at_once is None else at_once
    group = sparsity.pattern[1] if sparsity.pattern else 1
    strip = group if at_once and sparsity.pattern else max(1, (STRIP_ON_DEVICE if at_once else STRIP) // group) * group
    errors = torch.empty_like(block)
    diagonal = upper.diagonal()[:, None]
    for start in range(0, len(block), strip):
        stop = min(start + strip, len(block))
        if at_once:
            if sparsity.pattern:
                mask[start:stop] = _chosen(block[start:stop], sparsity, importance[start:stop])
            errors[start:stop] = _solve(block[start:stop], mask[start:stop], upper[start:stop, start:stop])
            block[start:stop].addmm_(upper[start:stop, start:stop].triu(1).T, errors[start:stop], alpha=-1)
        else:
            for j in range(start, stop):
                if sparsity.pattern and j % group == 0:
                    mask[j : j + group] = _chosen(block[j : j + group], sparsity, importance[j : j + group])
                torch.mul(block[j], mask[j], out=errors[j]).div_(diagonal[j])
                if j + 1 < stop:
                    block[j + 1 : stop].addr_(upper[j, j + 1 : stop], errors[j], alpha=-1)
        block[stop:].addmm_(upper[start:stop, stop:].T, errors[start:stop], alpha=-1)
    return errors


def _chosen(group: torch.Tensor, sparsity: Sparsity, importance: torch.Tensor) -> torch.Tensor:
    """The mask of one group of a pattern, bool [m, rows]. A weight that is not finite is found when the layer is done: to look for it here
    would wait for the device at each group."""
    return lowest((group.square() * importance).T, sparsity.removed_of(len(group))).T


def _solve(strip: torch.Tensor, mask: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    """The errors of a strip without going column by column: those of a row solve the triangular system
    ``e_j U_jj + sum_{k<j} e_k U_kj = w_j`` for its removed weights ``j``, and are 0 for the others.
    """
    removed = mask.T.to(strip.dtype)  # [rows, columns]
    systems = upper.T.tril(-1) * removed[:, :, None] + torch.diag_embed(upper.diagonal())
    errors: torch.Tensor = torch.linalg.solve_triangular(systems, (strip.T * removed)[:, :, None], upper=False)
    return errors[:, :, 0].T
