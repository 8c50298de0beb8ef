"""Carries out a plan on a model: spreads the sparsity, goes block by block, checks and records what was done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch

from harness_ext.engine import checks, ranks, record
from harness_ext.engine.allocate import allocate, slack
from harness_ext.engine.layers import DecoderBlock, LinearLayer, check_coverage, find_blocks
from harness_ext.engine.memory import give_back
from harness_ext.engine.placement import Placement
from harness_ext.engine.plan import Plan
from harness_ext.engine.resume import BlockCheckpoints
from harness_ext.engine.stopwatch import Stopwatch
from harness_ext.engine.structured import reshape
from harness_ext.engine.terminal import progress
from harness_ext.engine.true_sequential import stages
from harness_ext.engine.walk import Walk
from harness_ext.errors import HarnessExtError, NumericalError, PluginError, UnsupportedModelError
from harness_ext.method.allocation import LayerShape, Measured
from harness_ext.method.calibration import check_ids, digest
from harness_ext.method.sparsity import Sparsity
from harness_ext.method.statistic import Hessian, Statistic

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Measurements = Iterable[tuple[list[LinearLayer], list[Statistic]]]
"""Layers that read one tensor, and the statistics of it."""


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
    found: dict[str, Any] = {"plan": plan.describe(), **record.plugins_of(plan)}
    stopwatch = Stopwatch(placement.device)
    with stopwatch("digest"):
        found["dense_digest"] = placement.digest()
        if not ranks.all_true(found["dense_digest"] == ranks.broadcast(found["dense_digest"])):
            raise UnsupportedModelError("the processes hold different dense models: load the same checkpoint in all of them")
    removes = plan.sparsity.ratio > 0
    input_ids = None
    if plan.needs_calibration or (measure_error and removes):
        with stopwatch("calibration"):
            input_ids = _input_ids(plan, model, tokenizer)
        found["calibration"] = {"samples": len(input_ids), "length": input_ids.shape[1], "digest": digest(input_ids)}
    found["environment"] = record.environment(placement.device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    began = time.perf_counter()
    layers: dict[str, Any] = {}
    asked: dict[str, Sparsity] = {}
    if removes and plan.pruner.structured:
        found |= reshape(plan, model, blocks, input_ids)
    elif removes:
        run = _Run(plan, blocks, placement, stopwatch, measure_error)
        with placement.session():
            asked = run.spread(input_ids)
            layers = run.go(model, input_ids, record.fingerprint(plan, found, asked))  # without the notes, which are not there yet
        found |= {"notes": run.notes} if run.notes else {}
    found["seconds_calibration"] = round(stopwatch.seconds.pop("calibration", 0.0), 3)
    found["seconds_digest"] = round(stopwatch.seconds.pop("digest"), 3)
    found["seconds_pruning"] = round(time.perf_counter() - began, 3)
    found["seconds_parts"] = {part: round(seconds, 3) for part, seconds in stopwatch.seconds.items()}
    if not (removes and plan.pruner.structured):
        found["achieved_sparsity"] = record.ratio(layers.values())
        found["achieved_sparsity_of_model"] = sum(entry["zeros"] for entry in layers.values()) / max(1, parameters)
    found["damping_retries"] = sum(entry.get("damping_retries", 0) for entry in layers.values())
    found["layers"] = layers
    found["fingerprint"] = record.fingerprint(plan, found, asked)
    return found


def _blocks(plan: Plan, model: PreTrainedModel, *, in_memory: bool) -> list[DecoderBlock]:
    """The blocks to be pruned; none for a dense model that could not be."""
    try:
        modules = "all" if plan.pruner.structured else plan.modules
        blocks = find_blocks(model, modules)
        check_coverage(model, blocks, in_memory=in_memory)
    except UnsupportedModelError:
        if plan.sparsity.ratio > 0:
            raise
        return []
    return blocks


def _input_ids(plan: Plan, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> torch.Tensor:
    if isinstance(plan.calibration, torch.Tensor):
        ids, source = plan.calibration, "calibration"
    else:
        source = f"calibration {plan.calibration.name!r}"
        with checks.untouched(model.parameters(), "the model's weights", f"{source} broke its contract"):
            ids = plan.calibration.input_ids(model, tokenizer)
    check_ids(ids, model, source)
    return ranks.broadcast(ids.cpu())


class _Run:
    """One application of a plan with sparsity above 0 that leaves the model's shape as it is."""

    def __init__(self, plan: Plan, blocks: list[DecoderBlock], placement: Placement, stopwatch: Stopwatch, measure_error: bool) -> None:
        self.plan, self.blocks, self.placement, self.stopwatch, self.measure_error = plan, blocks, placement, stopwatch, measure_error
        self.dtype: torch.dtype = getattr(torch, plan.precision)
        self.layers = [layer for block in blocks for layer in block.layers]
        self.shapes = [
            LayerShape(layer.name, index, layer.kind, *layer.weight.shape) for index, block in enumerate(blocks) for layer in block.layers
        ]
        self.sparsities: dict[str, Sparsity] = {}
        self.record: dict[str, Any] = {}
        self.notes: dict[str, Any] = {}  # of a pruner that treats the model as a whole

    def spread(self, input_ids: torch.Tensor | None) -> dict[str, Sparsity]:
        """Each layer's sparsity, for which the dense model is measured where the allocation wants it."""
        allocation, pruner = self.plan.allocation, self.plan.pruner
        found = {}
        if allocation.reads_weights():
            kind = allocation.measures(pruner)
            shapes = {shape.name: shape for shape in self.shapes}

            def look(index: int, block: DecoderBlock, measured_layers: Measurements) -> None:
                of = {layer.name: next(iter(statistics), None) for layers, statistics in measured_layers for layer in layers}
                measured = [
                    Measured(shapes[layer.name], layer.weight.to(self.dtype).contiguous(), of[layer.name]) for layer in block.layers
                ]
                read = [layer.weight for layer in measured] + [
                    tensor for layer in measured for tensor in checks.tensors_of(layer.statistic)
                ]
                blame = f"allocation {allocation.name!r} broke its contract on {block.name}"
                with self.stopwatch("allocation"), checks.untouched(read, "a weight or a statistic that it was given", blame):
                    found[index] = allocation.measure(measured, pruner)

            self._visit(input_ids, [kind] if kind else [], f"allocation {allocation.name}", look, write=False)
        self.sparsities = ranks.broadcast(allocate(allocation, pruner, self.plan.sparsity, self.shapes, found))
        return self.sparsities

    def go(self, model: PreTrainedModel, input_ids: torch.Tensor | None, fingerprint: str) -> dict[str, Any]:
        """Prunes, and returns the entries of the layers.

        Args:
            fingerprint: of the run; names its checkpoints.
        """
        pruner = self.plan.pruner
        if pruner.rung() == "prune_model":
            before = sum(int((layer.weight == 0).sum()) for layer in self.layers)
            weights = [f"{layer.name}.weight" for layer in self.layers]
            marks, who = checks.marks(model, weights), f"{self._who()} broke its contract"
            read = [input_ids] if input_ids is not None else []
            with checks.untouched(read, "the calibration tokens", who):
                notes = pruner.prune_model(model, self.plan.sparsity, input_ids if self.plan.needs_calibration else None)
            checks.check_marks(marks, checks.marks(model, weights), who)
            checks.check_modules(model, self.layers, who)
            self._check_model(before)
            self.notes = checks.json_notes(notes, self._who())
            return self.record
        kinds = [kind for kind in [pruner.measures()] if kind]
        if self.measure_error and not any(issubclass(kind, Hessian) for kind in kinds):
            kinds.append(Hessian)
        checkpoints = BlockCheckpoints(self.plan.resume, fingerprint) if self.plan.resume and ranks.is_first() else None

        def prune(index: int, block: DecoderBlock, measured: Measurements) -> None:
            for layers, found in measured:
                for group in [layers] if pruner.rung() == "prune_together" else [[layer] for layer in layers]:
                    self._replace(group, found)
                found.clear()
                give_back()
            if checkpoints:
                weights = {layer.name: layer.weight.cpu() for layer in block.layers}
                checkpoints.save(index, weights, {name: self.record[name] for name in weights})

        try:
            self._visit(input_ids, kinds, f"{pruner.name} {self.plan.sparsity}", prune, write=True, checkpoints=checkpoints)
        finally:
            if checkpoints:
                checkpoints.close()
        return self.record

    def _visit(
        self,
        input_ids: torch.Tensor | None,
        kinds: list[type[Statistic]],
        title: str,
        act: Callable[[int, DecoderBlock, Measurements], None],
        *,
        write: bool,
        checkpoints: BlockCheckpoints | None = None,
    ) -> None:
        """Calls ``act`` for each block that has selected layers, while it is in place, with the statistics of its layers.

        Blocks that have a checkpoint get their weights from it.
        """
        walk = Walk(self.placement, self.blocks, input_ids, self.dtype, self.stopwatch) if input_ids is not None and kinds else None
        last = max(index for index, block in enumerate(self.blocks) if block.layers)
        with progress(title, last + 1) as advance:
            for index, block in enumerate(self.blocks[: last + 1]):
                if block.layers or walk:
                    with self.placement.loaded(block, write=write and bool(block.layers)):
                        wanted = block.layers and not (write and self._restore(index, block, checkpoints))
                        at_once = wanted and walk and write and self.plan.true_sequential
                        if wanted and walk:
                            measured = stages(walk, index, kinds, finish=index < last) if at_once else walk.measure(index, kinds)
                            with closing(measured):
                                act(index, block, measured)
                        elif wanted:
                            act(index, block, (([layer], []) for layer in block.layers))
                        if walk and index < last and not at_once:
                            walk.advance(index)
                advance()

    def _restore(self, index: int, block: DecoderBlock, checkpoints: BlockCheckpoints | None) -> bool:
        """Puts the pruned weights of a block back, if there are any."""
        saved = ranks.broadcast(checkpoints.load(index) if checkpoints else None) if self.plan.resume else None
        if saved is None:
            return False
        weights, entries = saved
        for layer in block.layers:
            layer.write(weights[layer.name])
        self.record |= entries
        return True

    def _replace(self, layers: list[LinearLayer], statistics: list[Statistic]) -> None:
        """Prunes the layers that read the same inputs."""
        pruner = self.plan.pruner
        dense = [layer.weight.to(self.dtype).contiguous() for layer in layers]
        given = [weight.clone() for weight in dense]
        sparsities = [self.sparsities[layer.name] for layer in layers]
        statistic = statistics[0] if statistics and pruner.measures() else None
        began = time.perf_counter()
        with checks.untouched(checks.tensors_of(statistic), "the statistic that it was given", self._blame(layers[0])):
            results = self._results(layers, given, sparsities, statistic)
        if not isinstance(results, Sequence) or len(results) != len(layers):
            raise PluginError(f"{self._blame(layers[0])}: want {len(layers)} weights from prune_together")
        seconds = round((time.perf_counter() - began) / len(layers), 4)
        for layer, weight, was, sparsity, result in zip(layers, given, dense, sparsities, results, strict=True):
            new, notes = checks.unpack(result, weight, was, layer.weight.dtype, self._blame(layer))
            checks.check_zeros(new, sparsity, int((was == 0).sum()), self._blame(layer))
            layer.write(new)
            ranks.broadcast_tensor(layer.weight)
            entry = self._record(layer, {**notes, "seconds": seconds})
            if self.measure_error:
                hessian = next(statistic for statistic in statistics if isinstance(statistic, Hessian))
                entry["output_error"] = output_error(weight, layer.weight.to(self.dtype), hessian.matrix)  # ``was`` may be the layer's own

    def _results(
        self, layers: list[LinearLayer], given: list[torch.Tensor], sparsities: list[Sparsity], statistic: Statistic | None
    ) -> Any:
        """What the pruner makes of the layers; its errors name them."""
        pruner = self.plan.pruner
        try:
            with self.stopwatch("pruning"):
                if pruner.rung() == "prune_together":
                    return pruner.prune_together(given, sparsities, statistic)
                return [pruner.prune(given[0], sparsities[0], statistic)]
        except HarnessExtError as error:
            names = layers[0].name if len(layers) == 1 else f"{layers[0].name} to {layers[-1].name}"
            raise type(error)(f"pruner {pruner.name!r} on {names}: {error}") from error

    def _check_model(self, zeros_before: int) -> None:
        """Checks what ``prune_model`` left, over all layers together: it may spread the zeros over them as it likes."""
        self.sparsities = dict.fromkeys((layer.name for layer in self.layers), self.plan.sparsity)
        zeros = sum(self._record(layer, {})["zeros"] for layer in self.layers)
        for layer in self.layers:
            if not layer.weight.isfinite().all():
                raise NumericalError(f"{self._blame(layer)}: the new weight has NaN or infinite values")
            checks.check_pattern(layer.weight, self.plan.sparsity, self._blame(layer))
        counts = [checks.bounds(self.plan.sparsity, layer.weight) for layer in self.layers]
        low, asked = (sum(bounds) for bounds in zip(*counts, strict=True))
        off = slack(len(self.layers), asked)
        if not low - off <= zeros <= asked + off + zeros_before:
            raise PluginError(
                f"{self._who()} broke its contract: sparsity {self.plan.sparsity} is {asked} zeros in the linear "
                f"layers from {self.layers[0].name} to {self.layers[-1].name}, it left {zeros}"
            )

    def _blame(self, layer: LinearLayer) -> str:
        return f"{self._who()} broke its contract on {layer.name}"

    def _who(self) -> str:
        return f"pruner {self.plan.pruner.name!r}" + (f" of {self.plan.pruner_origin}" if self.plan.pruner_origin else "")

    def _record(self, layer: LinearLayer, notes: dict[str, Any]) -> dict[str, Any]:
        """Counts what is in the layer now and keeps it with the notes."""
        zeros, size = int((layer.weight == 0).sum()), layer.weight.numel()
        counts = {"asked": str(self.sparsities[layer.name]), "achieved": zeros / size, "zeros": zeros, "weights": size}
        self.record[layer.name] = {**notes, **counts}
        entry: dict[str, Any] = self.record[layer.name]
        return entry


def output_error(dense: torch.Tensor, pruned: torch.Tensor, hessian: torch.Tensor) -> float:
    """``||W X - W' X||^2 / ||W X||^2`` from the Hessian of the inputs ``X``; weights float [out, in], Hessian float [in, in]."""

    def energy(weight: torch.Tensor) -> float:
        return float(((weight.double() @ hessian.double()) * weight.double()).sum())

    return energy(dense - pruned) / max(energy(dense), torch.finfo(torch.float64).tiny)
