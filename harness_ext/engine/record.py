"""The pruning record: what was asked for, what was done, and a fingerprint of all that decides the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import torch
from torch import nn

from harness_ext.engine.codes import Dequantised
from harness_ext.engine.layers import DecoderBlock, LinearLayer
from harness_ext.engine.plan import Plan
from harness_ext.method.grid import SCALE_BITS, stored_bits
from harness_ext.method.quantizer import Quantizer
from harness_ext.method.source_code import code_of
from harness_ext.method.sparsity import Sparsity

DECISIVE = ("pruner", "pruner_options", "precision")  # of the plan; the layers, their sparsities and the calibration tokens say the rest


def environment(device: torch.device) -> dict[str, Any]:
    """What decides the last bits of a float: versions, the kind of device, and on a CPU the number of threads, which split sums."""
    versions: dict[str, Any] = {"torch": torch.__version__, "lm-eval-pruned": metadata.version("lm-eval-pruned"), "device": device.type}
    return versions | ({"threads": torch.get_num_threads()} if device.type == "cpu" else {})


def plugins_of(plan: Plan) -> dict[str, Any]:
    """The distribution, version and module of the pruner and, where it is not uniform, of the allocation; and the code of the pruner."""
    origins = {"plugin": plan.pruner_origin} | ({} if plan.is_uniform else {"allocation_plugin": plan.allocation_origin})
    plugins = {
        key: {"distribution": origin.distribution, "version": origin.version, "module": origin.module}
        for key, origin in origins.items()
        if origin
    }
    return {**plugins, "code": code_of(type(plan.pruner))}


def counts(layer: LinearLayer, sparsity: Sparsity) -> dict[str, Any]:
    """The sparsity that was asked of a layer, and what is in it now."""
    zeros, size = int((layer.weight == 0).sum()), layer.weight.numel()
    return {"kind": layer.kind, "asked": str(sparsity), "achieved": zeros / size, "zeros": zeros, "weights": size}


def quantised_counts(
    quantizer: Quantizer, bits: int, sparsity: Sparsity, shape: torch.Size, by_input: bool, new: Dequantised
) -> dict[str, Any]:
    """The sparsity and the bits of a quantised layer. Zeros are the weights that its mask removes.

    ``stored_bits`` counts the codes (:func:`harness_ext.method.grid.stored_bits`), 16 bits for the scale of each group, and ``bits`` for
    its zero point, unless that is the same for all groups.

    Args:
        shape: of the weight.
        by_input: whether groups are not of consecutive inputs. Each input then has the number of its group.
    """
    rows, inputs = shape
    groups, zero_point = quantizer.groups_of(inputs), zero_point_bits(quantizer, bits)
    stored = stored_bits(rows * inputs, new.zeros, bits) + rows * groups * (SCALE_BITS + zero_point)
    stored += inputs * (groups - 1).bit_length() if by_input else 0
    return {
        "asked": str(sparsity), "achieved": new.zeros / (rows * inputs), "zeros": new.zeros, "weights": rows * inputs, "bits": bits,
        "groups": groups, "stored_bits": stored, "bits_a_weight": stored / (rows * inputs), "rounded_to_zero": new.rounded_to_zero,
    }  # fmt: skip


def zero_point_bits(quantizer: Quantizer, bits: int) -> int:
    """What the zero point of a group counts: nothing where it is in the middle of every grid."""
    return 0 if quantizer.symmetric else bits


def of_bits(plan: Plan, model: nn.Module, blocks: Sequence[DecoderBlock], layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The bits of a quantised model, by name; nothing where the plan has none.

    Args:
        blocks: with the quantised layers.
        layers: the entries of these layers, by name.
    """
    if plan.bits is None or not isinstance(plan.pruner, Quantizer) or not layers:
        return {}
    weights, stored = (sum(entry[name] for entry in layers.values()) for name in ("weights", "stored_bits"))
    parameters = list(model.parameters())
    before = sum(layer.weight.numel() * _bits_of(layer.stored) for block in blocks for layer in block.layers)
    of_model = sum(parameter.numel() * _bits_of(parameter) for parameter in parameters) - before + stored
    return {
        "quantisation": {
            "bits": plan.bits,
            "group_size": plan.pruner.group_size,
            "scale_bits": SCALE_BITS,
            "zero_point_bits": zero_point_bits(plan.pruner, plan.bits),
            "bits_a_weight": stored / weights,
            "bits_of_model": of_model,
            "bits_a_parameter": of_model / max(1, sum(parameter.numel() for parameter in parameters)),
            "simulated": True,
            "weights_in": ", ".join(sorted({str(layer.stored.dtype).removeprefix("torch.") for block in blocks for layer in block.layers})),
        }
    }


def achieved(plan: Plan, entries: Mapping[str, Any]) -> str:
    """What a run was asked for and what it reached: ``sparsity 0.5 asked, 0.4999 achieved``, ``4 bits, 4.16 a weight``."""
    parts = []
    if "quantisation" in entries:
        parts.append(f"{plan.bits} bits, {entries['quantisation']['bits_a_weight']:.2f} a weight with its grid")
    if plan.sparsity.ratio > 0:
        parts.append(f"sparsity {plan.sparsity} asked, {entries['achieved_sparsity']:.4f} achieved")
    return "; ".join(parts)


def _bits_of(parameter: torch.Tensor) -> int:
    return 8 * parameter.element_size()


def ratio(entries: Iterable[Mapping[str, Any]]) -> float:
    """The share of zeros in some layers together."""
    entries = list(entries)
    return sum(entry["zeros"] for entry in entries) / sum(entry["weights"] for entry in entries) if entries else 0.0


def of_experts(plan: Plan, layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What experts were measured on; nothing for a model without experts, or a run that measured none.

    Args:
        layers: the entries of the layers, by name.
    """
    tokens = {name: entry["tokens"] for name, entry in layers.items() if "tokens" in entry}
    if not tokens:
        return {}
    few = {name: number for name, number in tokens.items() if 0 < number < plan.min_expert_tokens}
    without = "rounded_to_nearest" if isinstance(plan.pruner, Quantizer) else "pruned_by_magnitude"
    return {"experts": {"measured_on": plan.experts, "few_tokens": few, without: [name for name in tokens if not tokens[name]]}}


def fingerprint(plan: Plan, record: Mapping[str, Any], asked: Mapping[str, Sparsity]) -> str:
    """A digest of all that decides the weights: of the dense weights alone, where nothing is changed.

    Args:
        record: with the dense digest, the plugins, their code, the environment and, if the plan needs calibration, its digest.
        asked: the sparsity of every layer.
    """
    decisive: dict[str, Any] = {"dense_digest": record["dense_digest"]}
    if plan.changes:
        decisive |= {key: record.get(key) for key in ("plugin", "code", "environment")} | {key: record["plan"][key] for key in DECISIVE}
        decisive["notes"] = record.get("notes")  # of pruners that treat the model as a whole: what went, or which masks were applied
        of_layers = {name: str(sparsity) for name, sparsity in asked.items()}
        decisive["asked"] = of_layers or {key: record["plan"][key] for key in ("sparsity", "modules")}
        decisive |= {"bits": plan.bits} if plan.bits is not None else {}
        decisive |= {"true_sequential": True} if plan.true_sequential else {}
        decisive |= {"experts": plan.experts} if record["plan"].get("experts") else {}
        decisive["calibration"] = record["calibration"]["digest"] if plan.needs_calibration else None
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
