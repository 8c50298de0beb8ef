"""SparseGPT and Wanda by SparseML's wrappers of a single layer. Which layers there are and what reaches them is this package's business, so
that they work where SparseML's own walk through the model does not: GPT-2's ``Conv1D``, a choice of modules, an allocation, checkpoints.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from harness_ext import BadOptionError, NumericalError, Pruned, Pruner, Sparsity, Statistic
from harness_ext_sparseml.isolation import SparseMLMethod, sparseml

Self = TypeVar("Self", bound="_Inputs")


class _Inputs(Statistic):
    """What a wrapper of SparseML accumulates over the inputs of its layer, by its ``add_batch``."""

    wrapper: ClassVar[tuple[str, str]]  # module and class
    buffer: ClassVar[str]  # where the wrapper keeps it

    def __init__(self, in_features: int, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(in_features, device, dtype)
        self.wrapped = self.wrap(torch.zeros(1, in_features, device=device))

    @classmethod
    def wrap(cls, weight: torch.Tensor) -> Any:
        """SparseML's wrapper of a linear layer with this weight, float [out_features, in_features], which is not copied."""
        with sparseml():
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
            layer.weight = nn.Parameter(weight, requires_grad=False)
            return getattr(import_module(cls.wrapper[0]), cls.wrapper[1])("layer", layer)

    def update(self, inputs: torch.Tensor) -> None:
        self.tokens += len(inputs)
        self.wrapped.add_batch(inputs, None)

    @property
    def value(self) -> torch.Tensor:
        """float32, a copy: pruning a layer uses it up, and several layers may share it."""
        value: torch.Tensor = getattr(self.wrapped, self.buffer)
        return value.clone()

    def check(self) -> None:
        if not self.value.isfinite().all():
            raise NumericalError("the input has NaN or infinite values, or values whose squares are")


class HessianOfSparseML(_Inputs):
    """``2/n sum X X^T``, float32 [in_features, in_features]."""

    wrapper = "sparseml.modifiers.obcq.utils.sgpt_wrapper", "SparseGptWrapper"
    buffer = "H"

    @property
    def value(self) -> torch.Tensor:
        """The matrix, with next to nothing on the diagonal for inputs that were always zero: SparseML would remove all their weights, also
        those beyond what was asked for."""
        value = super().value
        diagonal = value.diagonal()
        dead = diagonal == 0
        diagonal[dead] = 1e-6 * float(diagonal.max()) or 1.0
        return value


class NormsOfSparseML(_Inputs):
    """The squared norms of the inputs over ``n``, float32 [in_features]."""

    wrapper = "sparseml.modifiers.pruning.wanda.utils.wanda_wrapper", "WandaWrapper"
    buffer = "scaler_row"


class _Layerwise(SparseMLMethod, Pruner):
    def _fasterprune(self, weight: torch.Tensor, sparsity: Sparsity, statistic: _Inputs, share: float, **settings: Any) -> Pruned:
        sparsity.check_row(weight.shape[1])
        n, m = sparsity.pattern or (0, 0)
        wrapped = statistic.wrap(weight.clone())
        setattr(wrapped, statistic.buffer, statistic.value)
        with sparseml(), torch.no_grad():
            wrapped.fasterprune(share, prunen=n, prunem=m, **settings)
        return Pruned(wrapped.layer.weight.data, self.notes)


class SparseMLWanda(_Layerwise):
    """SparseML's Wanda: magnitude times the norm of the input, compared within each row."""

    name: ClassVar[str] = "sparseml-wanda"
    statistic: ClassVar[type[NormsOfSparseML]] = NormsOfSparseML

    def prune(self, weight: torch.Tensor, sparsity: Sparsity, statistic: NormsOfSparseML) -> Pruned:
        columns = weight.shape[1]
        # SparseML takes int(columns * share): half a weight more, so that 0.29 of 100 is 29 and not 28, as binary arithmetic has it.
        return self._fasterprune(weight, sparsity, statistic, (sparsity.removed_of(columns) + 0.5) / columns)


class SparseMLSparseGPT(_Layerwise):
    """SparseML's SparseGPT: column block by column block, the remaining weights make up for those that go.

    SparseML removes one weight more than asked from each block; here it is asked for one less, so that as many go as in ``sparsegpt``.
    """

    name: ClassVar[str] = "sparseml-sparsegpt"
    statistic: ClassVar[type[HessianOfSparseML]] = HessianOfSparseML
    block_size: int = 128
    damping: float = 0.01

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise BadOptionError(f"pruner.block_size={self.block_size}: want at least one column")
        if not 0 < self.damping < float("inf"):
            raise BadOptionError(f"pruner.damping={self.damping}: want a fraction of the mean diagonal above 0, such as 0.01")
        super().__post_init__()

    def prune(self, weight: torch.Tensor, sparsity: Sparsity, statistic: HessianOfSparseML) -> Pruned:
        m = sparsity.pattern[1] if sparsity.pattern else 1
        step = max(1, self.block_size // m) * m  # a group of a pattern lies in one block
        if not sparsity.pattern and sparsity.removed_of(weight.numel()) == 0:
            return Pruned(weight.clone(), self.notes)
        return self._fasterprune(weight, sparsity, statistic, _ShareOfBlock(sparsity), blocksize=step, percdamp=self.damping)


class _ShareOfBlock(float):
    """The share to remove. SparseML multiplies it with the number of weights of each block of columns, in turn, and takes the product as
    the index of the last weight to remove.

    The product is one less than the weights that are still to be removed up to the end of the block. So the roundings of the blocks do not
    add up.
    """

    sparsity: Sparsity
    weights: int
    removed: int

    def __new__(cls, sparsity: Sparsity) -> _ShareOfBlock:
        self = super().__new__(cls, sparsity.ratio)
        self.sparsity, self.weights, self.removed = sparsity, 0, 0
        return self

    def __rmul__(self, size: int) -> int:  # type: ignore[override]
        self.weights += size
        count = min(size, max(1, self.sparsity.removed_of(self.weights) - self.removed))
        self.removed += count
        return count - 1
