"""Finds the decoder layers of a causal language model and the linear layers in them; the only file that knows architectures."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from harness_ext.errors import BadOptionError, UnsupportedModelError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KINDS = ("all", "attention", "ffn")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PACKED = (torch.int8, torch.uint8, torch.int16, torch.int32)  # what quantisation libraries pack weights into
ONE_DEVICE = "load the whole model onto one device, or write it with harness-ext prune --stream, and load what that wrote"


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer of a decoder block: ``nn.Linear``, or GPT-2's ``Conv1D``, whose weight is stored transposed."""

    name: str
    """The full name of the module, such as ``model.layers.0.self_attn.q_proj``."""
    kind: str
    """``attention`` or ``ffn``."""
    module: nn.Module

    @property
    def in_features(self) -> int:
        return self.module.weight.shape[0 if isinstance(self.module, Conv1D) else 1]  # type: ignore[index, return-value]

    @property
    def weight(self) -> torch.Tensor:
        """A view of the weight as [out_features, in_features]."""
        weight: torch.Tensor = self.module.weight.data  # type: ignore[assignment]
        return weight.T if isinstance(self.module, Conv1D) else weight

    def write(self, weight: torch.Tensor) -> None:
        """Copies a new [out_features, in_features] weight into the module, in the module's own dtype."""
        with torch.no_grad():
            self.weight.copy_(weight)


@dataclass(frozen=True)
class DecoderBlock:
    """A decoder block and the linear layers in it that were selected."""

    name: str
    module: nn.Module
    layers: tuple[LinearLayer, ...]


Layer, Block = LinearLayer, DecoderBlock  # the names that plugins of version 0.1 import


def find_blocks(model: PreTrainedModel, modules: str = "all") -> list[DecoderBlock]:
    """The decoder blocks in order, with the linear layers that ``modules`` selects.

    Args:
        modules: ``all``, ``attention``, ``ffn``, or a glob over full module names such as ``*.q_proj``.

    Raises:
        UnsupportedModelError: no single list of decoder blocks, or weights in them that are not linear layers.
        BadOptionError: ``modules`` selects nothing.
    """
    name, blocks = _block_list(model)
    found = [DecoderBlock(f"{name}.{i}", block, tuple(_linear_layers(f"{name}.{i}", block))) for i, block in enumerate(blocks)]
    chosen = [DecoderBlock(b.name, b.module, tuple(layer for layer in b.layers if _selects(modules, layer))) for b in found]
    if not any(block.layers for block in chosen):
        names = [layer.name for block in found for layer in block.layers]
        raise BadOptionError(
            f"modules={modules!r} selects no layer: want all, attention, ffn, or a glob such as '*.{names[0].rsplit('.', 1)[-1]}'."
            + did_you_mean(modules, [*KINDS, *names])
        )
    return chosen


def _block_list(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    if model.config.is_encoder_decoder:
        raise UnsupportedModelError(f"{type(model).__name__} has an encoder and a decoder: want a decoder-only model")
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and any(True for _ in _linear_layers(name, module))
    ]
    lists = [(name, module) for name, module in lists if not any(name.startswith(outer + ".") for outer, _ in lists if outer != name)]
    if len(lists) > 1 and model.config.get_text_config() is not model.config:  # a multimodal model: its text decoder is meant
        inside = {id(module) for module in model.get_decoder().modules()}
        lists = [(name, module) for name, module in lists if id(module) in inside]
    if len(lists) != 1:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be walked: want one list of {depth} decoder layers with linear layers in them, "
            f"found {len(lists)}" + (f" ({', '.join(name for name, _ in lists)})" if lists else "")
        )
    return lists[0]


def _linear_layers(prefix: str, block: nn.Module) -> Iterator[LinearLayer]:
    for name, module in block.named_modules():
        if type(module) is nn.Linear or isinstance(module, Conv1D):
            kind = "attention" if "attn" in name or "attention" in name else "ffn"
            yield LinearLayer(f"{prefix}.{name}", kind, module)


def check_coverage(model: PreTrainedModel, blocks: list[DecoderBlock], *, in_memory: bool = True) -> None:
    """Refuses blocks with matrices that are not plain linear layers, so that no model is pruned by half without a word.

    Args:
        in_memory: whether the weights should be there by now.

    Raises:
        UnsupportedModelError: for example fused experts, quantised layers, a weight that is shared, one that is not in memory, or several
            devices.
    """
    if in_memory:
        _check_devices(blocks)
    holders: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        holders.setdefault(id(parameter), []).append(name)
    for block in blocks:
        _check_adapters(block)
        plain = {id(layer.module.weight) for layer in _linear_layers(block.name, block.module)}
        for name, parameter in block.module.named_parameters():
            if parameter.ndim >= 2 and id(parameter) not in plain:
                raise UnsupportedModelError(
                    f"{block.name}.{name} {tuple(parameter.shape)} is not the weight of a plain linear layer: "
                    "fused experts, convolutions and quantised layers cannot be pruned"
                )
        for name, buffer in block.module.named_buffers():
            if buffer.ndim == 2 and min(buffer.shape) > 1 and buffer.dtype in PACKED:
                raise UnsupportedModelError(f"{block.name}.{name} holds a quantised weight: load the model in bf16, fp16 or fp32")
        for layer in block.layers:
            weight: torch.Tensor = layer.module.weight  # type: ignore[assignment]
            if others := [name for name in holders[id(weight)] if name != f"{layer.name}.weight"]:
                raise UnsupportedModelError(f"{layer.name} shares its weight with {', '.join(others)}: it cannot be pruned alone")
            if weight.dtype not in DTYPES or type(weight.data) is not torch.Tensor:
                kind = weight.dtype if weight.dtype not in DTYPES else type(weight.data).__name__
                raise UnsupportedModelError(f"{layer.name} has a weight of {kind}: load the model in bf16, fp16 or fp32")
            if in_memory and weight.is_meta:
                raise UnsupportedModelError(f"{layer.name} is not in memory (it was offloaded): {ONE_DEVICE}")


def _check_devices(blocks: list[DecoderBlock]) -> None:
    devices = sorted({str(layer.module.weight.device) for block in blocks for layer in block.layers} - {"meta"})
    if len(devices) > 1:
        raise UnsupportedModelError(f"the decoder layers are on {' and '.join(devices)}: {ONE_DEVICE}")


def _check_adapters(block: DecoderBlock) -> None:
    for name, module in block.module.named_modules():
        if isinstance(getattr(module, "base_layer", None), nn.Module):  # what adapter libraries call the layer that they wrap
            raise UnsupportedModelError(
                f"{block.name}.{name} carries an adapter: merge it into the weights first (model = model.merge_and_unload() in peft)"
            )


def _selects(modules: str, layer: LinearLayer) -> bool:
    if modules in KINDS:
        return modules in ("all", layer.kind)
    return fnmatch.fnmatchcase(layer.name, modules)
