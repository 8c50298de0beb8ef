"""How a model calls its decoder blocks: learnt from a forward pass of the model itself, and written down for all calibration tokens.

Between two blocks a model may hand on more than hidden states: what an earlier block returned (a value residual, the state of a router), or
an object that blocks write into (shared keys and values).
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from harness_ext.engine.hidden_states import HiddenStates
from harness_ext.engine.layers import DecoderBlock
from harness_ext.errors import HarnessExtError, UnsupportedModelError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HIDDEN = "hidden_states"
SHOWN = 160  # characters of an error of the model's code


class Source(NamedTuple):
    """A tensor that a block returned."""

    block: int
    path: tuple[Any, ...]
    """The keys that lead to it in what the block returned: (1,) is the second element of a tuple."""


class Call(NamedTuple):
    """How a block is called for one batch, its hidden states aside. A :class:`Source` stands for what an earlier block returned."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    by_keyword: bool
    """Whether hidden states are passed by keyword."""


class Route(NamedTuple):
    """What blocks return, and what of it later blocks are called with."""

    returned: list[Any]
    """By block: what it returned for one sequence, with a mark in the place of the hidden states."""
    patterns: list[Call]
    """By block: its call, with a :class:`Source` for each tensor that an earlier block returned, and None for all else."""
    last_use: dict[Source, int]
    """The number of the last block that is called with it."""
    by_product: frozenset[str]
    """The layers whose weight the model multiplies without calling the layer."""
    writing: frozenset[int]
    """The numbers of the blocks that write into the hidden states that they are called with."""

    def stand_in(self, index: int, hidden: torch.Tensor) -> Any:
        """An object like what the block returns, around other hidden states; the rest is that of one sequence, repeated."""

        def change(value: Any) -> Any:
            if isinstance(value, torch.Tensor) and value.ndim > 1 and len(value) == 1:
                return value.expand(len(hidden), *value.shape[1:])
            return hidden if value is _HIDDEN_STATES else value

        return _mapped(self.returned[index], change)


_HIDDEN_STATES = object()  # a mark

Handler = Callable[[int, torch.Tensor, Call, Callable[[], Any]], Any]
"""What to do in the place of a block: its number, its hidden states, its call, and a function that computes it."""


@contextmanager
def replaced(blocks: Sequence[DecoderBlock], handle: Handler) -> Iterator[None]:
    """Has ``handle`` called in the place of each block."""

    def forward_of(index: int, block: DecoderBlock) -> Callable[..., Any]:
        compute = block.module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            states = args[0] if args else kwargs.get(HIDDEN)
            if not isinstance(states, torch.Tensor):
                raise UnsupportedModelError(f"{block.name} is not called with hidden states first: the model cannot be walked")
            others = {name: value for name, value in kwargs.items() if args or name != HIDDEN}
            return handle(index, states, Call(args[1:], others, not args), lambda: compute(*args, **kwargs))

        return forward

    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            stack.callback(_restore_forward, block.module, block.module.__dict__.get("forward"))
            block.module.forward = forward_of(index, block)
        yield


def _restore_forward(module: nn.Module, own: Any) -> None:
    """Puts the instance's own ``forward`` back, where it had one (``accelerate`` sets it), or uncovers that of the class."""
    del module.forward
    if own is not None:
        module.forward = own


