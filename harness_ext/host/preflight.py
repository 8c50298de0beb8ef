"""Checks before weights are loaded: ``hf`` can evaluate some models that cannot be pruned."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch

from harness_ext.engine.calls import failing
from harness_ext.engine.coverage import check_coverage
from harness_ext.engine.fit import check_fit
from harness_ext.engine.layers import DecoderBlock, find_blocks
from harness_ext.engine.placement import parse_device
from harness_ext.engine.plan import Plan
from harness_ext.errors import BadOptionError, CalibrationError, UnsupportedModelError, shown
from harness_ext.method.calibration import Calibration

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

QUANTISE = ("autogptq", "gptqmodel", "load_in_4bit", "load_in_8bit", "quantization_config")
"""Arguments of ``hf`` that load quantised weights."""


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Checks the arguments of ``hf`` for a run that prunes.

    Raises:
        BadOptionError: they ask for quantised weights, an encoder-decoder model, or weights that are split over processes; or a device
            does not exist.
    """
    if isinstance(device := arguments.get("device"), str):
        parse_device(device, f"device={shown(device)}")  # hf silently uses the CPU for an unknown device
    for name in QUANTISE:
        if arguments.get(name):
            raise BadOptionError(
                f"{name}={shown(arguments[name])} with sparsity above 0: quantised weights cannot be pruned. "
                "Load the model in bf16, fp16 or fp32; what harness-ext prune writes can be quantised"
            )
    if arguments.get("backend") == "seq2seq":
        raise BadOptionError("backend='seq2seq' with sparsity above 0: want a decoder-only model")
    if arguments.get("tp_plan"):
        raise BadOptionError(
            f"tp_plan={shown(arguments['tp_plan'])} with sparsity above 0: pruning wants each weight as a whole. "
            "Write the pruned model with harness-ext prune, and load that with tp_plan"
        )


def check_config(config: PretrainedConfig, source: str) -> None:
    """Checks the configuration of a checkpoint.

    Args:
        source: name of the model, for errors.

    Raises:
        UnsupportedModelError: the model has an encoder, has quantised weights, or is not loaded by ``AutoModelForCausalLM``.
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


def without_weights(config: PretrainedConfig, source: str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Builds the model of a configuration on the meta device.

    Args:
        source: name of the model, for errors.

    Raises:
        UnsupportedModelError: the model cannot be built.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"), failing(f"{source}: no model can be built from its configuration"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            deepcopy(config), dtype=torch.float32, trust_remote_code=trust_remote_code
        )
    return model


Checked = dict[tuple[str, float], list[DecoderBlock]]
"""The checked decoder blocks of a model, by what selects their layers and by the limit for what stays dense."""


def check_plan(plan: Plan, model: PreTrainedModel, checked: Checked | None = None) -> None:
    """Checks a plan against the decoder blocks and layer shapes of a model without weights.

    Args:
        plan: a plan with a sparsity above 0.
        checked: of this model, for the plans that follow: the same blocks are checked once.

    Raises:
        UnsupportedModelError: the model has no decoder blocks, or blocks with weights outside of linear layers.
        BadOptionError: ``modules`` selects nothing; or as :func:`harness_ext.engine.fit.check_fit`.
    """
    checked = {} if checked is None else checked
    key = plan.walked_modules, plan.dense_limit
    if key not in checked:
        blocks = find_blocks(model, plan.walked_modules)
        check_coverage(model, blocks, plan.walked_modules, dense_limit=plan.dense_limit, in_memory=False)
        checked[key] = blocks
    check_fit(plan, model, checked[key])


def check_tokenizer(plan: Plan, tokenizer: PreTrainedTokenizerBase | None, source: str) -> None:
    """Checks a calibration source against the tokenizer.

    Args:
        source: name of the model, for errors.

    Raises:
        CalibrationError: the source reads text and there is no tokenizer, or the tokenizer lacks what the source needs.
    """
    calibration = plan.calibration
    if not plan.needs_calibration or not isinstance(calibration, Calibration):
        return
    if tokenizer is not None:
        calibration.check_tokenizer(tokenizer)
    elif type(calibration).input_ids is Calibration.input_ids:
        raise CalibrationError(f"calibration {calibration.name!r} needs a tokenizer, and there is none in {source}")


def _quantisation(config: Any) -> str | None:
    """The quantisation method of the weights in memory; None if they are not quantised."""
    settings = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
    method = settings.get("quant_method")
    name = str(getattr(method, "value", method or "by a method that it does not name"))
    only_compressed = name == "compressed-tensors" and not settings.get("config_groups")
    return name if settings and not settings.get("dequantize") and not only_compressed else None


def _is_causal(config: PretrainedConfig) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or "AutoModelForCausalLM" in getattr(config, "auto_map", {})
