"""Proves, before any weight changes, that walking block by block computes what the model computes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from harness_ext.engine import ranks
from harness_ext.engine.calls import Call, Route, Source, Sources, failing, hidden_in, replaced, run, sources_in, version_of, without_hidden
from harness_ext.engine.layers import DecoderBlock, LinearLayer
from harness_ext.engine.matrix_calls import MatrixCalls
from harness_ext.engine.placement import Placement
from harness_ext.engine.stopwatch import Stopwatch
from harness_ext.engine.walk import Walk
from harness_ext.errors import UnsupportedModelError

ROUNDING = 16  # units in the last place, as a share of the length of a token's hidden states
NEAR, MOST = 0.05, 0.9  # how far hidden states may be apart that count as nearly equal, and for which share of the tokens
TOKENS = 0.01  # the share of tokens that may differ by more: on a device a sum may choose another expert from run to run


def prove(placement: Placement, blocks: list[DecoderBlock], input_ids: torch.Tensor, stopwatch: Stopwatch) -> Route:
    """Sends a sequence of the calibration tokens through the model itself and, together with another one, through the walk.

    Args:
        blocks: all decoder blocks, with the selected layers.
        input_ids: int64 [samples, length].

    Returns:
        how the walk has to call the blocks.

    Raises:
        UnsupportedModelError: the hidden states differ by more than rounding, or the model fails, or cannot be walked at all.
    """
    sequences = ranks.share(input_ids)[:2].to(placement.device)
    failure: UnsupportedModelError | None = None
    with stopwatch("proof"):
        try:
            route = _prove(placement, blocks, sequences)
        except UnsupportedModelError as error:
            failure = error
        if not ranks.all_true(failure is None):
            try:
                raise failure or UnsupportedModelError(
                    f"{type(placement.model).__name__} cannot be walked block by block in another process"
                )
            finally:
                failure = None  # or the error would keep itself alive, and the tensors of the walk
    return route


def _prove(placement: Placement, blocks: list[DecoderBlock], sequences: torch.Tensor) -> Route:
    """As :func:`prove`, in this process."""
    name = type(placement.model).__name__
    observed = _Observed(placement, blocks)
    observed.pass_through(sequences[:1])
    route = observed.route()
    # The other sequence goes before and after it: a block that reads what it, or another block, kept of the last one that it saw is to find
    # something else than the model does. Last both go together, as calibration tokens do.
    batches = [sequences[-1:], sequences[:1], sequences[-1:], sequences]
    with failing(f"{name} cannot be walked block by block"):
        walk = Walk(placement, blocks, batches, torch.float32, Stopwatch(placement.device), route)
        for index, block in enumerate(blocks):
            with placement.loaded(block, write=False):
                walk.rehearse(index)
                walk.advance(index, check=False)
            hidden = walk.hidden[1]
            same = _same(_lengths(hidden), observed.lengths[index], hidden.dtype)
            if not same or (index == len(blocks) - 1 and not _same(hidden, observed.last, hidden.dtype)):
                raise UnsupportedModelError(
                    f"{name} cannot be walked block by block: what {block.name} computes depends on more than what it is called with, "
                    "or on what the model makes of the results of earlier blocks"
                )
            if not _alike(_first_sequence(walk.hidden[3], hidden), hidden):
                raise UnsupportedModelError(
                    f"{name} cannot be calibrated in batches: what {block.name} computes for a sequence depends on the other sequences"
                )
    return route


class _Observed:
    """What is seen while one sequence goes through the model itself, block by block."""

    def __init__(self, placement: Placement, blocks: list[DecoderBlock]) -> None:
        self.placement, self.blocks, self.name = placement, blocks, type(placement.model).__name__
        self.lengths: list[torch.Tensor] = []
        """By block: the length of each token's hidden states behind it."""
        self.last = torch.empty(0)
        """The last hidden states."""
        self._sources = Sources()
        self._returned: list[Any] = []
        self._patterns: list[Call] = []
        self._by_product: set[str] = set()
        self._writing: set[int] = set()

    def pass_through(self, sequence: torch.Tensor) -> None:
        """Runs the model, each block brought into place for its turn.

        Raises:
            UnsupportedModelError: the model fails, or does not hand hidden states from block to block.
        """
        with replaced(self.blocks, self._look):
            run(self.placement.model, sequence)
        if len(self._returned) != len(self.blocks):
            raise UnsupportedModelError(f"{self.name} does not call each decoder layer once: it cannot be walked")

    def route(self) -> Route:
        last_use: dict[Source, int] = {}
        for index, call in enumerate(self._patterns):
            last_use |= dict.fromkeys(sources_in((call.args, call.kwargs)), index)
        return Route(self._returned, self._patterns, last_use, frozenset(self._by_product), frozenset(self._writing))

    def _look(self, index: int, states: torch.Tensor, call: Call, compute: Callable[[], Any]) -> Any:
        if index != len(self._returned):
            raise UnsupportedModelError(f"{self.name} does not call each decoder layer once: it cannot be walked")
        block = self.blocks[index]
        source = self._sources.find(states)
        if index and (source is None or source.block != index - 1) and not self._is_last(states):
            raise UnsupportedModelError(
                f"{block.name} does not read what {self.blocks[index - 1].name} returned: {self.name} cannot be walked block by block"
            )
        pattern = self._sources.pattern
        self._patterns.append(
            Call(tuple(map(pattern, call.args)), {name: pattern(value) for name, value in call.kwargs.items()}, call.by_keyword)
        )
        version = version_of(states)
        with self.placement.loaded(block, write=False), _Uses(block.layers) as uses:
            output = compute()
        if states.is_inference() or version_of(states) != version:
            self._writing.add(index)
        self._by_product |= uses.by_product()
        if idle := uses.idle():
            raise UnsupportedModelError(f"{idle[0].name} was not used by the calibration tokens: it cannot be pruned from statistics")
        hidden = hidden_in(output, block.name)
        self._sources.add(index, output)
        self._returned.append(without_hidden(output, hidden))
        self.lengths.append(_lengths(hidden))
        self.last = hidden
        return output

    def _is_last(self, states: torch.Tensor) -> bool:
        return self._sources.find(self.last) is not None and states.shape == self.last.shape and torch.equal(states, self.last)


