"""Looks at what of the decoder blocks stays dense, and refuses models of which that would be more than a small share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness_ext.engine.kinds import KINDS, kind_of
from harness_ext.engine.layers import DecoderBlock, LinearLayer, linear_layers
from harness_ext.engine.routers import Routers
from harness_ext.engine.selection import selects
from harness_ext.engine.shared_memory import shared_memory
from harness_ext.errors import UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DENSE_LIMIT = 0.02
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PACKED = (torch.int8, torch.uint8, torch.int16, torch.int32)  # what quantisation libraries pack weights into
STATE = re.compile(r"^A(_log)?$|^time_(mix|decay|first)")  # what state spaces and RWKV call the numbers of their states and channels
ONE_DEVICE = "load the whole model onto one device, or write it with harness-ext prune --stream, and load what that wrote"


def check_coverage(
    model: PreTrainedModel, blocks: list[DecoderBlock], modules: str = "all", *, dense_limit: float = DENSE_LIMIT, in_memory: bool = True
) -> None:
    """Refuses blocks that would be pruned in part only, so that no model is pruned by half without a word.

    Args:
        blocks: as :func:`~harness_ext.engine.layers.find_blocks` finds them with ``modules``.
        dense_limit: how large a share of the selected weights of a block may be in parameters that are not matrices of linear layers.
        in_memory: whether the weights should be there by now.

    Raises:
        UnsupportedModelError: for example quantised layers, a weight that is shared, one that is not in memory, or several devices.
    """
    if in_memory:
        _check_devices(blocks)
    shared = shared_memory(dict(model.named_parameters(remove_duplicate=False)))
    for block in blocks:
        _check_adapters(block)
        _check_packed(block)
        _check_share(block, modules, dense_limit)
        for layer in block.layers:
            weight = layer.stored
            if others := shared.get(layer.parameter_name):
                raise UnsupportedModelError(f"{layer.name} shares its weight with {', '.join(others)}: it cannot be pruned alone")
            if weight.dtype not in DTYPES or type(weight.data) is not torch.Tensor:
                kind = weight.dtype if weight.dtype not in DTYPES else type(weight.data).__name__
                raise UnsupportedModelError(f"{layer.name} has a weight of {kind}: load the model in bf16, fp16 or fp32")
            if in_memory and weight.is_meta:
                raise UnsupportedModelError(f"{layer.name} is not in memory (it was offloaded): {ONE_DEVICE}")


def dense_parts(blocks: Sequence[DecoderBlock]) -> dict[str, Any]:
    """The parameters of blocks that stay dense, for the pruning record.

    Returns:
        by name, with ``*`` for numbers, such as that of the block: ``weights``, how many there are in all blocks together, and ``share``,
        of all parameters of these blocks.
    """
    sizes: dict[str, int] = {}
    total = 0
    for block in blocks:
        total += sum(parameter.numel() for parameter in block.module.parameters())
        for name, size in _left_over(block, tuple(linear_layers(block.name, block.module))).items():
            pattern = re.sub(r"\.\d+(?=\.|$)", ".*", f"{block.name}.{name}")
            sizes[pattern] = sizes.get(pattern, 0) + size
    return {name: {"weights": size, "share": size / total} for name, size in sizes.items()}


def _left_over(block: DecoderBlock, layers: Sequence[LinearLayer]) -> dict[str, int]:
    """The parameters of a block that hold weights of none of these layers, by name in the block, and how many such weights they hold."""
    pruned: dict[int, int] = {}
    for layer in layers:
        pruned[id(layer.stored)] = pruned.get(id(layer.stored), 0) + layer.weight.numel()
    sizes = {name: parameter.numel() - pruned.get(id(parameter), 0) for name, parameter in block.module.named_parameters()}
    return {name: size for name, size in sizes.items() if size}


def _check_share(block: DecoderBlock, modules: str, limit: float) -> None:
    """Compares what could have been pruned, had it been a linear layer, with the layers that were selected."""
    parameters = dict(block.module.named_parameters())
    layers = tuple(linear_layers(block.name, block.module))
    left_over = _left_over(block, layers)
    if packed := next((name for name in left_over if parameters[name].dtype in PACKED and parameters[name].ndim >= 2), None):
        raise UnsupportedModelError(f"{block.name}.{packed} holds a quantised weight: load the model in bf16, fp16 or fp32")
    routers = Routers(block.module, block.name)
    own = {
        name: size
        for name, size in left_over.items()
        if selects(modules, f"{block.name}.{name}", kind_of(block.module, name))
        and _could_be_linear(block, name, parameters[name], layers, routers)
    }
    dense, selected = sum(own.values()), sum(layer.weight.numel() for layer in block.layers)
    if dense > limit * (dense + selected):
        largest = max(own, key=lambda name: own[name])
        of = "" if modules == "all" else f"{modules} " if modules in KINDS else "selected "
        raise UnsupportedModelError(
            f"{block.name}.{largest} {tuple(parameters[largest].shape)} is not a matrix of a linear layer: "
            f"{dense / (dense + selected):.1%} of the {of}weights of this block would stay dense, dense_limit is {limit:.3g}"
        )


def _could_be_linear(block: DecoderBlock, name: str, parameter: nn.Parameter, layers: Sequence[LinearLayer], routers: Routers) -> bool:
    """Whether a parameter may hold a matrix that maps tokens. Vectors, norms, biases, states and depthwise convolutions hold one number for
    each channel and offset; what chooses experts is meant to stay dense, and so is what no expert uses.
    """
    path, _, leaf = name.rpartition(".")
    module = block.module.get_submodule(path)
    if parameter.ndim < 2 or "norm" in f"{name}.{type(module).__name__}".lower() or "bias" in leaf.lower() or STATE.search(leaf):
        return False
    if isinstance(module, nn.modules.conv._ConvNd) and module.groups == module.in_channels > 1:
        return False
    if any(layer.stored is parameter for layer in layers):
        return False
    return not routers.has(path, len(parameter), kind_of(block.module, name))


def _check_packed(block: DecoderBlock) -> None:
    for name, buffer in block.module.named_buffers():
        if buffer.ndim == 2 and min(buffer.shape) > 1 and buffer.dtype in PACKED:
            raise UnsupportedModelError(f"{block.name}.{name} holds a quantised weight: load the model in bf16, fp16 or fp32")


def _check_devices(blocks: list[DecoderBlock]) -> None:
    devices = sorted({str(layer.stored.device) for block in blocks for layer in block.layers} - {"meta"})
    if len(devices) > 1:
        raise UnsupportedModelError(f"the decoder layers are on {' and '.join(devices)}: {ONE_DEVICE}")


def _check_adapters(block: DecoderBlock) -> None:
    for name, module in block.module.named_modules():
        if isinstance(getattr(module, "base_layer", None), nn.Module):  # what adapter libraries call the layer that they wrap
            raise UnsupportedModelError(
                f"{block.name}.{name} carries an adapter: merge it into the weights first (model = model.merge_and_unload() in peft)"
            )
