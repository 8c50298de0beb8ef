"""Pruning from Python, on a model in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness_ext.engine.coverage import DENSE_LIMIT
from harness_ext.engine.layers import find_blocks
from harness_ext.engine.placement import OneBlockOnDevice, parse_device
from harness_ext.engine.plan import ALLOCATION, CALIBRATION, EXPERTS, MIN_EXPERT_TOKENS, PRECISION, PRUNER, make_plan
from harness_ext.engine.run import apply
from harness_ext.engine.wrappers import check_unwrapped
from harness_ext.errors import shown
from harness_ext.method.allocation import Allocation
from harness_ext.method.calibration import Calibration
from harness_ext.method.pruner import PruningMethod
from harness_ext.method.sparsity import Sparsity
from harness_ext.plugins import Plugins

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def prune(
    model: PreTrainedModel,
    *,
    pruner: str | PruningMethod = PRUNER,
    sparsity: Sparsity | float | str = 0,
    bits: int | str | None = None,
    modules: str | Sequence[str] = "all",
    calibration: str | Path | Calibration | torch.Tensor | Sequence[Any] = CALIBRATION,
    allocation: str | Allocation = ALLOCATION,
    precision: str = PRECISION,
    true_sequential: bool = False,
    resume: str | Path | None = None,
    experts: str = EXPERTS[0],
    min_expert_tokens: int = MIN_EXPERT_TOKENS,
    strict: bool = False,
    dense_limit: float = DENSE_LIMIT,
    calibration_cache: bool = True,
    device: str | torch.device | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    pruner_options: Mapping[str, Any] | None = None,
    calibration_options: Mapping[str, Any] | None = None,
    allocation_options: Mapping[str, Any] | None = None,
    measure_error: bool = False,
) -> dict[str, Any]:
    """Prunes or quantises the linear layers in the decoder blocks of ``model`` in place. Embeddings, norms and the LM head stay dense.

    Args:
        model: a causal language model of transformers, in float32, float16 or bfloat16.
        pruner: the name of a registered pruner or quantizer, or an instance.
        sparsity: the share of weights to remove, in [0, 1), or a pattern such as ``"2:4"``.
        bits: of a weight, 2 to 8, for a quantizer such as ``gptq``. Quantisation is simulated: the weights stay in the model's dtype.
        modules: ``all``, ``attention``, ``ffn``, or a glob over full module names such as ``"*.q_proj"``; or a list of them, with
            exclusions that begin with ``!``: ``["all", "!model.layers.0.*"]``. The sparsity is that of the selected layers.
        calibration: int64 token ids [samples, length], a list of texts, the name of a registered source, a text file, or an instance.
        allocation: chooses the sparsity of each layer: the name of a registered allocation, a file with a list, or an instance.
        precision: ``float32`` or ``float64``, for statistics and arithmetic.
        true_sequential: prune the layers of a decoder block in order of use. Each layer is calibrated on the outputs of the already
            pruned layers before it. The block runs once more for each group of layers that read the same inputs.
        resume: a folder for checkpoints, one for each decoder block. A killed run resumes from it and ends with the same bits.
        experts: ``routed`` calibrates each expert on the tokens that are sent to it, ``all`` on all tokens.
        min_expert_tokens: the record names the experts that were calibrated on fewer tokens.
        strict: fail if an expert gets no token. By default it is pruned by magnitude, and the record says so.
        dense_limit: the largest share of a block's selected weights that may stay dense because they are not in linear layers.
        calibration_cache: keep calibration tokens on disk for later runs. The masks do not depend on it.
        device: where to compute, if not where the model is. The decoder blocks are moved there one by one, and back.
        tokenizer: needed by calibration sources of text.
        pruner_options: options by name, such as ``{"block_size": 64}``, where ``pruner`` is a name.
        calibration_options: as ``pruner_options``, where ``calibration`` is a name, a file or texts.
        allocation_options: as ``pruner_options``, where ``allocation`` is a name.
        measure_error: record each layer's relative output error ``||WX - W'X||^2 / ||WX||^2`` on the calibration tokens.

    Returns:
        the pruning record, of JSON values only. It has the plan, the plugin and its version, and a digest of the calibration tokens. It has
        the asked and the achieved sparsity, overall and per layer. It has seconds and damping retries. Its fingerprint covers all that
        decides the weights.

    Raises:
        BadOptionError: a name, option or value is wrong; the model is untouched.
        UnsupportedModelError: the decoder blocks cannot be found, or cannot run one by one; the model is untouched.
        NumericalError: NaN, infinite values or a matrix that cannot be factorised, while pruning; the model is not to be used.
        PluginError: a plugin breaks its contract while pruning; the model is not to be used.

    Examples:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from harness_ext import prune
        >>> config = LlamaConfig(
        ...     vocab_size=99, hidden_size=32, intermediate_size=64,
        ...     num_hidden_layers=2, num_attention_heads=2,
        ... )
        >>> model = LlamaForCausalLM(config)
        >>> tokens = torch.randint(99, (8, 32))
        >>> record = prune(model, pruner="wanda", sparsity=0.5, calibration=tokens)
        >>> record["achieved_sparsity"]
        0.5
        >>> record["layers"]["model.layers.0.mlp.up_proj"]["zeros"]
        1024

        Only the feed-forward layers, and none of the first decoder block:

        >>> model = LlamaForCausalLM(config)
        >>> modules = ["ffn", "!model.layers.0.*"]
        >>> record = prune(model, pruner="magnitude", sparsity="2:4", modules=modules)
        >>> for name in record["layers"]:
        ...     print(name)
        model.layers.1.mlp.gate_proj
        model.layers.1.mlp.up_proj
        model.layers.1.mlp.down_proj
    """
    plugins = Plugins()
    plan = make_plan(
        plugins, pruner=pruner, sparsity=sparsity, bits=bits, modules=modules, calibration=calibration,
        allocation=allocation, precision=precision, true_sequential=true_sequential, resume=resume,
        experts=experts, min_expert_tokens=min_expert_tokens, strict=strict, dense_limit=dense_limit,
        calibration_cache=calibration_cache,
        pruner_options=pruner_options, calibration_options=calibration_options, allocation_options=allocation_options,
    )  # fmt: skip
    check_unwrapped(model)
    place = None if device is None else parse_device(device, f"device={shown(device)}")
    training = model.training
    model.eval()
    try:
        placement = None
        if place is not None and not _names(place, model.device):
            placement = OneBlockOnDevice(model, find_blocks(model), place)
        return apply(plan, model, tokenizer, measure_error=measure_error, placement=placement)
    finally:
        model.train(training)


def _names(device: torch.device, place: torch.device) -> bool:
    """Whether a device that a user names is the one where the model is: ``cuda`` names any GPU."""
    return device == place or (device.index is None and device.type == place.type)
