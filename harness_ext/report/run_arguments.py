"""The arguments of a run that change prompts, answers or scores, beside those that describe the pruning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness_ext.engine.plan import ARGUMENTS as PLAN_ARGUMENTS
from harness_ext.engine.plan import PREFIXES
from harness_ext.report.unpruned import IGNORED

DECIDING = {
    "tokenizer": None, "add_bos_token": None, "prefix_token_id": None, "max_length": None, "truncation": False, "think_end_token": None,
    "enable_thinking": None, "chat_template_args": None,
}  # fmt: skip
"""Arguments of ``hf`` that change prompts or answers, with lm-eval's defaults: results with other values are not put side by side."""
SAME_SCORES = (
    *IGNORED, "share_prompts", "logits_cache", "use_fast_tokenizer", "max_memory_per_gpu", "max_cpu_memory", "offload_folder", "device_map",
    "tp_plan", "low_cpu_mem_usage", "cache_dir", "token", "local_files_only",
)  # fmt: skip
SAME_WEIGHTS = ("revision", "subfolder", "gguf_file", "peft", "delta", "backend")  # the digest of the weights tells these apart
GENERATES = "generate_until"
GENERATION = "generation"  # the kind of the words of generation_of, among those that say how prompts are made


def deciding(arguments: Mapping[str, Any]) -> dict[str, str]:
    """The arguments that change prompts or answers, in words, all of them.

    Args:
        arguments: the model arguments, as values.
    """
    return {name: _words(arguments.get(name, default)) for name, default in DECIDING.items()}


def others(arguments: Mapping[str, Any]) -> dict[str, str]:
    """All other arguments that may change scores, such as ``dtype``, in words. Those of the pruning are not among them."""
    left_out = (*DECIDING, *SAME_SCORES, *SAME_WEIGHTS, *PLAN_ARGUMENTS)
    return {name: _words(value) for name, value in arguments.items() if name not in left_out and not name.startswith(PREFIXES)}


def generation_of(config: Mapping[str, Any], task: Mapping[str, Any]) -> str | None:
    """What ``--gen_kwargs`` was for a task; None if that is unknown, or if the task generates no text.

    Args:
        config: the configuration of the run.
        task: the configuration of the task.
    """
    if "gen_kwargs" not in config or task.get("output_type", GENERATES) != GENERATES:
        return None
    return f"--gen_kwargs {_words(config['gen_kwargs'])}" if config["gen_kwargs"] else "no --gen_kwargs"


def difference(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """``max_length=64 and max_length=None``, for the first argument that differs; nothing if none does."""
    names = [name for name in {**one, **other} if one.get(name, "None") != other.get(name, "None")]
    return " and ".join(f"{names[0]}={said.get(names[0], 'None')}" for said in (one, other)) if names else ""


def _words(value: Any) -> str:
    """A value as text; a text that lm-eval reads as a value is that value."""
    return json.dumps(value, sort_keys=True, default=str) if isinstance(value, Mapping | list) else str(value)
