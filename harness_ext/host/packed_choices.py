"""Puts the choices of a prompt into one row behind it. Each choice attends to the prompt and to itself.

A row for each choice needs a copy of the prompt's cache for each, and many passes of few tokens. In one row, the choices share the cache of
their prompt, and all choices of a batch mostly take one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import DynamicLayer

from harness_ext.host.cache_rows import CannotRepeatError
from harness_ext.host.positions import mappings
from harness_ext.host.requests import Group, Request, takes_of

MASKED = ("sdpa", "eager")  # implementations of attention that take any mask
NO_WINDOW = ("max_window_layers",)  # which layers would have one
PADDING = -1


class Span(NamedTuple):
    """Where the tokens of a choice are: in this row, from ``start`` to before ``end``. ``place`` is the index of its request."""

    place: int
    row: int
    start: int
    end: int


class Packed(NamedTuple):
    """The choices of some prompts, each without its last token.

    Args:
        ids: token ids, int64 [prompts, length].
        following: the token after each, which its logits predict, int64 [prompts, length].
        offset: places within the choice, int64 [prompts, length].
        choice: which choice of its row a token is of, or ``PADDING``, int64 [prompts, length].
        spans: where each choice is.
    """

    ids: torch.Tensor
    following: torch.Tensor
    offset: torch.Tensor
    choice: torch.Tensor
    spans: list[Span]

    def to(self, device: torch.device) -> Packed:
        """With tensors on a device."""
        return self._replace(**{name: getattr(self, name).to(device) for name in ("ids", "following", "offset", "choice")})

    def mask(self, prompts: torch.Tensor) -> torch.Tensor:
        """What each token attends to: the prompt of its row, and its choice up to itself. Bool [prompts, 1, length, prompt + length].

        Args:
            prompts: 1 for tokens of the prompts, 0 for padding, int64 [prompts, prompt].
        """
        length = self.ids.shape[1]
        same = self.choice[:, :, None] == self.choice[:, None, :]
        own = same & torch.ones(length, length, dtype=torch.bool, device=same.device).tril()
        return torch.cat([prompts.bool()[:, None, :].expand(-1, length, -1), own], dim=2)[:, None]


def possible(model: Any) -> bool:
    """Whether a model can be asked this way: it takes positions and any mask, and attends to all tokens before one."""
    settings = [(str(name), value) for part in mappings(model.config.to_dict()) for name, value in part.items()]
    windows = (value for name, value in settings if ("window" in name or "chunk" in name) and name not in NO_WINDOW)
    takes_mask = getattr(model.config, "_attn_implementation", None) in MASKED
    return takes_mask and "position_ids" in takes_of(model) and not any(isinstance(value, int) and value for value in windows)


def check_cache(cache: Any) -> None:
    """Checks that a cache holds keys and values of all tokens, and nothing else.

    Raises:
        CannotRepeatError: it is another one.
    """
    if other := next((type(layer) for layer in getattr(cache, "layers", [cache]) if type(layer) is not DynamicLayer), None):
        raise CannotRepeatError(f"its cache has a {other.__name__}")


def as_taken(mask: torch.Tensor, model: Any) -> torch.Tensor:
    """A bool mask as the model's implementation of attention takes it: ``eager`` adds it to the scores."""
    if model.config._attn_implementation == "sdpa":
        return mask
    return torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill(~mask, torch.finfo(model.dtype).min)


def packs(batch: Sequence[Group], requests: Sequence[Request], longest: int) -> list[Packed]:
    """The choices of more than one token, in as many passes as their prompts need.

    Args:
        longest: tokens of a row. A longer choice has a row for itself.
    """
    passes = []
    waiting = [[place for place in group.places if len(requests[place][2]) > 1] for group in batch]
    while any(waiting):
        rows: list[list[int]] = []
        for places in waiting:
            rows.append([])
            room = longest
            while places and (not rows[-1] or len(requests[places[0]][2]) - 1 <= room):
                room -= len(requests[places[0]][2]) - 1
                rows[-1].append(places.pop(0))
        passes.append(_pack(rows, requests))
    return passes


def _pack(rows: Sequence[Sequence[int]], requests: Sequence[Request]) -> Packed:
    length = max(sum(len(requests[place][2]) - 1 for place in places) for places in rows)
    ids, following, offset = (torch.zeros(len(rows), length, dtype=torch.long) for _ in range(3))
    choice = torch.full_like(ids, PADDING)
    spans = []
    for row, places in enumerate(rows):
        start = 0
        for number, place in enumerate(places):
            tokens = torch.tensor(requests[place][2], dtype=torch.long)
            end = start + len(tokens) - 1
            ids[row, start:end], following[row, start:end] = tokens[:-1], tokens[1:]
            offset[row, start:end], choice[row, start:end] = torch.arange(end - start), number
            spans.append(Span(place, row, start, end))
            start = end
    return Packed(ids, following, offset, choice, spans)
