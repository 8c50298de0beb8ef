"""A cache of keys and values whose memory is reserved at once. That of transformers is copied for every token."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ReservedLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer.

    Args:
        length: tokens that memory is reserved for. It grows if there are more.
    """

    _layer_type = None  # with a name, transformers would use this class everywhere
    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length
        self._reserved: tuple[torch.Tensor, ...] = ()

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds keys and values, each [samples, heads, new tokens, size]. Returns those of all tokens so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if not self._reserved or end > self._reserved[0].shape[-2]:
            kept = (self.keys, self.values) if begin else ()
            self._reserved = tuple(_empty(states, max(self._length, end)) for states in (key_states, value_states))
            for reserved, states in zip(self._reserved, kept, strict=False):
                reserved[..., :begin, :] = states
        for reserved, states in zip(self._reserved, (key_states, value_states), strict=True):
            reserved[..., begin:end, :] = states
        self.keys, self.values = (reserved[..., :end, :] for reserved in self._reserved)
        return self.keys, self.values


NAMES = ("cache", "past_key_values")  # of the argument of forward: since transformers 5.24, and before


def reserved_cache(model: PreTrainedModel, length: int) -> dict[str, DynamicCache]:
    """The argument that gives the model a cache; none if its own has other layers, such as those of a sliding window, or it has none.

    Args:
        length: tokens that memory is reserved for.
    """
    supports = getattr(model, "_supports_default_dynamic_cache", None)
    name = next((name for name in NAMES if name in inspect.signature(model.forward).parameters), None)
    if name is None or supports is None or not supports():
        return {}
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return {}
    cache.layers = [ReservedLayer(length) for _ in cache.layers]
    return {name: cache}


def _empty(states: torch.Tensor, length: int) -> torch.Tensor:
    """For ``length`` tokens, as ``states`` has them."""
    return states.new_empty((*states.shape[:-2], length, states.shape[-1]))
