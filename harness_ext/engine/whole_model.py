"""Has a pruner treat the model as a whole, and checks over all selected layers together what it left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from harness_ext.engine import checks, record
from harness_ext.engine.layers import DecoderBlock
from harness_ext.engine.plan import Plan
from harness_ext.errors import NumericalError, PluginError
from harness_ext.method.finite import all_finite
from harness_ext.method.pruner import ModelPruner
from harness_ext.method.sparsity import rounding_slack

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def prune_whole(
    plan: Plan, pruner: ModelPruner, model: PreTrainedModel, blocks: list[DecoderBlock], input_ids: torch.Tensor | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Prunes in place and returns the entries of the layers for the record, by name, and the pruner's notes.

    Args:
        pruner: that of the plan, not a structured one.
        input_ids: int64 [samples, length], where the plan is calibrated.

    Raises:
        NumericalError: a new weight is not finite.
        PluginError: the pruner removed more or less than was asked for, or changed something else.
    """
    layers = [layer for block in blocks for layer in block.layers]
    zeros_before = sum(int((layer.weight == 0).sum()) for layer in layers)
    weights = [layer.parameter_name for layer in layers]
    marks, who = checks.marks(model, weights), f"{plan.who()} broke its contract"
    with checks.untouched([] if input_ids is None else [input_ids], "the calibration tokens", who):
        notes = pruner.prune_model(model, plan.sparsity, input_ids if plan.needs_calibration else None)
    checks.check_marks(marks, checks.marks(model, weights), who)
    checks.check_modules(model, layers, who)
    entries = {layer.name: record.counts(layer, plan.sparsity) for layer in layers}
    for layer in layers:
        if not all_finite(layer.weight):
            raise NumericalError(f"{who} on {layer.name}: the new weight has NaN or infinite values")
        checks.check_pattern(layer.weight, plan.sparsity, f"{who} on {layer.name}")
    zeros = sum(entry["zeros"] for entry in entries.values())
    bounds = [checks.bounds(plan.sparsity, layer.weight) for layer in layers]
    low, asked = (sum(counts) for counts in zip(*bounds, strict=True))
    off = rounding_slack(len(layers), asked)
    if not low - off <= zeros <= asked + off + zeros_before:
        raise PluginError(
            f"{who}: sparsity {plan.sparsity} is {asked} zeros in the linear layers from {layers[0].name} to {layers[-1].name}, "
            f"it left {zeros}"
        )
    return entries, checks.json_notes(notes, plan.who())
