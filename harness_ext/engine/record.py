"""The pruning record: what was asked for, what was done, and a fingerprint of all that decides the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

import torch

from harness_ext.engine.layers import LinearLayer
from harness_ext.engine.plan import Plan
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
    return {"asked": str(sparsity), "achieved": zeros / size, "zeros": zeros, "weights": size}


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
    return {
        "experts": {"measured_on": plan.experts, "few_tokens": few, "pruned_by_magnitude": [name for name in tokens if not tokens[name]]}
    }


def fingerprint(plan: Plan, record: Mapping[str, Any], asked: Mapping[str, Sparsity]) -> str:
    """A digest of all that decides the weights: of the dense weights alone, where nothing is removed.

    Args:
        record: with the dense digest, the plugins, their code, the environment and, if the plan needs calibration, its digest.
        asked: the sparsity of every layer.
    """
    decisive: dict[str, Any] = {"dense_digest": record["dense_digest"]}
    if plan.sparsity.ratio > 0:
        decisive |= {key: record.get(key) for key in ("plugin", "code", "environment")} | {key: record["plan"][key] for key in DECISIVE}
        decisive["notes"] = record.get("notes")  # of pruners that treat the model as a whole: what went, or which masks were applied
        of_layers = {name: str(sparsity) for name, sparsity in asked.items()}
        decisive["asked"] = of_layers or {key: record["plan"][key] for key in ("sparsity", "modules")}
        decisive |= {"true_sequential": True} if plan.true_sequential else {}
        decisive |= {"experts": plan.experts} if record["plan"].get("experts") else {}
        decisive["calibration"] = record["calibration"]["digest"] if plan.needs_calibration else None
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
