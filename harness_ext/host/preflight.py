"""What ``hf`` evaluates and nobody can prune, refused before a weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from harness_ext.engine.coverage import DENSE_LIMIT, check_coverage
from harness_ext.engine.layers import find_blocks
from harness_ext.errors import BadOptionError, UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

QUANTISE = ("autogptq", "gptqmodel", "load_in_4bit", "load_in_8bit", "quantization_config")
"""Arguments of ``hf`` that load quantised weights."""


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Looks at the arguments of ``hf`` for a run that prunes.

    Raises:
        BadOptionError: they ask for quantised weights, an encoder, or pieces of each weight in several processes.
    """
    for name in QUANTISE:
        if arguments.get(name):
            raise BadOptionError(
                f"{name}={arguments[name]!r} with sparsity above 0: quantised weights cannot be pruned. "
                "Load the model in bf16, fp16 or fp32; what harness-ext prune writes can be quantised"
            )
    if arguments.get("backend") == "seq2seq":
        raise BadOptionError("backend='seq2seq' with sparsity above 0: want a decoder-only model")
    if arguments.get("tp_plan"):
        raise BadOptionError(
            f"tp_plan={arguments['tp_plan']!r} with sparsity above 0: pruning wants each weight as a whole. "
            "Write the pruned model with harness-ext prune, and load that with tp_plan"
        )


def check_config(config: PretrainedConfig, source: str) -> None:
    """Looks at the configuration of a checkpoint.

    Args:
        source: what the user calls the model.

    Raises:
        UnsupportedModelError: an encoder and a decoder, quantised weights, or a model that ``AutoModelForCausalLM`` does not load.
    """
    if config.is_encoder_decoder:
        raise UnsupportedModelError(f"{source}: {config.model_type} has an encoder and a decoder: want a decoder-only model")
    if not _is_causal(config):
        advice = ""
        if config.sub_configs:  # such as a text_config and a vision_config
            advice = ". Load it in Python and give the model itself: PrunedHFLM(pretrained=model, tokenizer=tokenizer, ...)"
        raise UnsupportedModelError(
            f"{source}: transformers loads no causal language model from {config.model_type}, and hf wants one{advice}"
        )
    for part in (config, config.get_text_config()):
        if method := _quantisation(getattr(part, "quantization_config", None)):
            raise UnsupportedModelError(
                f"{source}: the checkpoint is quantised ({method}): such weights cannot be pruned. Want it in bf16, fp16 or fp32"
            )


def check_layers(config: PretrainedConfig, modules: str, *, dense_limit: float = DENSE_LIMIT, trust_remote_code: bool = False) -> None:
    """Builds the model without weights, as loading it will, and looks for its decoder blocks.

    Args:
        modules, dense_limit: as in the plan.

    Raises:
        UnsupportedModelError: blocks that are not found, or hold more than plain linear layers.
        BadOptionError: ``modules`` selects nothing.
    """
    from copy import deepcopy

    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(deepcopy(config), dtype=torch.float32, trust_remote_code=trust_remote_code)
    check_coverage(model, find_blocks(model, modules), modules, dense_limit=dense_limit, in_memory=False)


def _quantisation(found: Any) -> str | None:
    """The method by which weights are quantised in memory, if they are."""
    settings = found if isinstance(found, Mapping) else getattr(found, "__dict__", {})
    method = settings.get("quant_method")
    name = str(getattr(method, "value", method or "by a method that it does not name"))
    plain = settings.get("dequantize") or (name == "compressed-tensors" and not settings.get("config_groups"))  # which may be sparse alone
    return name if settings and not plain else None


def _is_causal(config: PretrainedConfig) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or "AutoModelForCausalLM" in getattr(config, "auto_map", {})
