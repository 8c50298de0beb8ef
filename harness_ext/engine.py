"""Carries out a plan on a model in memory, and checks and records what was done."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from harness_ext.calibration import check_ids, digest
from harness_ext.errors import BadOptionError, HarnessExtError, NumericalError, PluginError, UnsupportedModelError
from harness_ext.layers import Block, Layer, check_coverage, find_blocks
from harness_ext.plan import Plan
from harness_ext.plugins import Plugins
from harness_ext.pruner import Pruned
from harness_ext.sparsity import Sparsity
from harness_ext.statistic import Hessian, Statistic
from harness_ext.terminal import progress
from harness_ext.walk import measure_and_replace

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


DECISIVE = ("pruner", "pruner_options")  # of the plan; the layers, their sparsities and the calibration tokens say the rest


def apply(
    plan: Plan, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, plugins: Plugins, *, measure_error: bool = False
) -> dict[str, Any]:
    """Prunes ``model`` in place and returns the pruning record (JSON values).

    Args:
        measure_error: also record each layer's relative output error on the calibration tokens.

    Raises:
        HarnessExtError: the model cannot be walked, the numbers are not finite, or the pruner broke its contract.
    """
    began = time.perf_counter()
    blocks = _blocks(plan, model)
    record: dict[str, Any] = {"plan": plan.describe(), "dense_digest": weights_digest(model)}
    if plan.pruner_origin:
        record["plugin"] = {
            "distribution": plan.pruner_origin.distribution,
            "version": plan.pruner_origin.version,
            "module": plan.pruner_origin.module,
        }
    layers: dict[str, dict[str, Any]] = {}
    run = _Run(plan, model, blocks, plugins, layers, measure_error) if plan.sparsity.ratio > 0 else None
    input_ids = None
    if plan.needs_calibration or (measure_error and run):
        input_ids = _input_ids(plan, model, tokenizer)
        record["calibration"] = {"samples": len(input_ids), "length": input_ids.shape[1], "digest": digest(input_ids)}
    record["seconds_calibration"] = round(time.perf_counter() - began, 3)
    began = time.perf_counter()
    if run:
        run.go(input_ids)
    record |= {
        "seconds_pruning": round(time.perf_counter() - began, 3),
        "achieved_sparsity": _ratio(layers.values()),
        "achieved_sparsity_of_model": sum(entry["zeros"] for entry in layers.values()) / max(1, sum(p.numel() for p in model.parameters())),
        "damping_retries": sum(entry.get("damping_retries", 0) for entry in layers.values()),
        "layers": layers,
        "environment": {"torch": torch.__version__, "lm-eval-pruned": metadata.version("lm-eval-pruned"), "device": model.device.type},
    }
    record["fingerprint"] = _fingerprint(plan, record)
    return record


def _blocks(plan: Plan, model: PreTrainedModel) -> list[Block]:
    """The blocks to be pruned; none for a dense model that could not be."""
    try:
        blocks = find_blocks(model, plan.modules)
        check_coverage(model, blocks)
    except UnsupportedModelError:
        if plan.sparsity.ratio > 0:
            raise
        return []
    if plan.sparsity.ratio > 0:
        for name, parameter in model.named_parameters():
            if not parameter.isfinite().all():
                raise NumericalError(f"{name} has NaN or infinite values")
    return blocks


def _input_ids(plan: Plan, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> torch.Tensor:
    if isinstance(plan.calibration, torch.Tensor):
        ids, source = plan.calibration, "calibration"
    else:
        ids, source = plan.calibration.input_ids(model, tokenizer), f"calibration {plan.calibration.name!r}"
    check_ids(ids, model, source)
    return ids


class _Run:
    """One application of a plan with sparsity above 0."""

    def __init__(
        self,
        plan: Plan,
        model: PreTrainedModel,
        blocks: list[Block],
        plugins: Plugins,
        record: dict[str, dict[str, Any]],
        measure_error: bool,
    ) -> None:
        self.plan, self.model, self.blocks, self.record, self.measure_error = plan, model, blocks, record, measure_error
        self.layers = [layer for block in blocks for layer in block.layers]
        self.sparsities = self._spread(plugins)
        for layer in self.layers:
            pattern = self.sparsities[layer.name].pattern
            if pattern and layer.in_features % pattern[1]:
                raise BadOptionError(
                    f"sparsity={self.plan.sparsity}: {layer.name} has {layer.in_features} inputs, which {pattern[1]} does not divide"
                )

    def _spread(self, plugins: Plugins) -> dict[str, Sparsity]:
        names = [layer.name for layer in self.layers]
        uniform = dict.fromkeys(names, self.plan.sparsity)
        if self.plan.pruner.rung() == "prune_model":
            return uniform
        result = plugins.hook.layer_sparsities(model=self.model, sparsity=self.plan.sparsity, layers=names)
        if result is None:
            return uniform
        if set(result) != set(names) or not all(isinstance(value, Sparsity) for value in result.values()):
            raise PluginError("layer_sparsities: want a harness_ext.Sparsity for each of the layers, and for no other")
        asked = sum(self.plan.sparsity.removed_of(layer.weight.numel()) for layer in self.layers)
        given = sum(result[layer.name].removed_of(layer.weight.numel()) for layer in self.layers)
        if abs(given - asked) > self._slack(asked):
            raise PluginError(f"layer_sparsities: the layers add up to {given} weights to remove, {asked} were asked for")
        return dict(result)

    def go(self, input_ids: torch.Tensor | None) -> None:
        pruner = self.plan.pruner
        before = {layer.name: int((layer.weight == 0).sum()) for layer in self.layers}
        if pruner.rung() == "prune_model":
            pruner.prune_model(self.model, self.plan.sparsity, input_ids if self.plan.needs_calibration else None)
            self._check_model(sum(before.values()))
            return
        with progress(f"{pruner.name} {self.plan.sparsity}", len(self.layers)) as advance:

            def replace(layer: Layer, statistics: list[Statistic]) -> None:
                self._replace(layer, statistics, before[layer.name])
                advance()

            if input_ids is None:
                for layer in self.layers:
                    replace(layer, [])
            else:
                measure_and_replace(self.model, self.blocks, input_ids, self._new_statistics, replace)

    def _new_statistics(self, in_features: int, device: torch.device) -> list[Statistic]:
        kinds = [self.plan.pruner.statistic] if self.plan.pruner.statistic else []
        if self.measure_error and Hessian not in kinds:
            kinds.append(Hessian)
        return [kind(in_features, device) for kind in kinds]

    def _replace(self, layer: Layer, statistics: list[Statistic], zeros_before: int) -> None:
        pruner, sparsity = self.plan.pruner, self.sparsities[layer.name]
        dense = layer.weight.float().contiguous()
        given = dense.clone()
        began = time.perf_counter()
        try:
            result = pruner.prune(given, sparsity, statistics[0] if pruner.statistic and statistics else None)
        except HarnessExtError as error:
            raise type(error)(f"pruner {pruner.name!r} on {layer.name}: {error}") from error
        weight, notes = result if isinstance(result, Pruned) else (result, {})
        blame = self._blame(layer)
        if not torch.equal(given, dense):
            raise PluginError(f"{blame}: it wrote into the weight that it was given")
        if not isinstance(weight, torch.Tensor) or weight.shape != dense.shape:
            got = tuple(weight.shape) if isinstance(weight, torch.Tensor) else type(weight).__name__
            raise PluginError(f"{blame}: want a new weight of shape {tuple(dense.shape)}, not {got}")
        if not weight.to(layer.weight.dtype).isfinite().all():
            raise NumericalError(f"{blame}: the new weight has NaN or infinite values in {layer.weight.dtype}")
        self._check(layer, weight, zeros_before)
        layer.write(weight)
        entry = self._record(layer, _json(notes, blame) | {"seconds": round(time.perf_counter() - began, 4)})
        if self.measure_error:
            hessian = next(statistic for statistic in statistics if isinstance(statistic, Hessian))
            entry["output_error"] = output_error(given, layer.weight.float(), hessian.matrix)  # ``dense`` may be the weight itself

    def _blame(self, layer: Layer) -> str:
        return f"{self._who()} broke its contract on {layer.name}"

    def _who(self) -> str:
        return f"pruner {self.plan.pruner.name!r}" + (f" of {self.plan.pruner_origin}" if self.plan.pruner_origin else "")

    def _check(self, layer: Layer, weight: torch.Tensor, zeros_before: int) -> None:
        """Counts the zeros of a new weight. Those that were there before may come on top of what was asked for, and so may one in ten
        thousand that a correction of the remaining weights happens to cancel.
        """
        sparsity, (rows, columns) = self.sparsities[layer.name], weight.shape
        zeros = int((weight == 0).sum())
        by_row, by_matrix = rows * sparsity.removed_of(columns), sparsity.removed_of(weight.numel())
        low, high = min(by_row, by_matrix), max(by_row, by_matrix)
        if not low <= zeros <= high + zeros_before + weight.numel() // 10_000:
            raise PluginError(f"{self._blame(layer)}: sparsity {sparsity} is {high} zeros of {weight.numel()}, it left {zeros}")
        self._check_pattern(layer, weight)

    def _check_pattern(self, layer: Layer, weight: torch.Tensor) -> None:
        if pattern := self.sparsities[layer.name].pattern:
            n, m = pattern
            if ((weight.reshape(-1, m) == 0).sum(1) < n).any():
                raise PluginError(f"{self._blame(layer)}: want {n} zeros in every {m} inputs")

    def _check_model(self, zeros_before: int) -> None:
        """Checks what ``prune_model`` left, over all layers together: it may spread the zeros over them as it likes."""
        zeros = sum(self._record(layer, {})["zeros"] for layer in self.layers)
        for layer in self.layers:
            if not layer.weight.isfinite().all():
                raise NumericalError(f"{self._blame(layer)}: the new weight has NaN or infinite values")
            self._check_pattern(layer, layer.weight)
        asked = sum(self.plan.sparsity.removed_of(layer.weight.numel()) for layer in self.layers)
        slack = self._slack(asked)
        if not asked - slack <= zeros <= asked + slack + zeros_before:
            raise PluginError(
                f"{self._who()} broke its contract: sparsity {self.plan.sparsity} is {asked} zeros in the linear "
                f"layers from {self.layers[0].name} to {self.layers[-1].name}, it left {zeros}"
            )

    def _slack(self, asked: int) -> float:
        """How far the sum over the layers may be from what was asked for: one weight a layer, or a thousandth."""
        return max(len(self.layers), 0.001 * asked)

    def _record(self, layer: Layer, notes: Mapping[str, Any]) -> dict[str, Any]:
        """Counts what is in the layer now and keeps it with the notes."""
        zeros, size = int((layer.weight == 0).sum()), layer.weight.numel()
        counts = {"asked": str(self.sparsities[layer.name]), "achieved": zeros / size, "zeros": zeros, "weights": size}
        self.record[layer.name] = {**notes, **counts}
        return self.record[layer.name]


def output_error(dense: torch.Tensor, pruned: torch.Tensor, hessian: torch.Tensor) -> float:
    """``||W X - W' X||^2 / ||W X||^2`` from the Hessian of the inputs ``X``; weights float [out, in], Hessian float [in, in]."""

    def energy(weight: torch.Tensor) -> float:
        return float(((weight.double() @ hessian.double()) * weight.double()).sum())

    return energy(dense - pruned) / max(energy(dense), torch.finfo(torch.float64).tiny)


def weights_digest(model: PreTrainedModel) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of all parameters and buffers, as 16 hexadecimal digits."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()[:16]


def _ratio(entries: Any) -> float:
    entries = list(entries)
    return sum(entry["zeros"] for entry in entries) / sum(entry["weights"] for entry in entries) if entries else 0.0


def _json(notes: Mapping[str, Any], blame: str) -> dict[str, Any]:
    try:
        json.dumps(notes, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PluginError(f"{blame}: its notes are not JSON values ({error})") from error
    return dict(notes)


def _fingerprint(plan: Plan, record: dict[str, Any]) -> str:
    """A digest of all that decides the weights: of the dense weights alone, where nothing is removed."""
    decisive: dict[str, Any] = {"dense_digest": record["dense_digest"]}
    if plan.sparsity.ratio > 0:
        decisive |= {key: record.get(key) for key in ("plugin", "environment")} | {key: record["plan"][key] for key in DECISIVE}
        decisive["asked"] = {name: entry["asked"] for name, entry in record["layers"].items()}
        decisive["calibration"] = record["calibration"]["digest"] if plan.needs_calibration else None
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
