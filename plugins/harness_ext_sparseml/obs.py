"""SparseML's Optimal BERT Surgeon (Kurtic et al., arXiv 2203.07259)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn

from harness_ext import BadOptionError, ModelPruner, Sparsity, UnsupportedModelError, find_blocks
from harness_ext_sparseml.isolation import SparseMLMethod, sparseml
from harness_ext_sparseml.modifiers import Model, gradients, run, schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FOUR = 4


class SparseMLOBS(SparseMLMethod, ModelPruner):
    """SparseML's blockwise Optimal Brain Surgeon: removes what the loss misses least, by its gradients on each calibration sequence, and
    changes the remaining weights of the block to make up for it.

    Holds ``fisher_block_size`` floats for every weight, and the gradients of all weights, so it is for small models.
    """

    name: ClassVar[str] = "sparseml-obs"
    calibrated: ClassVar[bool] = True
    scope: Literal["layer", "global"] = "layer"
    """Within what scores are compared: each layer, or all layers together, which is SparseML's default."""
    mask: Literal["unstructured", "block4"] = "unstructured"
    """``block4`` removes four consecutive inputs at a time."""
    damping: float = 1e-5
    """Added to the diagonal of the Fisher matrix. SparseML's default of 1e-7 is lost in float32 where gradients are alike."""
    fisher_block_size: int = 16
    """Consecutive weights whose second derivatives are looked at together."""

    def __post_init__(self) -> None:
        if not 0 < self.damping < float("inf"):
            raise BadOptionError(f"pruner.damping={self.damping}: want a number above 0, such as 1e-5")
        if self.fisher_block_size < 1 or (self.mask == "block4" and self.fisher_block_size % FOUR):
            raise BadOptionError(f"pruner.fisher_block_size={self.fisher_block_size}: want at least 1, and a multiple of 4 for block4")
        super().__post_init__()

    def prune_model(
        self, model: PreTrainedModel, sparsity: Sparsity, calibration: torch.Tensor | None, modules: str = "all"
    ) -> Mapping[str, Any]:
        from transformers.pytorch_utils import Conv1D  # here: the list of pruners needs no transformers

        if sparsity.pattern:
            raise BadOptionError(f"sparsity={sparsity}: SparseML's OBS knows no patterns: want a ratio such as {sparsity.ratio:g}")
        if calibration is None:
            raise BadOptionError(f"pruner {self.name!r} wants calibration tokens")
        layers = [layer for block in find_blocks(model, modules) for layer in block.layers]
        if self.mask == "block4" and any(isinstance(layer.module, Conv1D) for layer in layers):
            raise UnsupportedModelError(f"pruner.mask=block4: SparseML's OBS would group the outputs of {layers[0].name}, a Conv1D")
        if part := next((layer for layer in layers if layer.place is not None), None):
            raise UnsupportedModelError(f"pruner {self.name!r} wants whole parameters, and {part.name} is a part of {part.parameter_name}")
        parameters: list[nn.Parameter] = [layer.stored for layer in layers]
        with sparseml(), torch.enable_grad(), _differentiable(model, parameters):
            from sparseml.pytorch.sparsification.pruning import OBSPruningModifier

            modifier = OBSPruningModifier(
                params=[f"pruned.{index}.weight" for index in range(len(layers))], global_sparsity=self.scope == "global",
                mask_type=self.mask, num_grads=len(calibration), damp=self.damping, fisher_block_size=self.fisher_block_size,
                **schedule(sparsity),
            )  # fmt: skip
            run([modifier], Model(model, parameters), grad_sampler=gradients(calibration, model.device))
        return self.notes


@contextmanager
def _differentiable(model: PreTrainedModel, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gradients for the given parameters alone, and all of the model in float32, which SparseML's arithmetic wants."""
    before = [(parameter, parameter.requires_grad, parameter.dtype) for parameter in model.parameters()]
    chosen = {id(parameter) for parameter in parameters}
    try:
        for parameter, _, _ in before:
            parameter.requires_grad_(id(parameter) in chosen)
            parameter.data = parameter.data.float()
        yield
    finally:
        for parameter, wanted, dtype in before:
            parameter.grad = None
            parameter.data = parameter.data.to(dtype)
            parameter.requires_grad_(wanted)
