"""Lets a structured pruner make a model smaller, and checks and records what went."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from harness_ext.engine import checks
from harness_ext.engine.kinds import KINDS
from harness_ext.engine.layers import DecoderBlock, find_blocks
from harness_ext.engine.plan import Plan
from harness_ext.errors import NumericalError, PluginError
from harness_ext.method.finite import all_finite
from harness_ext.method.pruner import StructuredPruner

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
WORTH_SAYING = 0.0005  # differences that the achieved sparsity shows when it is printed with three digits


def reshape(
    plan: Plan, pruner: StructuredPruner, model: PreTrainedModel, blocks: list[DecoderBlock], input_ids: torch.Tensor | None
) -> dict[str, Any]:
    """Prunes in place and returns entries for the pruning record (JSON values).

    Args:
        pruner: that of the plan.
        blocks: all decoder blocks with all their linear layers, as they are before.

    Raises:
        PluginError: the share of the linear layers' weights that went is not what was asked for, within the pruner's tolerance.
        NumericalError: a parameter is not finite afterwards.
    """
    who = plan.who()
    weights, parameters = _weights(blocks, plan.modules), _parameters(model)
    notes = pruner.prune_model(model, plan.sparsity, input_ids, plan.modules)
    for name, parameter in model.named_parameters():
        if not all_finite(parameter):
            raise NumericalError(f"{who} broke its contract: {name} has NaN or infinite values")
    kept = find_blocks(model)
    achieved = 1 - _weights(kept, plan.modules) / weights
    difference = achieved - plan.sparsity.ratio
    if abs(difference) > pruner.tolerance + 1e-9:
        raise PluginError(f"{who} broke its contract: {plan.sparsity} of the weights should go, {achieved:.4f} went")
    if abs(difference) >= WORTH_SAYING:
        log.warning("%s: sparsity %s was asked for, and the nearest is %.4f", who, plan.sparsity, achieved)
    return {
        "achieved_sparsity": achieved,
        "sparsity_difference": difference,
        "achieved_sparsity_of_model": 1 - _parameters(model) / parameters,
        "parameters": {"before": parameters, "after": _parameters(model)},
        "decoder_layers": {"before": len(blocks), "after": len(kept)},
        "notes": checks.json_notes(notes, who),
    }


def _weights(blocks: list[DecoderBlock], modules: str) -> int:
    """The weights of the linear layers that are counted; a glob, which structured pruners refuse, counts all."""
    counted = modules if modules in KINDS else "all"
    return sum(layer.weight.numel() for block in blocks for layer in block.layers if counted in ("all", layer.kind))


def _parameters(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
