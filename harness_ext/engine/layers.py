"""Finds the decoder blocks of a causal language model and the linear layers in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from harness_ext.engine.experts import Expert, Place, in_groups
from harness_ext.engine.kinds import kind_of
from harness_ext.engine.linear import is_linear, is_transposed, outputs
from harness_ext.engine.routers import Routers
from harness_ext.engine.selection import check_selection, parse_modules, selects
from harness_ext.errors import UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LinearLayer:
    """A matrix of a decoder block that maps each token: the weight of a module, or one expert's part of a parameter."""

    name: str
    """The full name, such as ``model.layers.0.self_attn.q_proj`` or ``model.layers.0.mlp.experts.5.up_proj``."""
    kind: str
    """``attention`` or ``ffn``."""
    module: nn.Module
    """The module that holds the weight."""
    expert: Expert | None = None
    """Which expert of the block the matrix belongs to."""
    parameter: str = "weight"
    """The name of the parameter in ``module``."""
    place: Place | None = None
    """Where in the parameter the matrix is, where the parameter holds several; else None."""

    @property
    def stored(self) -> nn.Parameter:
        """The whole parameter, as it is stored."""
        parameter: nn.Parameter = getattr(self.module, self.parameter)
        return parameter

    @property
    def module_name(self) -> str:
        """The full name of ``module``."""
        if self.place is None:
            return self.name
        return self.expert.group if self.expert else self.name.removesuffix(f".{self.place.number}")

    @property
    def parameter_name(self) -> str:
        """The full name of the parameter."""
        return f"{self.module_name}.{self.parameter}"

    @property
    def in_features(self) -> int:
        """The width of the input."""
        return self.weight.shape[1]

    @property
    def weight(self) -> torch.Tensor:
        """A view of the weight as [out_features, in_features]. GPT-2's ``Conv1D`` stores it transposed."""
        return self.part_of(self.stored.data)

    def part_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """A view of what belongs to this layer, as [out_features, in_features], of a tensor that is shaped as the parameter: a gradient."""
        if self.place is not None:
            return self.place.view(tensor)
        return tensor.T if is_transposed(self.module) else tensor

    def write(self, weight: torch.Tensor) -> None:
        """Copies a new [out_features, in_features] weight into the parameter, in the parameter's own dtype."""
        with torch.no_grad():
            self.weight.copy_(weight)


@dataclass(frozen=True)
class DecoderBlock:
    """A decoder block and the linear layers in it that were selected."""

    name: str
    """The full name, such as ``model.layers.0``."""
    module: nn.Module
    """The block itself."""
    layers: tuple[LinearLayer, ...]
    """The selected layers, in the order of the block's modules."""


def find_blocks(model: PreTrainedModel, modules: str | Sequence[str] = "all") -> list[DecoderBlock]:
    """Finds the decoder blocks of a model and the linear layers in them that ``modules`` selects. A layer that chooses experts is left out.

    Args:
        model: a causal language model of transformers. Its weights may be on the meta device.
        modules: ``all``, ``attention``, ``ffn``, or a glob over full layer names such as ``*.q_proj``; or several of them joined by ``+``
            or in a list, with exclusions: ``all+!model.layers.0.*``.

    Returns:
        all decoder blocks in order, also those in which no layer is selected.

    Raises:
        UnsupportedModelError: no single list of decoder blocks.
        BadOptionError: ``modules`` selects nothing, or a part of it matches no layer.

    Examples:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> from harness_ext import find_blocks
        >>> config = GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=2)
        >>> model = GPT2LMHeadModel(config)
        >>> blocks = find_blocks(model, "attention")
        >>> [block.name for block in blocks]
        ['transformer.h.0', 'transformer.h.1']
        >>> for layer in blocks[1].layers:
        ...     print(layer.name, list(layer.weight.shape))
        transformer.h.1.attn.c_attn [96, 32]
        transformer.h.1.attn.c_proj [32, 32]
    """
    modules = parse_modules(modules)
    name, blocks = _block_list(model)
    all_blocks = [DecoderBlock(f"{name}.{i}", block, tuple(linear_layers(f"{name}.{i}", block))) for i, block in enumerate(blocks)]
    check_selection(modules, [(layer.name, layer.kind) for block in all_blocks for layer in block.layers])
    return [
        DecoderBlock(b.name, b.module, tuple(layer for layer in b.layers if selects(modules, layer.name, layer.kind))) for b in all_blocks
    ]


def _block_list(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    if model.config.is_encoder_decoder:
        raise UnsupportedModelError(f"{type(model).__name__} has an encoder and a decoder: want a decoder-only model")
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and _holds_blocks(module)]
    lists = [(name, module) for name, module in lists if not any(name.startswith(outer + ".") for outer, _ in lists if outer != name)]
    if any(len(module) == depth for _, module in lists):  # LongCat's configuration counts two layers a block
        lists = [(name, module) for name, module in lists if len(module) == depth]
    if len(lists) > 1 and model.config.get_text_config() is not model.config:  # a multimodal model: its text decoder is meant
        inside = {id(module) for module in model.get_decoder().modules()}
        lists = [(name, module) for name, module in lists if id(module) in inside]
    if len(lists) != 1:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be walked: want one list of {depth} decoder layers with linear layers in them, "
            f"found {len(lists)}" + (f" ({', '.join(name for name, _ in lists)})" if lists else "")
        )
    return lists[0]


def _holds_blocks(modules: nn.ModuleList) -> bool:
    """Whether linear layers are in the items of a list, and are not the items themselves."""
    return any(is_linear(module) for item in modules for module in item.modules()) and not any(is_linear(item) for item in modules)


def linear_layers(prefix: str, block: nn.Module) -> Iterator[LinearLayer]:
    """All linear layers of a block but those that choose experts, in the order of the block's modules.

    Args:
        prefix: the full name of the block.
    """
    routers = Routers(block, prefix)
    for name, module in block.named_modules():
        kind = kind_of(block, name)
        for role, parameter, reads, place in routers.stored.get(name, ()):
            expert = Expert(f"{prefix}.{name}", place.number, place.of, role, reads)
            yield LinearLayer(".".join(filter(None, (prefix, name, str(place.number), role))), kind, module, expert, parameter, place)
        if not is_linear(module):
            for _, parameter, _, place in in_groups(name, module):
                yield LinearLayer(f"{prefix}.{name}.{place.number}", kind, module, None, parameter, place)
        elif found := routers.expert_of(name):
            group, number, count, role = found
            yield LinearLayer(f"{prefix}.{name}", kind, module, Expert(f"{prefix}.{group}", number, count, role, ""))
        elif not routers.has(name, outputs(module), kind):
            yield LinearLayer(f"{prefix}.{name}", kind, module)
