"""Applies a plan to a model: gets calibration tokens, chooses the sparsity of each layer, prunes, and writes the record."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import torch

from harness_ext.engine import calibration_cache, checks, ranks, record
from harness_ext.engine.coverage import check_coverage, dense_parts
from harness_ext.engine.experts import visible_products
from harness_ext.engine.fit import check_fit
from harness_ext.engine.global_state import full_float32
from harness_ext.engine.layer_sparsities import choose_sparsities
from harness_ext.engine.layers import DecoderBlock, find_blocks
from harness_ext.engine.layerwise import kinds_of, prune_blocks
from harness_ext.engine.memory import pinned_given_back
from harness_ext.engine.placement import Placement
from harness_ext.engine.plan import Plan
from harness_ext.engine.proof import prove
from harness_ext.engine.stopwatch import Stopwatch
from harness_ext.engine.structured import reshape
from harness_ext.engine.whole_model import prune_whole
from harness_ext.engine.wrappers import check_unwrapped
from harness_ext.errors import UnsupportedModelError
from harness_ext.method.calibration import check_ids, describe
from harness_ext.method.pruner import ModelPruner, Pruner, PruningMethod, StructuredPruner
from harness_ext.method.quantizer import Quantizer
from harness_ext.method.sparsity import Sparsity

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@full_float32()
def apply(
    plan: Plan,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    measure_error: bool = False,
    placement: Placement | None = None,
) -> dict[str, Any]:
    """Prunes ``model`` in place and returns the pruning record (JSON values).

    Args:
        measure_error: also record each layer's relative output error on the calibration tokens.
        placement: where the weights are; by default all in place.

    Raises:
        HarnessExtError: the model cannot be walked, the numbers are not finite, or the pruner broke its contract.
    """
    placement = placement or Placement(model)
    blocks = _blocks(plan, model, in_memory=placement.in_memory)
    changes = plan.changes
    fixed = check_fit(plan, model, blocks) if changes else None
    entries: dict[str, Any] = {"plan": plan.describe(), **record.plugins_of(plan)}
    stopwatch = Stopwatch(placement.device)
    with stopwatch("digest"):
        entries["dense_digest"] = placement.digest()
        if not ranks.all_true(entries["dense_digest"] == ranks.broadcast(entries["dense_digest"])):
            raise UnsupportedModelError("the processes hold different dense models: load the same checkpoint in all of them")
    input_ids = None
    if plan.needs_calibration or (measure_error and changes):
        with stopwatch("calibration"):
            input_ids, cached = _input_ids(plan, model, tokenizer, entries["dense_digest"], placement.device)
        entries["calibration"] = describe(input_ids, tokenizer)
        entries["calibration_from_cache"] = cached
    entries["environment"] = record.environment(placement.device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    began = time.perf_counter()
    layers: dict[str, Any] = {}
    asked: dict[str, Sparsity] = {}
    pruner, structured = plan.pruner, isinstance(plan.pruner, StructuredPruner)
    if changes and isinstance(pruner, StructuredPruner):
        entries |= reshape(plan, pruner, model, blocks, input_ids)
    elif changes:
        entries["dense"] = dense_parts(blocks)
        with pinned_given_back(placement.device), placement.session(), visible_products(model):
            measured = plan.allocation.measures(pruner) or _measured(pruner, measure_error)
            route = prove(placement, blocks, input_ids, stopwatch) if measured and input_ids is not None else None
            asked = ranks.broadcast(fixed) if fixed else choose_sparsities(plan, blocks, placement, stopwatch, input_ids, route)
            if isinstance(pruner, ModelPruner):
                layers, notes = prune_whole(plan, pruner, model, blocks, input_ids)
                entries |= {"notes": notes} if notes else {}
            elif isinstance(pruner, Pruner | Quantizer):
                # The checkpoints of a run are named by its fingerprint, which has no notes yet.
                fingerprint = record.fingerprint(plan, entries, asked)
                layers = prune_blocks(
                    plan, pruner, blocks, placement, stopwatch, input_ids, asked, fingerprint, route, measure_error=measure_error
                )
                entries |= record.of_experts(plan, layers) | record.of_bits(plan, model, blocks, layers)
    entries["seconds_calibration"] = round(stopwatch.seconds.pop("calibration", 0.0), 3)
    entries["seconds_digest"] = round(stopwatch.seconds.pop("digest"), 3)
    entries["seconds_pruning"] = round(time.perf_counter() - began, 3)
    entries["seconds_parts"] = {part: round(seconds, 3) for part, seconds in stopwatch.seconds.items()}
    if not (changes and structured):
        entries["achieved_sparsity"] = record.ratio(layers.values())
        entries["achieved_sparsity_of_model"] = sum(entry["zeros"] for entry in layers.values()) / max(1, parameters)
    entries["damping_retries"] = sum(entry.get("damping_retries", 0) for entry in layers.values())
    entries["layers"] = layers
    entries["fingerprint"] = record.fingerprint(plan, entries, asked)
    if changes:
        log.info(
            "%s: %s; calibration text %.1f s, pruning %.1f s; fingerprint %s",
            pruner.name, record.achieved(plan, entries), entries["seconds_calibration"], entries["seconds_pruning"], entries["fingerprint"],
        )  # fmt: skip
    return entries


def _measured(pruner: PruningMethod, measure_error: bool) -> bool:
    """Whether anything is measured for a method that goes layer by layer."""
    return isinstance(pruner, Pruner | Quantizer) and bool(kinds_of(pruner, measure_error=measure_error))


def _blocks(plan: Plan, model: PreTrainedModel, *, in_memory: bool) -> list[DecoderBlock]:
    """The blocks to be pruned; none for a dense model that could not be."""
    changes = plan.changes
    try:
        if changes:
            check_unwrapped(model)
        blocks = find_blocks(model, plan.walked_modules)
        check_coverage(model, blocks, plan.walked_modules, dense_limit=plan.dense_limit, in_memory=in_memory)
    except UnsupportedModelError:
        if changes:
            raise
        return []
    return blocks


def _input_ids(
    plan: Plan, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, dense_digest: str, device: torch.device
) -> tuple[torch.Tensor, bool]:
    """The calibration tokens, and whether they were read from the cache."""
    if isinstance(plan.calibration, torch.Tensor):
        check_ids(plan.calibration, model, "calibration")
        return ranks.broadcast(plan.calibration.cpu()), False
    source = f"calibration {plan.calibration.name!r}"
    key = calibration_cache.key_of(plan.calibration, model, dense_digest, tokenizer, device) if plan.calibration_cache else None
    kept = calibration_cache.read(key) if key else None
    if kept is not None:
        ids = kept
        log.info("calibration tokens: read from the cache, %s", calibration_cache.folder())
    else:
        with checks.untouched(model.parameters(), "the model's weights", f"{source} broke its contract"):
            ids = plan.calibration.input_ids(model, tokenizer)
    check_ids(ids, model, source)
    if key and kept is None:
        calibration_cache.write(key, plan.calibration, ids)
    return ranks.broadcast(ids.cpu()), kept is not None
