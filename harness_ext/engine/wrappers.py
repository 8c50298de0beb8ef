"""Refuses what is wrapped around a model: the weights that are pruned have to be those that are used."""

from __future__ import annotations

from typing import Any

from torch import nn

from harness_ext.errors import UnsupportedModelError, shown

INNER = ("module", "_orig_mod", "_fsdp_wrapped_module", "model")  # where wrappers keep the model: DataParallel, torch.compile, FSDP


def check_unwrapped(model: Any) -> None:
    """Looks for wrappers around a model, and for compiled modules in it.

    Raises:
        UnsupportedModelError: a wrapper, a compiled module, or no model of transformers at all.
    """
    from transformers import PreTrainedModel

    kind = type(model).__name__
    if not isinstance(model, PreTrainedModel) and not hasattr(model, "merge_and_unload"):  # peft; its adapters are refused by name
        for name in INNER:
            inner = getattr(model, name, None)
            if isinstance(inner, PreTrainedModel):
                raise UnsupportedModelError(f"{kind} is wrapped around {type(inner).__name__}: give the model itself, model.{name}")
        what = f"{kind} is no model of transformers" if isinstance(model, nn.Module) else f"model={shown(model)}"
        raise UnsupportedModelError(f"{what}: want a causal language model such as AutoModelForCausalLM.from_pretrained gives")
    for name, module in model.named_modules():
        if getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod"):
            where = f"{kind}.{name}" if name else kind
            raise UnsupportedModelError(f"{where} was compiled: prune the model first, and compile it afterwards")
