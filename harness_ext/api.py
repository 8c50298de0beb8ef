"""Pruning from Python, on a model in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from harness_ext.calibration import Calibration
from harness_ext.engine import apply
from harness_ext.plan import CALIBRATION, PRUNER, make_plan
from harness_ext.plugins import Plugins
from harness_ext.pruner import Pruner
from harness_ext.sparsity import Sparsity

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def prune(
    model: PreTrainedModel,
    *,
    pruner: str | Pruner = PRUNER,
    sparsity: Sparsity | float | str,
    modules: str = "all",
    calibration: str | Calibration | torch.Tensor = CALIBRATION,
    tokenizer: PreTrainedTokenizerBase | None = None,
    pruner_options: Mapping[str, Any] | None = None,
    calibration_options: Mapping[str, Any] | None = None,
    measure_error: bool = False,
) -> dict[str, Any]:
    """Prunes the linear layers in the decoder blocks of ``model`` in place. Embeddings, norms and the LM head stay dense.

    Args:
        model: a causal language model of transformers, in float32, float16 or bfloat16.
        pruner: the name of a registered pruner, or an instance.
        sparsity: a ratio in [0, 1), or a pattern such as ``"2:4"``.
        modules: ``all``, ``attention``, ``ffn``, or a glob over full module names such as ``"*.q_proj"``.
        calibration: int64 token ids [samples, length], the name of a registered source, a text file, or an instance.
        tokenizer: for calibration sources that read text.
        pruner_options, calibration_options: options by name, where a name was given.
        measure_error: record each layer's relative output error ``||WX - W'X||^2 / ||WX||^2`` on the calibration tokens.

    Returns:
        the pruning record: plan, plugin and version, asked and achieved sparsity overall and per layer, calibration digest, seconds,
        damping retries and a fingerprint of all that decides the weights. JSON values only.

    Raises:
        BadOptionError: a name, option or value is wrong; the model is untouched.
        UnsupportedModelError: the model's decoder layers cannot be walked; the model is untouched.
        NumericalError, PluginError: raised in the course of pruning; the model is not to be used.
    """
    plugins = Plugins()
    plan = make_plan(
        plugins, pruner=pruner, sparsity=sparsity, modules=modules, calibration=calibration,
        pruner_options=pruner_options, calibration_options=calibration_options,
    )  # fmt: skip
    training = model.training
    model.eval()
    try:
        return apply(plan, model, tokenizer, plugins, measure_error=measure_error)
    finally:
        model.train(training)
