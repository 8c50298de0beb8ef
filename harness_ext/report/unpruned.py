"""Reads results of models that ``pruned-hf`` did not load, such as quantised or distilled models of ``lm_eval --model hf``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

BITS = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "float8_e4m3fn": 8, "float8_e5m2": 8, "int8": 8, "uint8": 8}
IGNORED = ("pretrained", "trust_remote_code", "batch_size", "device", "max_batch_size", "parallelize", "attn_implementation")


def name_of(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Name of the model with the arguments that change it, such as ``Qwen/Qwen2-0.5B (hf, load_in_4bit=True)``."""
    details = [f"{name}={value}" for name, value in arguments.items() if name not in IGNORED and value is not None]
    return f"{arguments.get('pretrained', 'a model')} ({', '.join([str(config.get('model', 'unknown')), *details])})"


def record_of(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A pruning record for a model that was not pruned. The digest is of its name, because the weights are not at hand."""
    identity = [name_of(config, arguments), config.get("model_sha"), config.get("model_revision")]
    digest = hashlib.sha256(json.dumps(identity, default=str).encode()).hexdigest()[:16]
    return {"plan": {"sparsity": "0"}, "dense_digest": digest, "fingerprint": digest, "achieved_sparsity": 0.0, "layers": {}}


def bits_of(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> float | None:
    """Bits per parameter. None if the results do not tell, for example if the checkpoint itself configures quantisation."""
    for bits in (4, 8):
        if str(arguments.get(f"load_in_{bits}bit", "")) == "True":
            return float(bits)
    if any(arguments.get(name) for name in ("gptqmodel", "autogptq", "gguf_file")):
        return None
    dtype = re.sub(r"^torch\.", "", str(config.get("model_dtype", "")))
    return float(BITS[dtype]) if dtype in BITS else None
