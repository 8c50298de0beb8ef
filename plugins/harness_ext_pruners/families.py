"""Where the heads and the FFN channels of each architecture are, and how a config says how many there are."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from harness_ext import BadOptionError, DecoderBlock, LinearLayer, UnsupportedModelError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Family(NamedTuple):
    """Names within a decoder block, and in the config."""

    writers: tuple[str, ...]
    """The layers that compute the FFN channels."""
    reader: str
    """The layer that reads them."""
    channels: str
    """What the config calls their number."""
    attention: str | None = None
    """The attention, with q_proj, k_proj, v_proj and o_proj, where the config holds the size of a head besides the number of heads. In
    the other families that size is the width of the model divided by the number of heads, so that no head can go."""
    biases: Mapping[str, str] = {}
    """What gives ``attention`` and ``ffn`` biases in the config, their output projections among them."""


_GATED = Family(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj", "intermediate_size", "self_attn")
FAMILIES = {
    "llama": _GATED._replace(biases={"attention": "attention_bias", "ffn": "mlp_bias"}),
    "mistral": _GATED,
    "qwen2": _GATED,
    "qwen3": _GATED._replace(biases={"attention": "attention_bias"}),
    "starcoder2": Family(("mlp.c_fc",), "mlp.c_proj", "intermediate_size", "self_attn"),
    "opt": Family(("fc1",), "fc2", "ffn_dim"),
    "gpt2": Family(("mlp.c_fc",), "mlp.c_proj", "n_inner"),
    "gpt_neox": Family(("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h", "intermediate_size"),
}


class Part(NamedTuple):
    """The units of one kind in each block: key/value heads with their query heads, or FFN channels."""

    title: str
    """``heads`` or ``channels``."""
    writers: tuple[str, ...]
    reader: str
    units: int
    weights: int
    """Linear weights of one unit in one block."""
    sizes: Mapping[str, int]
    """What the config says of one unit, or of all units together (``head_dim``)."""
    bias: str | None
    """What gives the layers biases in the config."""

    def config(self, units: int) -> dict[str, int]:
        """The values of the config for another number of units."""
        return {name: size if name == "head_dim" else size * units for name, size in self.sizes.items()}


def parts_of(model: PreTrainedModel, blocks: list[DecoderBlock], modules: str) -> list[Part]:
    """What can be taken out of the selected layers: heads first, then channels.

    Raises:
        UnsupportedModelError: the architecture is not one of the known ones, or its blocks differ in width.
        BadOptionError: ``modules=attention`` where no head can go.
    """
    config = model.config.get_text_config()
    if layer := next((layer for block in blocks for layer in block.layers if layer.expert), None):
        raise UnsupportedModelError(
            f"{layer.name} belongs to an expert: pruner 'width' takes channels out that all tokens go through: "
            "want depth, or a pruner that zeroes weights"
        )
    if config.model_type not in FAMILIES:
        raise UnsupportedModelError(f"model type {shown(config.model_type)}: pruner 'width' knows {', '.join(FAMILIES)}")
    family, parts = FAMILIES[config.model_type], []
    if modules == "attention" and not family.attention:
        able = ", ".join(name for name, other in FAMILIES.items() if other.attention)
        raise BadOptionError(
            f"modules='attention': heads cannot be taken out of {config.model_type} models, whose config has no size of a head: "
            f"want ffn or all, or a model of type {able}"
        )
    if modules != "ffn" and family.attention:
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        sizes = {"num_key_value_heads": 1, "num_attention_heads": heads // groups}
        sizes["head_dim"] = blocks[0].module.get_submodule(family.attention).head_dim
        writers = tuple(f"{family.attention}.{name}_proj" for name in "qkv")
        parts.append(Part("heads", writers, f"{family.attention}.o_proj", groups, 0, sizes, family.biases.get("attention")))
    if modules != "attention":
        channels = _layers(blocks[0])[family.reader].in_features
        parts.append(Part("channels", family.writers, family.reader, channels, 0, {family.channels: 1}, family.biases.get("ffn")))
    parts = [part._replace(weights=sum(layer.weight.numel() for layer in layers_of(blocks[0], part)) // part.units) for part in parts]
    for block in blocks:
        for part in parts:
            for layer, first in zip(layers_of(block, part), layers_of(blocks[0], part), strict=True):
                if layer.weight.shape != first.weight.shape:
                    raise UnsupportedModelError(f"{layer.name} differs in width from {first.name}: pruner 'width' wants one for all blocks")
    return parts


def layers_of(block: DecoderBlock, part: Part) -> list[LinearLayer]:
    """The writers of a part, and its reader last."""
    layers = _layers(block)
    return [layers[name] for name in (*part.writers, part.reader)]


def _layers(block: DecoderBlock) -> dict[str, LinearLayer]:
    return {layer.name.removeprefix(f"{block.name}."): layer for layer in block.layers}


def widths_allowed(model: PreTrainedModel, part: Part) -> list[int]:
    """How many units of a part may stay: any number for channels, for heads those that the config's own checks let pass."""
    if part.title == "channels":
        return list(range(1, part.units + 1))
    return [units for units in range(1, part.units + 1) if _allowed(model, part.config(units))]


def _allowed(model: PreTrainedModel, changes: Mapping[str, Any]) -> bool:
    config = copy.deepcopy(model.config.get_text_config())
    try:
        for name, value in changes.items():
            setattr(config, name, value)
        type(config).from_dict(config.to_dict())
    except Exception:  # whatever a config raises, it would not load from a file
        return False
    return True


def keep(layer: nn.Module, *, outputs: torch.Tensor | None = None, inputs: torch.Tensor | None = None) -> None:
    """Cuts a linear layer, or GPT-2's ``Conv1D``, down to some of its outputs or inputs (int64 indices)."""
    from transformers.pytorch_utils import Conv1D  # here: the list of pruners needs no transformers

    transposed = isinstance(layer, Conv1D)
    if outputs is not None:
        _select(layer, "weight", outputs, 1 if transposed else 0)
        setattr(layer, "nf" if transposed else "out_features", len(outputs))
        if layer.bias is not None:
            _select(layer, "bias", outputs, 0)
    if inputs is not None:
        _select(layer, "weight", inputs, 0 if transposed else 1)
        setattr(layer, "nx" if transposed else "in_features", len(inputs))


def _select(layer: nn.Module, name: str, indices: torch.Tensor, dim: int) -> None:
    old: nn.Parameter = getattr(layer, name)
    setattr(layer, name, nn.Parameter(old.data.index_select(dim, indices.to(old.device)), requires_grad=old.requires_grad))
