"""Prunes a model decoder block by decoder block. Each block is calibrated on the outputs of the already pruned blocks before it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import torch

from harness_ext.engine import checks, ranks
from harness_ext.engine.calls import Route
from harness_ext.engine.layers import DecoderBlock, LinearLayer
from harness_ext.engine.listening import Stage
from harness_ext.engine.memory import give_back
from harness_ext.engine.new_weights import NewWeights, Pruning, Quantising
from harness_ext.engine.placement import Placement
from harness_ext.engine.plan import Plan
from harness_ext.engine.resume import BlockCheckpoints
from harness_ext.engine.stopwatch import Stopwatch
from harness_ext.engine.terminal import progress
from harness_ext.engine.walk import Stages, Walk, batches_of, unmeasured
from harness_ext.errors import CalibrationError, HarnessExtError, PluginError
from harness_ext.method.pruner import Pruner
from harness_ext.method.quantizer import Quantizer
from harness_ext.method.sparsity import Sparsity
from harness_ext.method.statistic import Hessian, Statistic


def prune_blocks(
    plan: Plan,
    pruner: Pruner | Quantizer,
    blocks: list[DecoderBlock],
    placement: Placement,
    stopwatch: Stopwatch,
    input_ids: torch.Tensor | None,
    sparsities: dict[str, Sparsity],
    fingerprint: str,
    route: Route | None,
    *,
    measure_error: bool,
) -> dict[str, Any]:
    """Prunes or quantises the selected layers in place and returns their entries for the record, by name.

    Args:
        pruner: that of the plan.
        blocks: all decoder blocks, with the selected layers.
        input_ids: int64 [samples, length], where the plan is calibrated.
        sparsities: of each selected layer, by its name.
        fingerprint: of the run; names its checkpoints.
        route: how blocks are called, where anything is measured.
        measure_error: also record each layer's relative output error on the calibration tokens.

    Raises:
        HarnessExtError: the model cannot be walked, the numbers are not finite, or the pruner broke its contract.
    """
    kinds = kinds_of(pruner, measure_error=measure_error)
    walk = None
    if input_ids is not None and kinds and route is not None:
        batches = batches_of(input_ids, placement.device)
        dtype: torch.dtype = getattr(torch, plan.precision)
        walk = Walk(placement, blocks, batches, dtype, stopwatch, route, every_token=plan.experts == "all")
    checkpoints = BlockCheckpoints(plan.resume, fingerprint) if plan.resume and ranks.is_first() else None
    new_weights = Quantising(pruner, plan.bits or 0) if isinstance(pruner, Quantizer) else Pruning(pruner)
    pruning = _Layerwise(plan, new_weights, sparsities, stopwatch, measure_error)
    last = max(index for index, block in enumerate(blocks) if block.layers)
    try:
        with progress(f"{pruner.name} {plan.amount.removeprefix('sparsity ')}", last + 1) as advance:
            for index, block in enumerate(blocks[: last + 1]):
                if block.layers or walk:
                    with placement.loaded(block, write=bool(block.layers)):
                        if block.layers and not _restore(plan, index, block, checkpoints, pruning.entries):
                            with closing(_stages(plan, walk, index, kinds) if walk else unmeasured(block)) as stages:
                                pruning.prune(stages)
                            if checkpoints:
                                weights = {layer.name: layer.weight.cpu() for layer in block.layers}
                                checkpoints.save(index, weights, {name: pruning.entries[name] for name in weights})
                        if walk and index < last:
                            walk.advance(index)
                advance()
    finally:
        if checkpoints:
            checkpoints.close()
    return {layer.name: pruning.entries[layer.name] for block in blocks for layer in block.layers}


def kinds_of(pruner: Pruner | Quantizer, *, measure_error: bool) -> list[type[Statistic]]:
    """What is measured for a pruner, and for the output error."""
    kinds: list[type[Statistic]] = [kind for kind in [pruner.measures()] if kind]
    if measure_error and not any(issubclass(kind, Hessian) for kind in kinds):
        kinds.append(Hessian)
    return kinds


def _stages(plan: Plan, walk: Walk, index: int, kinds: list[type[Statistic]]) -> Stages:
    return walk.measure_in_order(index, kinds) if plan.true_sequential else walk.measure(index, kinds)


def _restore(plan: Plan, index: int, block: DecoderBlock, checkpoints: BlockCheckpoints | None, entries: dict[str, Any]) -> bool:
    """Puts the weights of a block back that an earlier run has pruned. False if there are none."""
    saved = ranks.broadcast(checkpoints.load(index) if checkpoints else None) if plan.resume else None
    if saved is None:
        return False
    weights, saved_entries = saved
    for layer in block.layers:
        layer.write(weights[layer.name])
    entries |= saved_entries
    return True


class _Layerwise:
    """Has the method compute new weights, checks them, and writes them into the model."""

    def __init__(
        self, plan: Plan, new_weights: NewWeights, sparsities: dict[str, Sparsity], stopwatch: Stopwatch, measure_error: bool
    ) -> None:
        self.plan, self.new_weights, self.sparsities, self.stopwatch = plan, new_weights, sparsities, stopwatch
        self.measure_error = measure_error
        self.dtype: torch.dtype = getattr(torch, plan.precision)
        self.entries: dict[str, Any] = {}

    def prune(self, stages: Stages) -> None:
        """Prunes the layers of one block."""
        for stage in stages:
            idle = stage.tokens == 0
            if idle and self.plan.strict:
                raise CalibrationError(
                    f"{stage.layers[0].name}: no token is sent to this expert: want experts=all, or more calibration samples"
                )
            together = self.new_weights.together and not idle
            for group in [stage.layers] if together else [[layer] for layer in stage.layers]:
                self._replace(group, stage)
            stage.statistics.clear()
            give_back()

    def _replace(self, layers: list[LinearLayer], stage: Stage) -> None:
        """Prunes layers that read the same inputs. An expert without any input is pruned by its weights alone."""
        dense = [layer.weight.to(self.dtype).contiguous() for layer in layers]
        weights = [weight.clone() for weight in dense]
        sparsities = [self.sparsities[layer.name] for layer in layers]
        statistic = stage.statistics[0] if stage.statistics and self.plan.pruner.measures() else None
        began = time.perf_counter()
        with checks.untouched(checks.tensors_of(statistic), "the statistic that it was given", self._blame(layers[0])):
            if stage.tokens == 0:
                results: Any = [self.new_weights.without_inputs(weights[0], sparsities[0])]
            else:
                results = self._results(layers, weights, sparsities, statistic)
        if not isinstance(results, Sequence) or len(results) != len(layers):
            raise PluginError(f"{self._blame(layers[0])}: want {len(layers)} weights from {self.new_weights.called}")
        seconds = round((time.perf_counter() - began) / len(layers), 4)
        for layer, weight, was, sparsity, result in zip(layers, weights, dense, sparsities, results, strict=True):
            new = self.new_weights.checked(result, weight, was, layer.weight.dtype, sparsity, self._blame(layer))
            layer.write(new.weight)
            ranks.broadcast_tensor(layer.weight)
            entry = {**new.notes, "seconds": seconds, **new.counts(layer)}
            if stage.tokens is not None and layer.expert:
                entry["tokens"] = stage.tokens
            if self.measure_error and stage.tokens:
                hessian = next(statistic for statistic in stage.statistics if isinstance(statistic, Hessian))
                # ``weight`` and not ``was``, which may be the layer's own
                entry["output_error"] = output_error(weight, layer.weight.to(self.dtype), hessian.matrix)
            self.entries[layer.name] = entry

    def _results(self, layers: list[LinearLayer], weights: list[torch.Tensor], sparsities: list[Sparsity], statistic: Any) -> Any:
        """What the method returns; an error of the method names the layers."""
        try:
            with self.stopwatch("pruning"):
                return self.new_weights.compute(weights, sparsities, statistic)
        except HarnessExtError as error:
            names = layers[0].name if len(layers) == 1 else f"{layers[0].name} to {layers[-1].name}"
            raise type(error)(f"pruner {self.plan.pruner.name!r} on {names}: {error}") from error

    def _blame(self, layer: LinearLayer) -> str:
        return f"{self.plan.who()} broke its contract on {layer.name}"


def output_error(dense: torch.Tensor, pruned: torch.Tensor, hessian: torch.Tensor) -> float:
    """``||W X - W' X||^2 / ||W X||^2`` from the Hessian of the inputs ``X``; weights float [out, in], Hessian float [in, in]."""

    def energy(weight: torch.Tensor) -> float:
        return float(((weight.double() @ hessian.double()) * weight.double()).sum())

    return energy(dense - pruned) / max(energy(dense), torch.finfo(torch.float64).tiny)
