"""Measures what the linear layers of a decoder block read, while calibration tokens go through the block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import torch
from torch import nn

from harness_ext.engine import checks, ranks
from harness_ext.engine.every_token import EveryToken
from harness_ext.engine.layers import DecoderBlock, LinearLayer
from harness_ext.engine.matrix_calls import MatrixCalls
from harness_ext.engine.sharing import Sharing
from harness_ext.engine.stopwatch import Stopwatch
from harness_ext.errors import NumericalError, PluginError, UnsupportedModelError
from harness_ext.method.finite import all_finite
from harness_ext.method.statistic import Statistic


class Stage(NamedTuple):
    """Layers that read one tensor, and what was measured of it. The statistics are to be let go of before the next stage is asked for."""

    layers: list[LinearLayer]
    statistics: list[Statistic]
    tokens: int | None = None
    """How many tokens were measured; None where nothing was."""


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
        self.tokens, self.finite = 0, torch.tensor(True, device=layer.stored.device)

    def update(self, inputs: torch.Tensor) -> None:
        """Adds a batch, [..., in_features] of any floating dtype."""
        rows = inputs.reshape(-1, self.layer.in_features)
        self.tokens += len(rows)
        wide = None
        for statistic in self.statistics if len(rows) else ():
            if type(statistic).reads_any_dtype():
                tokens = rows
            else:
                tokens = wide = rows.to(self.dtype) if wide is None else wide
            if not statistic.additive:  # the others show it in what they add up
                self.finite &= all_finite(tokens)
            blame = f"statistic {type(statistic).__qualname__} broke its contract on {self.layer.name}"
            with checks.untouched([tokens], "the inputs that it was given", blame):
                statistic.update(tokens)

    def finish(self) -> tuple[list[Statistic], int]:
        """Adds the statistics up over all processes and checks them; also says how many tokens they are of.

        Raises:
            NumericalError: an input is NaN or infinite; names the layer.
        """
        for statistic in self.statistics:
            ranks.all_reduce(statistic, self.layer.name)
            try:
                statistic.check()
            except (NumericalError, PluginError) as error:
                raise type(error)(f"{self.layer.name}: {error}") from error
        if not ranks.all_true(bool(self.finite)):
            raise NumericalError(f"{self.layer.name}: the input has NaN or infinite values")
        return self.statistics, sum(ranks.gather(self.tokens))


class Listening:
    """Within this context, measures what some layers of one block read.

    Args:
        new_reading: makes a reading with nothing measured yet.
        by_product: names of layers whose weight is multiplied without the layer being called.
        every_token: whether experts are measured on all tokens, not on those that are sent to them.
        once: whether each batch goes through each layer exactly once, so that it can stop at the last; the first batch tells.
    """

    def __init__(
        self,
        block: DecoderBlock,
        layers: Sequence[LinearLayer],
        new_reading: Callable[[LinearLayer], Reading],
        stopwatch: Stopwatch,
        *,
        by_product: frozenset[str] = frozenset(),
        every_token: bool = False,
        once: bool = False,
    ) -> None:
        self.layers, self.new_reading, self.stopwatch = layers, new_reading, stopwatch
        self.multiplied = [layer for layer in layers if layer.place is not None or layer.name in by_product]
        multiplied = {layer.name for layer in self.multiplied}
        self.called = [layer for layer in layers if layer.name not in multiplied]
        self.readings: dict[str, Reading] = {}  # by owner
        self.calls: dict[str, int] = dict.fromkeys((layer.name for layer in self.called), 0)  # in this batch
        self.once = once and self._can_stop()
        self.every_token = EveryToken(block) if every_token and any(layer.expert for layer in layers) else None
        self.used: list[str] = []  # owners in the order of their first use
        self.touched: set[str] = set()  # parameters that took part in a product
        first: dict[tuple[str, int, str], str] = {}
        owners = {}
        for layer in self.multiplied:  # of experts it is known which layers read one tensor, also where no token comes
            expert = layer.expert
            owners[layer.name] = first.setdefault((expert.group, expert.number, expert.reads), layer.name) if expert else layer.name
        self.sharing = Sharing(owners)

    def _can_stop(self) -> bool:
        """Whether a batch that has been through all layers that are called is through all layers."""
        return not self.multiplied and not any(layer.expert for layer in self.layers)

    def __enter__(self) -> Listening:
        self._stack = ExitStack()
        for layer in self.called:
            self._stack.callback(layer.module.register_forward_pre_hook(self._hook(layer), with_kwargs=True).remove)
        if self.every_token:
            self._stack.enter_context(self.every_token)
        if self.multiplied:
            calls = MatrixCalls(self.multiplied, self._notice)
            self._stack.callback(lambda: self.touched.update(calls.touched))
            self._stack.enter_context(calls)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, call: Callable[[], object]) -> None:
        """Calls the block with one batch, as far as the last selected layer.

        Args:
            call: calls the block.
        """
        first = not any(self.calls.values())
        self.calls = dict.fromkeys(self.calls, 0)
        self.sharing.begin()
        # Not in a context manager that is a generator: from Python 3.12 the error, and all tensors of the block with it, would stay alive.
        with suppress(_Enough):
            call()
        self.sharing.end()
        if first:
            self.once = self._can_stop() and all(count == 1 for count in self.calls.values())

    def run_all(self, calls: Iterable[Callable[[], object]]) -> None:
        """Calls the block with all batches; again from the first, where a later batch shows that layers do not read the same tensors."""
        calls = list(calls)
        while True:
            for call in calls:
                self.run(call)
                if self.sharing.changed:
                    break
            if self.sharing.settled():
                return
            self.readings.clear()
            self.used.clear()

    def _hook(self, layer: LinearLayer) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            (inputs,) = (*args, *kwargs.values())
            if self._is_muted(layer):
                return
            self.calls[layer.name] += 1
            self._read(layer, inputs)
            if self.once and all(self.calls.values()):
                raise _Enough

        return hook

    def _notice(self, layer: LinearLayer, inputs: torch.Tensor) -> None:
        if not self._is_muted(layer):
            self._read(layer, inputs)

    def _is_muted(self, layer: LinearLayer) -> bool:
        return self.every_token is not None and layer.expert is not None and not self.every_token.counts(layer.expert.group)

    def _read(self, layer: LinearLayer, inputs: torch.Tensor) -> None:
        if self.sharing.note(layer.name, inputs):
            with self.stopwatch("statistics"):
                if layer.name not in self.readings:
                    self.readings[layer.name] = self.new_reading(layer)
                    self.used.append(layer.name)
                self.readings[layer.name].update(inputs)

    def groups(self) -> dict[str, list[LinearLayer]]:
        """The layers that read one tensor, by the first of them, in the order in which they were used. Experts that got no token are last.

        Raises:
            UnsupportedModelError: a layer that is no expert's was not used, by any process, or none of the layers of a group of experts.
        """
        owners: dict[str, str] = {}
        for found in ranks.gather(self.sharing.owners):
            owners = {**found, **owners}
        used = list(dict.fromkeys(name for names in ranks.gather(self.used) for name in names))
        touched = set().union(*ranks.gather(self.touched))
        for layer in self.layers:
            if layer.expert is None and owners.get(layer.name) not in used:
                raise UnsupportedModelError(f"{layer.name} was not used by the calibration tokens: it cannot be pruned from statistics")
            if layer.expert and layer.place and layer.parameter_name not in touched:
                raise UnsupportedModelError(f"{layer.expert.group}: no expert was used by the calibration tokens in a way that can be seen")
            owners.setdefault(layer.name, layer.name)
        groups: dict[str, list[LinearLayer]] = {name: [] for name in used}
        for layer in self.layers:
            groups.setdefault(owners[layer.name], []).append(layer)
            if owners[layer.name] not in self.readings:
                self.readings[owners[layer.name]] = self.new_reading(layer)
        return groups
