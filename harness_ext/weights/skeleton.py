"""A model without its weights, as ``from_pretrained`` builds it around them."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def build(config: PreTrainedConfig, dtype: torch.dtype, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Builds the model in evaluation mode. Parameters are on the meta device. Buffers have the values that ``from_pretrained`` computes.

    Args:
        config: is changed: ``dtype`` is noted in it.
        dtype: of the weights. Those that the model keeps in another dtype have that one, as after ``from_pretrained``.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    _keep_dtypes(model, dtype)
    model.tie_weights()
    compute(model)
    return model.eval().requires_grad_(False)


def compute(model: PreTrainedModel, names: Collection[str] = ()) -> None:
    """Computes the buffers that no file holds, such as rotary tables, and the named tensors.

    ``from_config`` computes buffers with ``dtype`` as torch's default, which rounds tables of sines in bfloat16. ``from_pretrained`` does
    so with float32 as the default, by the same functions; so does this.
    """
    for name in names:
        place(model, [name], torch.empty_like(model.get_parameter_or_buffer(name), device="cpu"))
    stored = {id(tensor) for name, tensor in model.state_dict(keep_vars=True).items() if name not in names}
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor._is_hf_initialized = id(tensor) in stored
    for module in model.modules():
        module._is_hf_initialized = False
    model.initialize_weights()


def place(model: nn.Module, names: Collection[str], tensor: torch.Tensor) -> None:
    """Has a tensor in the place of a parameter or buffer, under all the names that it has."""
    parameter = nn.Parameter(tensor, requires_grad=False)
    for name in names:
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        if leaf in module._parameters:
            module._parameters[leaf] = parameter
        else:
            module._buffers[leaf] = tensor


def _keep_dtypes(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Gives the parameters that the model keeps in float32 that dtype."""
    from transformers.core_model_loading import build_glob_alternation

    plan = model._get_dtype_plan(dtype)
    if not plan:
        return
    pattern, names, _ = build_glob_alternation(list(plan))
    for module_name, module in model.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                full_name = f"{module_name}.{name}".removeprefix(".")
                match: re.Match[str] | None = pattern.search(full_name)
                if tensor is None or match is None or (tensors is module._buffers and name in module._non_persistent_buffers_set):
                    continue
                kept = tensor.to(plan[names[str(match.lastgroup)]])
                tensors[name] = nn.Parameter(kept, requires_grad=False) if tensors is module._parameters else kept
