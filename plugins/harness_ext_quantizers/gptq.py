"""GPTQ (Frantar, Ashkboos, Hoefler and Alistarh, arXiv 2210.17323), also jointly with SparseGPT (arXiv 2301.00774)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch

from harness_ext import BadOptionError, Grid, Hessian, NumericalError, Quantized, Quantizer, Sparsity, inverse_factor, lowest

STRIP = 16  # columns that are corrected one after the other before the rest of their block is, by one matrix product


class GPTQ(Quantizer):
    """Rounds weights column by column and lets the remaining columns make up for the error (algorithm 1 of arXiv 2210.17323).

    With ``U`` the upper Cholesky factor of the inverse of the damped Hessian, a weight ``w`` in column ``j`` becomes the nearest value
    ``q`` of its group's grid, and the columns to its right change by ``-(w - q) / U_jj * U_j``. The grid of a group is that of its weights
    when the pass reaches the group, after all corrections by columns before.

    With a sparsity, the mask of a block of columns is chosen as in SparseGPT, by ``w^2 / U_jj^2`` from the weights as corrected so far.
    Removed weights are 0, and the others are rounded, in the same pass (section 3.5 of arXiv 2301.00774).

    Inputs that were always zero do not change the output: their weights are rounded to the nearest value, and are removed first.
    """

    name: ClassVar[str] = "gptq"
    statistic: ClassVar[type[Hessian]] = Hessian
    act_order: bool = False
    """Whether columns are taken by decreasing diagonal of the Hessian. Groups are then of inputs that follow each other in this order."""
    static_groups: bool = False
    """Whether the grids are those of the dense weights, in groups of consecutive inputs, whatever the order of the columns."""
    block_size: int = 128
    damping: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_size < 1:
            raise BadOptionError(f"pruner.block_size={self.block_size}: want at least one column")
        if not 0 < self.damping < float("inf"):
            raise BadOptionError(f"pruner.damping={self.damping}: want a fraction of the mean diagonal above 0, such as 0.01")

    def check_sparsity(self, sparsity: Sparsity) -> None:
        if sparsity.pattern and self.act_order:
            raise BadOptionError(
                f"sparsity={sparsity} with pruner.act_order=True: the groups of a pattern are of consecutive inputs: want a ratio such as "
                f"{sparsity.ratio:g}, or pruner.act_order=False"
            )
        if sparsity.pattern and isinstance(self.group_size, int) and self.group_size % sparsity.pattern[1]:
            raise BadOptionError(
                f"sparsity={sparsity} with pruner.group_size={self.group_size}: want a multiple of {sparsity.pattern[1]} inputs, or row"
            )

    def quantize(self, weight: torch.Tensor, bits: int, sparsity: Sparsity, statistic: Hessian) -> Quantized:
        return self.quantize_together([weight], bits, [sparsity], statistic)[0]

    def quantize_together(
        self, weights: Sequence[torch.Tensor], bits: int, sparsities: Sequence[Sparsity], statistic: Hessian
    ) -> Sequence[Quantized]:
        """One factorisation for all the layers, and one pass over the columns for those of one pattern, or of any ratios."""
        dead = statistic.dead
        order = None
        if self.act_order:
            matrix = statistic.matrix
            diagonal = matrix.diagonal().masked_fill(dead, 1)
            order = matrix.diagonal().argsort(descending=True, stable=True)
            factor = inverse_factor(matrix[order][:, order], self.damping, diagonal[order])
            dead = dead[order]
        else:
            factor = statistic.inverse_factor(self.damping)
        notes: dict[str, Any] = {"damping": factor.damping, "damping_retries": factor.retries}
        notes |= {"dead_inputs": int(dead.sum())} if dead.any() else {}
        results: dict[int, Quantized] = {}
        for pattern in dict.fromkeys(sparsity.pattern for sparsity in sparsities):
            chosen = [index for index, sparsity in enumerate(sparsities) if sparsity.pattern == pattern]
            layers = _Layers([weights[index] for index in chosen], [sparsities[index] for index in chosen])
            results |= dict(zip(chosen, self._sweep(layers, bits, factor.upper, dead, order, notes), strict=True))
        return [results[index] for index in range(len(weights))]

    def _sweep(
        self, layers: _Layers, bits: int, factor: torch.Tensor, dead: torch.Tensor, order: torch.Tensor | None, notes: dict[str, Any]
    ) -> Sequence[Quantized]:
        """The codes of layers that have one pattern, or none. Works on the transposed weights, one beside the other: a column of the layers
        is a row in memory then."""
        columns = torch.cat([weight.T for weight in layers.weights], dim=1)
        inputs, width = len(columns), self.width_of_group(len(columns))
        group_of = torch.arange(inputs, device=columns.device) // width  # in the order of the pass
        grids: list[Grid] = []
        if self.static_groups:
            grids = [self._grid(part, bits) for part in torch.split(columns, width)]
            group_of = group_of if order is None else group_of[order]
        columns = columns[order] if order is not None else columns.contiguous()
        codes, mask = torch.empty_like(columns, dtype=torch.uint8), torch.zeros_like(columns, dtype=torch.bool)
        pattern = layers.sparsities[0].pattern
        layers.sparsities[0].check_row(inputs)
        diagonal = factor.diagonal()
        importance = (1 / diagonal.square()).masked_fill(dead, 0)[:, None]  # the saliency of a weight is w^2 times this
        numbers, cut_at, step = group_of.tolist(), None if self.static_groups else width, pattern[1] if pattern else 1
        removes = any(sparsity.ratio > 0 for sparsity in layers.sparsities)
        removed = [0] * len(layers.weights)
        for start, stop in _blocks(inputs, self.block_size, cut_at, step):
            block = columns[start:stop]
            if removes and not pattern:
                layers.choose(mask[start:stop], block.square() * importance[start:stop], removed, stop)
            errors = torch.empty_like(block)
            for first, last in _blocks(stop - start, STRIP, cut_at, step):
                for j in range(first, last):
                    column = start + j
                    if pattern and column % step == 0:
                        saliency = block[j : j + step].square() * importance[column : column + step]
                        mask[column : column + step] = lowest(saliency.T, layers.sparsities[0].removed_of(step)).T
                    if not self.static_groups and column % width == 0:
                        grids.append(self._grid(columns[column : column + width], bits))
                    grid = grids[numbers[column]]
                    code = grid.codes(block[j])
                    if removes:
                        code = torch.where(mask[column], grid.zero_points, code)
                    codes[column] = code
                    torch.sub(block[j], grid.values(code), out=errors[j]).div_(diagonal[column])
                    if j + 1 < last:
                        block[j + 1 : last].addr_(factor[column, column + 1 : start + last], errors[j], alpha=-1)
                block[last:].addmm_(factor[start + first : start + last, start + last : stop].T, errors[first:last], alpha=-1)
            columns[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
        if not columns.isfinite().all():
            raise NumericalError("the corrected weights have NaN or infinite values")
        return layers.quantized(_Pass(codes, mask, grids, group_of, order), notes, self.static_groups)

    def _grid(self, group: torch.Tensor, bits: int) -> Grid:
        """The grids of a group of columns, one for each row; the tensors are [rows]."""
        grid = Grid.of(group, bits, symmetric=self.symmetric, dim=0)
        return Grid(grid.scales[0], grid.zero_points[0], bits)


class _Pass(NamedTuple):
    """What a pass over the columns leaves: tensors [in_features, rows of all layers], in the order of the pass."""

    codes: torch.Tensor
    mask: torch.Tensor
    grids: list[Grid]
    group_of: torch.Tensor
    order: torch.Tensor | None


class _Layers(NamedTuple):
    """Layers that read the same inputs."""

    weights: Sequence[torch.Tensor]
    sparsities: Sequence[Sparsity]

    @property
    def sizes(self) -> list[int]:
        return [len(weight) for weight in self.weights]

    def choose(self, mask: torch.Tensor, saliency: torch.Tensor, removed: list[int], stop: int) -> None:
        """Marks the weights of a block to remove, in place: what is still missing from all columns up to its end.

        Args:
            mask: bool [columns, rows].
            saliency: [columns, rows].
            removed: how many weights of each layer the blocks before removed; is updated.
            stop: the number of columns up to the end of the block.
        """
        for index, (sparsity, rows) in enumerate(zip(self.sparsities, self.sizes, strict=True)):
            if sparsity.ratio > 0:
                due = sparsity.removed_of(rows * stop) - removed[index]
                removed[index] += due
                part = torch.split(saliency, self.sizes, dim=1)[index]
                chosen = lowest(part.T.reshape(1, -1), due).view(rows, len(mask)).T
                torch.split(mask, self.sizes, dim=1)[index].copy_(chosen)

    def quantized(self, done: _Pass, notes: dict[str, Any], static_groups: bool) -> Sequence[Quantized]:
        """The result of each layer, with its inputs in their own order."""
        back = None if done.order is None else done.order.argsort()
        codes, mask = (done.codes, done.mask) if back is None else (done.codes[back], done.mask[back])
        group_of = None if back is None or static_groups else done.group_of[back]
        scales = torch.stack([grid.scales for grid in done.grids])
        zero_points = torch.stack([grid.zero_points for grid in done.grids]).to(torch.uint8)
        parts = zip(*(torch.split(tensor, self.sizes, dim=1) for tensor in (codes, scales, zero_points, mask)), strict=True)
        return [
            Quantized(codes.T, scales.T, zero_points.T, mask.T if sparsity.ratio > 0 else None, group_of, notes)
            for (codes, scales, zero_points, mask), sparsity in zip(parts, self.sparsities, strict=True)
        ]


def _blocks(count: int, size: int, group: int | None, step: int) -> Sequence[tuple[int, int]]:
    """Cuts ``count`` columns into blocks of at most ``size``, or ``step``. No group that has fewer columns begins in one and ends in
    another, and no larger group begins inside of one: a group's grid is computed from weights that all columns before have corrected.
    """
    whole = count
    if group is not None and group < count:
        whole = group if group > size else size // group * group
    cuts = []
    for start in range(0, count, whole):
        end, inner = min(start + whole, count), max(1, size // step) * step
        cuts += [(first, min(first + inner, end)) for first in range(start, end, inner)]
    return cuts