class _Uses:
    """Counts how often each linear layer is called, and how often its weight takes part in a product."""

    def __init__(self, layers: tuple[LinearLayer, ...]) -> None:
        self._layers = layers
        self._calls = dict.fromkeys((layer.name for layer in layers), 0)
        self._products = dict(self._calls)

    def by_product(self) -> set[str]:
        """The layers whose weight is multiplied more often than they are called."""
        return {layer.name for layer in self._layers if not layer.place and self._products[layer.name] > self._calls[layer.name]}

    def idle(self) -> list[LinearLayer]:
        """The layers that are not used at all, and are no expert's."""
        return [layer for layer in self._layers if not layer.expert and not self._calls[layer.name] and not self._products[layer.name]]

    def __enter__(self) -> _Uses:
        self._stack = ExitStack()
        for layer in (layer for layer in self._layers if layer.place is None):
            self._stack.callback(layer.module.register_forward_pre_hook(self._call_of(layer.name)).remove)
        self._stack.enter_context(MatrixCalls(self._layers, self._product))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _call_of(self, name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self._calls[name] += 1

        return hook

    def _product(self, layer: LinearLayer, _: torch.Tensor) -> None:
        self._products[layer.name] += 1


def _lengths(hidden: torch.Tensor) -> torch.Tensor:
    lengths: torch.Tensor = torch.linalg.vector_norm(hidden.float(), dim=-1, keepdim=True)
    return lengths


def _first_sequence(batch: torch.Tensor, alone: torch.Tensor) -> torch.Tensor:
    """The part of ``batch`` that belongs to its first sequence. Sequences go along the dimension in which it differs from ``alone``: the
    hidden states of Gemma 3n have four streams in front of it.

    Args:
        batch: [..., sequences, ..., features].
        alone: the same for one sequence.
    """
    longer = [dim for dim, (size, single) in enumerate(zip(batch.shape, alone.shape, strict=True)) if size != single]
    return batch.narrow(longer[0], 0, alone.shape[longer[0]]) if longer else batch


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether most tokens, [..., features], are nearly equal. In another batch sums are rounded otherwise, and a token may choose another
    expert."""
    one, other = one.float().nan_to_num(), other.float().nan_to_num()
    near = torch.linalg.vector_norm(one - other, dim=-1) <= NEAR * torch.linalg.vector_norm(other, dim=-1)
    return float(near.float().mean()) >= MOST


def _same(one: torch.Tensor, other: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether tokens, [..., features], are equal but for rounding in ``dtype``."""
    if one.shape != other.shape:
        return False
    one, other = one.float().nan_to_num(), other.float().nan_to_num()  # such values are found, and named, where they are measured
    difference = torch.linalg.vector_norm(one - other, dim=-1)
    allowed = ROUNDING * torch.finfo(dtype).eps * torch.linalg.vector_norm(other, dim=-1)
    return float((~(difference <= allowed)).float().mean()) <= TOKENS
