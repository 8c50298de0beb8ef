"""Whether a plan fits a model: all that the configuration and the shapes tell. The model may be without weights, on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from harness_ext.engine.allocate import allocate, check_pattern
from harness_ext.engine.layers import DecoderBlock
from harness_ext.engine.plan import Plan
from harness_ext.method.calibration import check_ids
from harness_ext.method.pruner import Pruner, StructuredPruner
from harness_ext.method.quantizer import Quantizer
from harness_ext.method.shapes import LayerShape
from harness_ext.method.sparsity import Sparsity

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_fit(plan: Plan, model: PreTrainedModel, blocks: Sequence[DecoderBlock]) -> dict[str, Sparsity] | None:
    """Checks the parts of a plan against a model.

    Args:
        plan: one that changes the model.
        blocks: all decoder blocks, with the selected layers.

    Returns:
        the sparsity of each selected layer, by its name; None where it depends on weights, or the layers become smaller instead.

    Raises:
        BadOptionError: a pattern that does not divide the inputs of a layer, sparsities that do not add up to what was asked for,
            calibration sequences that are too long, or what the pruner refuses.
        CalibrationError: token ids that are not the model's.
        UnsupportedModelError: the pruner cannot prune this model.
    """
    if plan.needs_calibration:
        if isinstance(plan.calibration, torch.Tensor):
            check_ids(plan.calibration, model, "calibration")
        else:
            plan.calibration.length_for(model)
    plan.pruner.check_model(model, plan.sparsity, plan.modules)
    if isinstance(plan.pruner, StructuredPruner):
        return None
    shapes = shapes_of(blocks)
    if plan.allocation.reads_weights():
        check_pattern(plan.sparsity, shapes)
        plan.allocation.check_layers(plan.sparsity, shapes)
        return None
    sparsities = allocate(plan.allocation, plan.pruner, plan.sparsity, shapes, {})
    if isinstance(plan.pruner, Pruner | Quantizer):
        for shape in shapes:
            if sparsities[shape.name].ratio > 0 or isinstance(plan.pruner, Quantizer):
                plan.pruner.check_layer(shape, sparsities[shape.name])
    return sparsities


def shapes_of(blocks: Sequence[DecoderBlock]) -> list[LayerShape]:
    """The shapes of the selected layers, in the order of the model."""
    return [LayerShape(layer.name, index, layer.kind, *layer.weight.shape) for index, block in enumerate(blocks) for layer in block.layers]
