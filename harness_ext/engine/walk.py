"""Walks calibration tokens through a model block by block, and measures what reaches each linear layer."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from functools import partial

import torch

from harness_ext.engine import ranks
from harness_ext.engine.calls import Route, Source, call_block, hidden_in, leaves, may_be_written, record_calls, resolved
from harness_ext.engine.checks import tensors_of
from harness_ext.engine.hidden_states import HiddenStates
from harness_ext.engine.layers import DecoderBlock, LinearLayer
from harness_ext.engine.listening import Listening, Reading, Stage
from harness_ext.engine.memory import give_back
from harness_ext.engine.placement import Placement
from harness_ext.engine.stopwatch import Stopwatch
from harness_ext.errors import NumericalError, UnsupportedModelError
from harness_ext.method.statistic import Statistic

BATCH_TOKENS = 1024  # that go through a block at once: on a CPU, what larger batches save they lose by fetching memory anew each time
BATCH_TOKENS_ON_DEVICE = 16384  # what keeps an accelerator busy
EXPERT_BYTES = 4 * 2**30  # that the statistics of experts take at once; the block runs again for those that are left

Kinds = list[type[Statistic]]
Stages = Generator[Stage, None, None]


def batches_of(input_ids: torch.Tensor, device: torch.device) -> Sequence[torch.Tensor]:
    """This process's share of the sequences, on the device, in pieces that go through a block at once.

    Args:
        input_ids: int64 [samples, length].
    """
    tokens = BATCH_TOKENS if device.type == "cpu" else BATCH_TOKENS_ON_DEVICE
    return torch.split(ranks.share(input_ids).to(device), max(1, tokens // input_ids.shape[1]))


class Walk:
    """The calibration tokens on their way through the model: at any time, the hidden states in front of one block.

    With several processes each walks its share of the tokens; what is measured is added up over all of them.

    Args:
        placement: brings the weights of a block. What is outside the blocks computes the hidden states in front of the first one.
        blocks: all decoder blocks in order.
        batches: int64 [sequences, length] each.
        dtype: of the statistics, float32 or float64.
        route: how blocks are called with what earlier blocks returned.
        every_token: whether experts are measured on all tokens, not on those that are sent to them.

    Raises:
        UnsupportedModelError: the model does not call each block once, with hidden states first.
    """

    def __init__(
        self,
        placement: Placement,
        blocks: list[DecoderBlock],
        batches: Sequence[torch.Tensor],
        dtype: torch.dtype,
        stopwatch: Stopwatch,
        route: Route,
        *,
        every_token: bool = False,
    ) -> None:
        self.placement, self.blocks, self.dtype, self.stopwatch, self.route = placement, blocks, dtype, stopwatch, route
        self.every_token = every_token
        with stopwatch("forward"):
            self.hidden = HiddenStates(placement.device)
            self._calls = record_calls(placement.model, blocks, route, batches, self.hidden)
        self._carried: list[dict[Source, torch.Tensor]] = [{} for _ in batches]
        """By batch: what blocks returned besides hidden states that later blocks are called with."""
        self._sizes: dict[int, int] = {}  # of statistics, by the width of what they measure
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
        """As :meth:`measure`, in the order in which the block uses its layers. Prune the layers of a stage before
        the next stage is asked for. The block then runs again, up to the layers of the next stage, and these read the outputs of pruned
        layers.

        What all experts do at once is one stage: the gate and up projections, and then the down projections.

        Raises:
            NumericalError, UnsupportedModelError: as :meth:`measure`; also for a layer that is used more than once.
        """
        listening = self._listening(index, self.blocks[index].layers, [])
        with self.stopwatch("forward"), listening, torch.no_grad():
            listening.run_all([partial(self.call, index, 0)])
        groups = listening.groups()
        for layer in listening.called:
            if layer.expert is None and listening.calls[layer.name] > 1:
                raise UnsupportedModelError(f"{layer.name} is used more than once in its block: true_sequential has no order for it")
        for layers in _in_order(groups.values()):
            yield from self._measure(index, layers, kinds, once=True)

    def _measure(self, index: int, layers: Sequence[LinearLayer], kinds: Kinds, *, once: bool = False) -> Stages:
        parts = self._parts(layers, kinds)
        pruned: list[tuple[LinearLayer, torch.Tensor, torch.Tensor]] = []  # in earlier parts: the dense and the new weight
        for number, part in enumerate(parts):
            for layer, dense, _ in pruned:
                layer.write(dense)
            stages = self._measure_part(index, part, kinds, once=once)
            for layer, _, new in pruned:
                layer.write(new)
            while stages:
                stage = stages.pop(0)
                if number == len(parts) - 1:
                    yield stage
                else:  # the parts to come are measured on the dense layers of this one
                    dense_weights = [layer.weight.clone() for layer in stage.layers]
                    yield stage
                    pruned += [(layer, dense, layer.weight.clone()) for layer, dense in zip(stage.layers, dense_weights, strict=True)]

    def _measure_part(self, index: int, layers: Sequence[LinearLayer], kinds: Kinds, *, once: bool) -> list[Stage]:
        listening = self._listening(index, layers, kinds, once=once)
        with self.stopwatch("forward"), listening, torch.no_grad():
            listening.run_all(partial(self.call, index, batch) for batch in range(len(self.hidden)))
        give_back()
        groups = listening.groups()
        with self.stopwatch("statistics"):
            return [Stage(group, *listening.readings.pop(owner).finish()) for owner, group in groups.items()]

    def _parts(self, layers: Sequence[LinearLayer], kinds: Kinds) -> list[list[LinearLayer]]:
        """The layers in parts that are measured one after the other: experts in so many as their statistics want."""
        parts: list[list[LinearLayer]] = [[layer for layer in layers if layer.expert is None]]
        experts: dict[tuple[str, int], list[LinearLayer]] = {}
        for layer in layers:
            if layer.expert:
                experts.setdefault((layer.expert.group, layer.expert.number), []).append(layer)
        left = EXPERT_BYTES
        for own in experts.values():
            readers = {layer.expert.reads or layer.name: layer for layer in own if layer.expert}
            size = sum(self._size(layer, kinds) for layer in readers.values())
            if size > left < EXPERT_BYTES:
                parts.append([])
                left = EXPERT_BYTES
            parts[-1] += own
            left -= size
        return parts

    def _size(self, layer: LinearLayer, kinds: Kinds) -> int:
        """The bytes of the statistics of a layer."""
        width = layer.in_features
        if width not in self._sizes:
            made = [kind(width, torch.device("cpu"), self.dtype) for kind in kinds]
            self._sizes[width] = sum(tensor.nbytes for statistic in made for tensor in tensors_of(statistic))
        return self._sizes[width]

    def _listening(self, index: int, layers: Sequence[LinearLayer], kinds: Kinds, *, once: bool = False) -> Listening:
        def new_reading(layer: LinearLayer) -> Reading:
            return Reading(layer, [kind(layer.in_features, self.placement.device, self.dtype) for kind in kinds], self.dtype)

        block, by_product = self.blocks[index], self.route.by_product
        return Listening(block, layers, new_reading, self.stopwatch, by_product=by_product, every_token=self.every_token, once=once)

    def advance(self, index: int, *, check: bool = True) -> None:
        """Runs a block, which must be in place, to its end: its output is the next block's input.

        Args:
            check: whether to look for values that are not finite, in all processes.

        Raises:
            NumericalError: the output has NaN or infinite values; names the block.
        """
        block, sums = self.blocks[index], []
        with self.stopwatch("forward"), torch.no_grad():
            for batch, carried in enumerate(self._carried):
                result = self._result(index, batch, again=False)
                output = hidden_in(result, block.name)
                for path, tensor in leaves(result):
                    if self.route.last_use.get(Source(index, path), -1) > index:
                        carried[Source(index, path)] = tensor.clone() if tensor is output else tensor
                for source in [source for source in carried if self.route.last_use[source] <= index]:
                    del carried[source]
                if check:
                    sums.append(output.sum())
                self.hidden.replace(batch, output)
        give_back()
        # A sum is read faster than every element. It is not finite if an element is not; where a sum overflows all are looked at again.
        finite = not sums or bool(torch.stack(sums).isfinite().all()) or all(bool(hidden.isfinite().all()) for hidden in self.hidden)
        if check and not ranks.all_true(finite):
            raise NumericalError(f"{block.name}: the output has NaN or infinite values")

    def rehearse(self, index: int) -> None:
        """Runs a block, which must be in place, as measuring will, where it is called with an object that it could write into."""
        for batch, calls in enumerate(self._calls):
            if may_be_written(calls[index]):
                with self.stopwatch("forward"), torch.no_grad():
                    self.call(index, batch)

    def call(self, index: int, batch: int) -> torch.Tensor:
        """What a block, which must be in place, makes of a batch."""
        return hidden_in(self._result(index, batch, again=True), self.blocks[index].name)

    def _result(self, index: int, batch: int, *, again: bool) -> object:
        call = resolved(self._calls[batch][index], self._carried[batch], again=again)
        hidden = self.hidden[batch].clone() if again and index in self.route.writing else self.hidden[batch]
        return call_block(self.blocks[index], hidden, call)


def unmeasured(block: DecoderBlock) -> Stages:
    """The stages of a block of which nothing is measured: each selected layer by itself."""
    for layer in block.layers:
        yield Stage([layer], [])


def _in_order(groups: Iterable[list[LinearLayer]]) -> list[list[LinearLayer]]:
    """Groups of layers that read one tensor; those of experts that have a role in common are joined, in the place of the first."""
    stages: list[list[LinearLayer]] = []
    places: dict[tuple[str, str], int] = {}  # of the roles of experts
    for layers in groups:
        roles = [(layer.expert.group, layer.expert.role) for layer in layers if layer.expert]
        place = next((places[role] for role in roles if role in places), len(stages))
        if place == len(stages):
            stages.append([])
        stages[place].extend(layers)
        places |= dict.fromkeys(roles, place)
    return stages
