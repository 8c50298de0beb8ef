"""SparseML's magnitude pruning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn

from harness_ext import BadOptionError, ModelPruner, Sparsity, find_blocks
from harness_ext_sparseml.isolation import SparseMLMethod, sparseml
from harness_ext_sparseml.modifiers import Weights, run, schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SparseMLMagnitude(SparseMLMethod, ModelPruner):
    """SparseML's magnitude pruning, by the modifiers of its training recipes.

    A pattern such as 2:4 is SparseML's N:M mask. SparseML rounds the number of weights to the nearest, where this package rounds down.
    """

    name: ClassVar[str] = "sparseml-magnitude"
    scope: Literal["layer", "global"] = "layer"
    """Within what magnitudes are compared: each layer, or all layers together."""
    mask: Literal["unstructured", "block4"] = "unstructured"
    """``block4`` removes four consecutive inputs at a time, by the mean of their magnitudes."""

    def prune_model(
        self, model: PreTrainedModel, sparsity: Sparsity, calibration: torch.Tensor | None, modules: str = "all"
    ) -> Mapping[str, Any]:
        layers = [layer for block in find_blocks(model, modules) for layer in block.layers]
        if sparsity.pattern and (self.mask != "unstructured" or self.scope != "layer"):
            raise BadOptionError(f"sparsity={sparsity}: a pattern takes neither pruner.mask=block4 nor pruner.scope=global")
        for layer in layers:
            sparsity.check_row(layer.in_features)
        mask = f"{sparsity.pattern[1] - sparsity.pattern[0]}:{sparsity.pattern[1]}" if sparsity.pattern else self.mask
        weights = [nn.Parameter(layer.weight.contiguous()) for layer in layers]
        with sparseml():
            from sparseml.pytorch.sparsification.pruning import GlobalMagnitudePruningModifier, MagnitudePruningModifier

            modifier = GlobalMagnitudePruningModifier if self.scope == "global" else MagnitudePruningModifier
            run([modifier(params=["re:.*"], mask_type=mask, **schedule(sparsity))], Weights(weights))
        for layer, weight in zip(layers, weights, strict=True):
            layer.write(weight)
        return self.notes
