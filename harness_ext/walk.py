"""Walks a model block by block: measures what reaches each linear layer, lets a pruner replace the weights, feeds the result on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from harness_ext.errors import NumericalError, UnsupportedModelError
from harness_ext.layers import Block, Layer
from harness_ext.statistic import Statistic

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_TOKENS = 8192  # calibration tokens that go through a block at once


class Call(NamedTuple):
    """How a block is called for one batch, its hidden states aside."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def measure_and_replace(
    model: PreTrainedModel,
    blocks: list[Block],
    input_ids: torch.Tensor,
    new_statistics: Callable[[int, torch.device], list[Statistic]],
    replace: Callable[[Layer, list[Statistic]], None],
) -> None:
    """Goes through the blocks in order. Only one block's statistics are alive at a time.

    Args:
        input_ids: int64 [samples, length].
        new_statistics: called with the width and device of an input; layers that read the same tensor share what it returns.
        replace: called with each selected layer and its statistics; writes the new weight.

    Raises:
        NumericalError: an activation is NaN or infinite; names the block.
    """
    batches = torch.split(input_ids.to(model.device), max(1, BATCH_TOKENS // input_ids.shape[1]))
    hidden, calls = _record_calls(model, blocks, batches)
    for index, block in enumerate(blocks):
        if block.layers:
            with _measuring(block, new_statistics) as statistics:
                for batch, states in enumerate(hidden):
                    _run(block, states, calls[batch][index])
            for layer in block.layers:
                replace(layer, statistics(layer))
        if any(later.layers for later in blocks[index + 1 :]):
            for batch, states in enumerate(hidden):
                hidden[batch] = _run(block, states, calls[batch][index])


def _run(block: Block, hidden: torch.Tensor, call: Call) -> torch.Tensor:
    with torch.no_grad():
        result = block.module(hidden, *call.args, **call.kwargs)
    output: torch.Tensor = result[0] if isinstance(result, tuple) else result
    if not output.isfinite().all():
        raise NumericalError(f"{block.name}: the output has NaN or infinite values")
    return output


def _record_calls(
    model: PreTrainedModel, blocks: list[Block], batches: tuple[torch.Tensor, ...]
) -> tuple[list[torch.Tensor], list[list[Call]]]:
    """The hidden states that enter the first block and, for each batch and block, all other arguments of the call.

    The blocks are not computed: each is replaced by one that takes note of its call and returns the hidden states as they came. Masks
    and position embeddings that are equal from batch to batch are kept once.
    """
    hidden: list[torch.Tensor] = []
    calls: list[list[Call]] = []
    rest: dict[int, tuple[Any, ...] | None] = {}  # what a block returns after the hidden states; None if it returns them alone

    def listen(index: int, block: nn.Module) -> Callable[..., Any]:
        compute = block.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if args:
                states, args = args[0], args[1:]
            else:
                states = kwargs.pop("hidden_states", None)
            if not isinstance(states, torch.Tensor):
                raise UnsupportedModelError(f"{blocks[index].name} is not called with hidden states first: the model cannot be walked")
            if index == 0:
                hidden.append(states)
                calls.append([])
            if index not in rest:
                output = compute(states, *args, **kwargs)
                rest[index] = output[1:] if isinstance(output, tuple) else None
            calls[-1].append(_share(Call(args, kwargs), calls[-2][index] if len(calls) > 1 else None))
            others = rest[index]
            return states if others is None else (states, *others)

        return forward

    with ExitStack() as stack, torch.no_grad():
        for index, block in enumerate(blocks):
            stack.callback(_restore_forward, block.module, block.module.__dict__.get("forward"))
            block.module.forward = listen(index, block.module)
        for batch in batches:
            model(input_ids=batch, attention_mask=torch.ones_like(batch), use_cache=False)
    if any(len(row) != len(blocks) for row in calls):
        raise UnsupportedModelError(f"{type(model).__name__} does not call each decoder layer once: it cannot be walked")
    return hidden, calls


def _restore_forward(module: nn.Module, own: Any) -> None:
    """Puts the instance's own ``forward`` back, where it had one (``accelerate`` sets it), or uncovers that of the class."""
    del module.forward
    if own is not None:
        module.forward = own


def _share(new: Any, old: Any) -> Any:
    """``new``, with every tensor that equals the one in the same place of ``old`` replaced by that one."""
    if isinstance(new, torch.Tensor) and isinstance(old, torch.Tensor):
        return old if new.shape == old.shape and new.dtype == old.dtype and torch.equal(new, old) else new
    if isinstance(new, Call) and isinstance(old, Call):
        return Call(_share(new.args, old.args), _share(new.kwargs, old.kwargs))
    if type(new) is tuple and type(old) is tuple and len(new) == len(old):
        return tuple(map(_share, new, old))
    if type(new) is dict and type(old) is dict:
        return {key: _share(value, old.get(key)) for key, value in new.items()}
    return new


@contextmanager
def _measuring(
    block: Block, new_statistics: Callable[[int, torch.device], list[Statistic]]
) -> Iterator[Callable[[Layer], list[Statistic]]]:
    """Listens to the inputs of the block's selected layers. Layers that read the very same tensor have one list of statistics."""
    owners: dict[str, str] = {}  # layer -> the first layer that reads the same tensor
    statistics: dict[str, list[Statistic]] = {}
    reading: dict[str, Any] = {"tensor": None, "owner": ""}

    def listen(layer: Layer) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            inputs = args[0]
            if layer.name not in owners:
                owners[layer.name] = reading["owner"] if inputs is reading["tensor"] else layer.name
            owner = owners[layer.name]
            reading["tensor"], reading["owner"] = inputs, owner
            if owner != layer.name:
                return
            if owner not in statistics:
                statistics[owner] = new_statistics(layer.in_features, inputs.device)
            if not inputs.isfinite().all():
                raise NumericalError(f"{layer.name}: the input has NaN or infinite values")
            tokens = inputs.reshape(-1, layer.in_features).float()
            for statistic in statistics[owner]:
                statistic.update(tokens)

        return hook

    def of(layer: Layer) -> list[Statistic]:
        if layer.name not in owners:
            raise UnsupportedModelError(f"{layer.name} was not used by the calibration tokens: it cannot be pruned from statistics")
        return statistics[owners[layer.name]]

    handles = [layer.module.register_forward_pre_hook(listen(layer)) for layer in block.layers]
    try:
        yield of
    finally:
        reading["tensor"] = None
        for handle in handles:
            handle.remove()