def run(model: PreTrainedModel, input_ids: torch.Tensor) -> None:
    """A forward pass of a model without its head, whose output would be larger than all else.

    Args:
        input_ids: int64 [sequences, length].

    Raises:
        UnsupportedModelError: the model fails.
    """
    with torch.no_grad(), failing(f"{type(model).__name__} fails on calibration tokens {tuple(input_ids.shape)}"):
        model.base_model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), use_cache=False)


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Turns any error that the code of a model raises into an error of one line.

    Args:
        what: what was done, for the message, such as ``the forward pass of the model``.

    Raises:
        UnsupportedModelError: instead of the error. Errors of this package and errors about memory stay as they are.
    """
    try:
        yield
    except (HarnessExtError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        reason = one_line(error)
        raise UnsupportedModelError(f"{what}: {type(error).__name__}: {reason[:SHOWN]}{'...' if len(reason) > SHOWN else ''}") from error


def record_calls(
    model: PreTrainedModel, blocks: Sequence[DecoderBlock], route: Route, batches: Sequence[torch.Tensor], hidden: HiddenStates
) -> list[list[Call]]:
    """For each batch and block, all arguments of the call but the hidden states.

    The blocks are not computed: each is replaced by one that takes note of its call and returns the hidden states as they came. Masks and
    position embeddings that are equal from batch to batch are kept once.

    Args:
        batches: int64 [sequences, length] each.
        hidden: gets the hidden states that enter the first block.

    Raises:
        UnsupportedModelError: the model fails, or does not call each block once.
    """
    calls: list[list[Call]] = []

    def note(index: int, states: torch.Tensor, call: Call, _: Callable[[], Any]) -> Any:
        if index == 0:
            hidden.append(states)  # a copy, which will be written into; the model may pass its own on to a block as well
            calls.append([])
        pattern = route.patterns[index]
        args = tuple(_merged(value, place) for value, place in zip(call.args, pattern.args, strict=True))
        kwargs = {name: _merged(value, pattern.kwargs.get(name)) for name, value in call.kwargs.items()}
        calls[-1].append(_share(Call(args, kwargs, call.by_keyword), calls[-2][index] if len(calls) > 1 else None))
        return route.stand_in(index, states)

    with replaced(blocks, note):
        for batch in batches:
            run(model, batch)
    if any(len(row) != len(blocks) for row in calls):
        raise UnsupportedModelError(f"{type(model).__name__} does not call each decoder layer once: it cannot be walked")
    return calls


def call_block(block: DecoderBlock, hidden: torch.Tensor, call: Call) -> Any:
    """What a block, which must be in place, returns for these hidden states."""
    if call.by_keyword:
        return block.module(*call.args, **{HIDDEN: hidden}, **call.kwargs)
    return block.module(hidden, *call.args, **call.kwargs)


def resolved(call: Call, carried: dict[Source, torch.Tensor], *, again: bool) -> Call:
    """A call with the tensors in it that earlier blocks returned.

    Args:
        again: whether the block is called once more with it afterwards. What it may write into, lists and dictionaries, is copied then.
    """

    def fill(value: Any) -> Any:
        if isinstance(value, Source):
            return carried[value]
        return _mapped(value, lambda item: item) if again and isinstance(value, list | dict) else value

    kwargs = {name: _filled(value, fill) for name, value in call.kwargs.items()}
    return call._replace(args=tuple(_filled(value, fill) for value in call.args), kwargs=kwargs)


def may_be_written(call: Call) -> bool:
    """Whether a block is called with an object that it could write into: no tensor, and nothing like a number or a name."""

    def is_fixed(value: Any) -> bool:
        if isinstance(value, tuple):
            return all(map(is_fixed, value))
        return value is None or isinstance(value, torch.Tensor | bool | int | float | str | torch.dtype | torch.device)

    return not all(map(is_fixed, (*call.args, *call.kwargs.values())))


class Sources:
    """Recognises tensors that blocks returned, by identity, and keeps none of them alive."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], int, Source]] = {}

    def add(self, index: int, output: Any) -> None:
        """Takes note of what a block returned."""
        for path, tensor in leaves(output):
            self._known[id(tensor)] = weakref.ref(tensor), version_of(tensor), Source(index, path)

    def find(self, value: Any) -> Source | None:
        """Where a value comes from, if a block returned it and nobody has written into it since."""
        known = self._known.get(id(value))
        if known is None or not isinstance(value, torch.Tensor):
            return None
        tensor, version, source = known
        return source if tensor() is value and version_of(value) == version else None

    def pattern(self, value: Any) -> Any:
        """A value with a :class:`Source` for each tensor that a block returned; None if there is none in it."""
        if isinstance(value, torch.Tensor):
            return self.find(value)
        pattern = _mapped(value, self.find) if isinstance(value, tuple | list | dict) else None
        return pattern if any(True for _ in sources_in(pattern)) else None


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], torch.Tensor]]:
    """All tensors in nested tuples, lists and dictionaries, and the keys that lead to each."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, tuple | list | dict):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))


def hidden_in(output: Any, block: str) -> torch.Tensor:
    """The hidden states in what a block returned: its first tensor.

    Raises:
        UnsupportedModelError: there is none.
    """
    for _, tensor in leaves(output):
        return tensor
    raise UnsupportedModelError(f"{block} returns {type(output).__name__} without hidden states: the model cannot be walked")


def without_hidden(output: Any, hidden: torch.Tensor) -> Any:
    """What a block returned, with a mark in the place of its hidden states."""
    return _mapped(output, lambda value: _HIDDEN_STATES if value is hidden else value)


def sources_in(value: Any) -> Iterator[Source]:
    """What earlier blocks have to return for a call, or an argument of it."""
    if isinstance(value, Source):
        yield value
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from sources_in(item)


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor was written into."""
    return 0 if tensor.is_inference() else tensor._version  # inference tensors have no counter


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Nested tuples, lists and dictionaries anew, each other value in them changed."""
    if isinstance(value, dict):
        copied = copy.copy(value)  # also of the classes of transformers
        for key, item in value.items():
            copied[key] = _mapped(item, change)
        return copied
    if isinstance(value, tuple | list) and not isinstance(value, Source):
        items = [_mapped(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return change(value)


def _filled(value: Any, fill: Callable[[Any], Any]) -> Any:
    """A value with each :class:`Source` in it filled; what has none in it is filled as a whole."""
    return _mapped(value, fill) if any(True for _ in sources_in(value)) else fill(value)


def _merged(value: Any, pattern: Any) -> Any:
    """A value with the sources of a pattern in it. Where the pattern has none it stays the object that it is, which blocks may share."""
    if isinstance(pattern, Source):
        return pattern
    if isinstance(pattern, dict) and isinstance(value, dict):
        return {key: _merged(item, pattern.get(key)) for key, item in value.items()}
    if isinstance(pattern, tuple | list) and isinstance(value, tuple | list) and len(value) == len(pattern):
        return type(value)(_merged(item, place) for item, place in zip(value, pattern, strict=True))
    return value


def _share(new: Any, old: Any) -> Any:
    """``new``, with every tensor that equals the one in the same place of ``old`` replaced by that one."""
    if isinstance(new, torch.Tensor) and isinstance(old, torch.Tensor):
        return old if new.shape == old.shape and new.dtype == old.dtype and torch.equal(new, old) else new
    if isinstance(new, Call) and isinstance(old, Call):
        kwargs = {name: _share(value, old.kwargs.get(name)) for name, value in new.kwargs.items()}
        return new._replace(args=_share(new.args, old.args), kwargs=kwargs)
    if type(new) is tuple and type(old) is tuple and len(new) == len(old):
        return tuple(map(_share, new, old))
    return new
