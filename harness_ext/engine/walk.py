"""Walks calibration tokens through a model block by block, and measures what reaches each linear layer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from harness_ext.engine import checks, ranks
from harness_ext.engine.layers import DecoderBlock, LinearLayer
from harness_ext.engine.memory import give_back
from harness_ext.engine.placement import Placement
from harness_ext.engine.stopwatch import Stopwatch
from harness_ext.errors import NumericalError, PluginError, UnsupportedModelError
from harness_ext.method.statistic import Statistic

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_TOKENS = 1024  # that go through a block at once: on a CPU, what larger batches save they lose by fetching memory anew each time
BATCH_TOKENS_ON_DEVICE = 16384  # what keeps an accelerator busy

Kinds = list[type[Statistic]]
Stages = Generator[tuple[list[LinearLayer], list[Statistic]], None, None]
"""Layers that read one tensor, and the statistics of it; these are to be let go of before the next are asked for."""


class Call(NamedTuple):
    """How a block is called for one batch, its hidden states aside."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Walk:
    """The calibration tokens on their way through the model: at any time, the hidden states in front of one block.

    With several processes each walks its share of the tokens; what is measured is added up over all of them.

    Args:
        placement: brings the weights of a block. What is outside the blocks computes the hidden states in front of the first one.
        blocks: all decoder blocks in order.
        input_ids: int64 [samples, length].
        dtype: of the statistics, float32 or float64.

    Raises:
        UnsupportedModelError: the model does not call each block once, with hidden states first.
    """

    def __init__(
        self, placement: Placement, blocks: list[DecoderBlock], input_ids: torch.Tensor, dtype: torch.dtype, stopwatch: Stopwatch
    ) -> None:
        self.placement, self.blocks, self.dtype, self.stopwatch = placement, blocks, dtype, stopwatch
        tokens = BATCH_TOKENS if placement.device.type == "cpu" else BATCH_TOKENS_ON_DEVICE
        batches = torch.split(ranks.share(input_ids).to(placement.device), max(1, tokens // input_ids.shape[1]))
        with stopwatch("forward"):
            self.hidden, self._calls = _record_calls(placement, blocks, batches)
        give_back()

    def measure(self, index: int, kinds: Kinds) -> Stages:
        """Runs a block, which must be in place, as far as its last selected layer. Yields the layers that read one tensor, with the
        statistics of that tensor.

        Args:
            index: the number of the block.
            kinds: what to measure.

        Raises:
            NumericalError: an input is NaN or infinite; names the layer.
            UnsupportedModelError: a layer was not called.
        """
        yield from self._measure(index, self.blocks[index].layers, kinds)

    def measure_in_order(self, index: int, kinds: Kinds) -> Stages:
        """As :meth:`measure`, in the order in which the block uses its layers. The layers of a stage are to be pruned before the next
        stage is asked for: the block then runs again, up to the layers of the next stage, which so read the outputs of pruned layers.

        Raises:
            NumericalError, UnsupportedModelError: as :meth:`measure`; also for a layer that is used more than once.
        """
        block = self.blocks[index]
        listening = _Listening(block.layers, lambda layer: self.new_reading(layer, []), self.stopwatch)
        with self.stopwatch("forward"), listening, torch.no_grad(), listening.one_batch():
            self.call(index, 0)
        order = listening.groups()
        if not listening.once:
            repeated = next(name for name, count in listening.calls.items() if count > 1)
            raise UnsupportedModelError(f"{repeated} is used more than once in its block: true_sequential has no order for it")
        for layers in order.values():
            yield from self._measure(index, layers, kinds, once=True)

    def _measure(self, index: int, layers: Sequence[LinearLayer], kinds: Kinds, *, once: bool = False) -> Stages:
        listening = _Listening(layers, lambda layer: self.new_reading(layer, kinds), self.stopwatch, once=once)
        with self.stopwatch("forward"), listening:
            for batch in range(len(self.hidden)):
                with torch.no_grad(), listening.one_batch():
                    self.call(index, batch)
        give_back()
        groups = listening.groups()
        with self.stopwatch("statistics"):
            measured = [(group, listening.readings.pop(owner).finish()) for owner, group in groups.items()]
        while measured:
            yield measured.pop(0)

    def advance(self, index: int) -> None:
        """Runs a block, which must be in place, to its end: its output is the next block's input.

        Raises:
            NumericalError: the output has NaN or infinite values; names the block.
        """
        finite = True
        with self.stopwatch("forward"), torch.no_grad():
            for batch, hidden in enumerate(self.hidden):
                output = self.call(index, batch)
                # A sum is read faster than every element. It is not finite if an element is not; a sum that overflows is looked at again.
                finite = finite and bool(output.sum().isfinite() or output.isfinite().all())
                hidden.copy_(output)  # in place: the allocator would keep freed tensors of this size and double the peak
        give_back()
        if not ranks.all_true(finite):
            raise NumericalError(f"{self.blocks[index].name}: the output has NaN or infinite values")

    def call(self, index: int, batch: int) -> torch.Tensor:
        """What a block, which must be in place, makes of a batch."""
        result = _call(self.blocks[index], self.hidden[batch], self._calls[batch][index])
        output: torch.Tensor = result[0] if isinstance(result, tuple) else result
        return output

    def new_reading(self, layer: LinearLayer, kinds: Kinds) -> Reading:
        """Nothing measured yet of what a layer reads."""
        return Reading(layer, [kind(layer.in_features, self.placement.device, self.dtype) for kind in kinds], self.dtype)


def unmeasured(block: DecoderBlock) -> Stages:
    """The stages of a block of which nothing is measured: each selected layer by itself."""
    for layer in block.layers:
        yield [layer], []


def _call(block: DecoderBlock, hidden: torch.Tensor, call: Call) -> Any:
    return block.module(hidden, *call.args, **call.kwargs)


def _record_calls(
    placement: Placement, blocks: list[DecoderBlock], batches: tuple[torch.Tensor, ...]
) -> tuple[list[torch.Tensor], list[list[Call]]]:
    """The hidden states that enter the first block and, for each batch and block, all other arguments of the call.

    The blocks are not computed, but one of each class once, to see what it returns: each is replaced by one that takes note of its call
    and returns the hidden states as they came. Masks and position embeddings that are equal from batch to batch are kept once. The LM
    head is left out, whose output would be larger than all else.
    """
    hidden: list[torch.Tensor] = []
    calls: list[list[Call]] = []
    rest: dict[type, tuple[Any, ...] | None] = {}  # what a block returns after the hidden states; None if it returns them alone

    def listen(index: int, block: DecoderBlock) -> Callable[..., Any]:
        compute = block.module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if args:
                states, args = args[0], args[1:]
            else:
                states = kwargs.pop("hidden_states", None)
            if not isinstance(states, torch.Tensor):
                raise UnsupportedModelError(f"{block.name} is not called with hidden states first: the model cannot be walked")
            if index == 0:
                hidden.append(states.clone())  # which will be written into; the model may pass its own on to a block as well
                calls.append([])
            kind = type(block.module)
            if kind not in rest:
                with placement.loaded(block, write=False):
                    output = compute(states, *args, **kwargs)
                rest[kind] = output[1:] if isinstance(output, tuple) else None
            calls[-1].append(_share(Call(args, kwargs), calls[-2][index] if len(calls) > 1 else None))
            others = rest[kind]
            return states if others is None else (states, *others)

        return forward

    model: PreTrainedModel = placement.model
    with ExitStack() as stack, torch.no_grad():
        for index, block in enumerate(blocks):
            stack.callback(_restore_forward, block.module, block.module.__dict__.get("forward"))
            block.module.forward = listen(index, block)
        for batch in batches:
            model.base_model(input_ids=batch, attention_mask=torch.ones_like(batch), use_cache=False)
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


class _Enough(Exception):
    """All selected layers of a block have read this batch."""


class Reading:
    """The statistics of the layers that read one tensor, while batches of it come in.

    Args:
        layer: the first of them.
        dtype: of the statistics.
    """

    def __init__(self, layer: LinearLayer, statistics: list[Statistic], dtype: torch.dtype) -> None:
        self.layer, self.statistics, self.dtype = layer, statistics, dtype
        self.finite = True

    def update(self, inputs: torch.Tensor) -> None:
        """Adds a batch, [..., in_features] of any floating dtype."""
        tokens = inputs.reshape(-1, self.layer.in_features).to(self.dtype)
        for statistic in self.statistics:
            if not statistic.additive and not tokens.isfinite().all():  # the others show it in what they add up
                self.finite = False
            blame = f"statistic {type(statistic).__qualname__} broke its contract on {self.layer.name}"
            with checks.untouched([tokens], "the inputs that it was given", blame):
                statistic.update(tokens)

    def finish(self) -> list[Statistic]:
        """Adds the statistics up over all processes and checks them.

        Raises:
            NumericalError: an input is NaN or infinite; names the layer.
        """
        for statistic in self.statistics:
            ranks.all_reduce(statistic, self.layer.name)
            try:
                statistic.check()
            except (NumericalError, PluginError) as error:
                raise type(error)(f"{self.layer.name}: {error}") from error
        if not ranks.all_true(self.finite):
            raise NumericalError(f"{self.layer.name}: the input has NaN or infinite values")
        return self.statistics


class _Listening:
    """Listens to the inputs of some layers of one block."""

    def __init__(
        self, layers: Sequence[LinearLayer], new_reading: Callable[[LinearLayer], Reading], stopwatch: Stopwatch, *, once: bool = False
    ) -> None:
        self.layers, self.new_reading, self.stopwatch = layers, new_reading, stopwatch
        self.owners: dict[str, str] = {}  # layer -> the first layer that reads the same tensor
        self.readings: dict[str, Reading] = {}  # by owner
        self.calls: dict[str, int] = {layer.name: 0 for layer in layers}  # in this batch
        self.once = once  # whether a batch goes through each layer exactly once, so that it can stop at the last; the first batch tells
        self.tensor: Any = None  # the last one read, and by whom
        self.owner = ""

    def __enter__(self) -> _Listening:
        self.handles = [layer.module.register_forward_pre_hook(self._hook(layer)) for layer in self.layers]
        return self

    def __exit__(self, *_: object) -> None:
        self.tensor = None
        for handle in self.handles:
            handle.remove()

    @contextmanager
    def one_batch(self) -> Iterator[None]:
        """Around the call of the block with one batch."""
        first = not self.owners
        self.calls = dict.fromkeys(self.calls, 0)
        with suppress(_Enough):
            yield
        if first:
            self.once = all(count == 1 for count in self.calls.values())

    def _hook(self, layer: LinearLayer) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            inputs = args[0]
            self.calls[layer.name] += 1
            if layer.name not in self.owners:
                self.owners[layer.name] = self.owner if inputs is self.tensor else layer.name
            owner = self.owners[layer.name]
            self.tensor, self.owner = inputs, owner
            if owner == layer.name:
                with self.stopwatch("statistics"):
                    if owner not in self.readings:
                        self.readings[owner] = self.new_reading(layer)
                    self.readings[owner].update(inputs)
            if self.once and all(self.calls.values()):
                raise _Enough

        return hook

    def groups(self) -> dict[str, list[LinearLayer]]:
        """The layers that read one tensor, by the first of them, in the order in which they were called.

        Raises:
            UnsupportedModelError: a layer was not called, by this process or another.
        """
        if not ranks.all_true(len(self.owners) == len(self.layers)):
            idle = [layer.name for layer in self.layers if layer.name not in self.owners] or ["a layer of another process"]
            raise UnsupportedModelError(f"{idle[0]} was not used by the calibration tokens: it cannot be pruned from statistics")
        found: dict[str, list[LinearLayer]] = {owner: [] for owner in self.owners.values()}
        for layer in self.layers:
            found[self.owners[layer.name]].append(layer)
        return found
