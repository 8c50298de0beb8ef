"""Tiny random models of all causal language models of transformers, and variants of them that take other paths. Nothing is downloaded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

MOST_PARAMETERS = 30_000_000
_SETTINGS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
TYPES = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
VARIANTS = tuple(_SETTINGS["variants"])
NAMES = (*TYPES, *VARIANTS)


def config(name: str, **changes: Any) -> PreTrainedConfig:
    """The configuration of a tiny model.

    Args:
        name: a model type of transformers, or a variant.
        changes: other values; ``"absent"`` leaves one out.
    """
    model_type, more = _SETTINGS["variants"].get(name, (name, {}))
    kind = CONFIG_MAPPING[model_type]
    default = kind()
    known = {*default.to_dict(), *vars(default)} - set(getattr(kind, "attribute_map", {}))
    settings = {key: value for key, value in _SETTINGS["sizes"].items() if key in known}
    settings |= _SETTINGS["architectures"].get(model_type, {}) | more | changes
    return kind(**{key: copy.deepcopy(value) for key, value in settings.items() if value != "absent"})


def model(name: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
    """A random model in evaluation mode, without matrices of zeros or ones.

    Raises:
        MemoryError: it cannot be made small by its configuration.
    """
    settings = config(name, **changes)
    with torch.device("meta"):
        sizes = [p.numel() for p in AutoModelForCausalLM.from_config(copy.deepcopy(settings), dtype=torch.float32).parameters()]
    if sum(sizes) > MOST_PARAMETERS:
        raise MemoryError(f"{name}: {sum(sizes) / 1e6:.0f} million parameters")
    torch.manual_seed(seed)
    built: PreTrainedModel = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for key, parameter in built.named_parameters():
            if parameter.ndim >= 2 and (float(parameter.std()) < 1e-6 or float(parameter.abs().max()) < 0.1):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.5 / max(1, parameter.shape[-1]) ** 0.5))
            elif parameter.ndim == 1 and key.endswith("bias") and not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return built.to(dtype).eval()
