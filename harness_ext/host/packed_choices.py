"""Puts the choices of a prompt into one row behind it. Each choice attends to the prompt and to itself.

With a row for each choice, each row needs a copy of the prompt's cache, and there are many passes of few tokens. In one row, the choices
share the cache of their prompt, and all choices of a batch usually take one pass.
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
NO_WINDOW = ("max_window_layers",)  # has this word in its name, and does not turn a window on
PADDING = -1


class Span(NamedTuple):
    """Where the tokens of a choice are: in row ``row``, from ``start`` to before ``end``. ``place`` is the index of its request."""

    place: int
    row: int
    start: int
    end: int


class Packed(NamedTuple):
    """The choices of one pass, each without its last token. All choices of a row are of one prompt.

    Args:
        prompts: the prompt of each row.
        ids: token ids, int64 [rows, length].
        following: the token after each, which its logits predict, int64 [rows, length].
        offset: the position of each token in its choice, int64 [rows, length].
        choice: which choice of its row a token is of, or ``PADDING``, int64 [rows, length].
        spans: where each choice is.
    """

    prompts: list[int]
    ids: torch.Tensor
    following: torch.Tensor
    offset: torch.Tensor
    choice: torch.Tensor
    spans: list[Span]

    def to(self, device: torch.device) -> Packed:
        """With tensors on a device."""
        return self._replace(**{name: getattr(self, name).to(device) for name in ("ids", "following", "offset", "choice")})

    def mask(self, prompts: torch.Tensor) -> torch.Tensor:
        """What each token attends to: the prompt of its row, and its choice up to itself. Bool [rows, 1, length, prompt + length].

        Args:
            prompts: 1 for tokens of the rows' prompts, 0 for padding, int64 [rows, prompt].
        """
        length = self.ids.shape[1]
        same = self.choice[:, :, None] == self.choice[:, None, :]
        own = same & torch.ones(length, length, dtype=torch.bool, device=same.device).tril()
        return torch.cat([prompts.bool()[:, None, :].expand(-1, length, -1), own], dim=2)[:, None]


def check_model(model: Any) -> None:
    """Checks that a model takes positions and any mask, and that each token attends to all earlier ones.

    Raises:
        CannotRepeatError: its configuration or its code says otherwise.
    """
    if "position_ids" not in takes_of(model):
        raise CannotRepeatError("it takes no positions")
    if (attention := getattr(model.config, "_attn_implementation", None)) not in MASKED:
        raise CannotRepeatError(f"its attention is {attention}")
    settings = ((str(name), value) for part in mappings(model.config.to_dict()) for name, value in part.items())
    if window := next((name for name, value in settings if _is_window(name) and value), None):
        raise CannotRepeatError(f"its configuration has {window}")


def check_cache(cache: Any) -> None:
    """Checks that a cache holds keys and values of all tokens, and nothing else.

    Raises:
        CannotRepeatError: it holds something else.
    """
    if other := next((type(layer) for layer in getattr(cache, "layers", [cache]) if type(layer) is not DynamicLayer), None):
        raise CannotRepeatError(f"its cache has a {other.__name__}")


def as_taken(mask: torch.Tensor, model: Any) -> torch.Tensor:
    """A bool mask as the model's implementation of attention takes it: ``eager`` adds it to the scores."""
    if model.config._attn_implementation == "sdpa":
        return mask
    return torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill(~mask, torch.finfo(model.dtype).min)


def packs(batch: Sequence[Group], requests: Sequence[Request], longest: int, most: int) -> list[Packed]:
    """The choices of more than one token, in passes of rows of similar lengths.

    Args:
        longest: tokens of a row, at most. A longer choice has a row for itself.
        most: rows of a pass, at most.
    """
    rows = [(prompt, row) for prompt, group in enumerate(batch) for row in _rows(group, requests, longest)]
    lengths = [sum(len(requests[place][2]) - 1 for place in row) for _, row in rows]
    passes: list[list[int]] = []
    for index in sorted(range(len(rows)), key=lambda index: -lengths[index]):
        if not passes or len(passes[-1]) == most or 2 * lengths[index] < lengths[passes[-1][0]]:  # or more than half is padding
            passes.append([])
        passes[-1].append(index)
    return [_pack([rows[index] for index in sorted(own)], requests) for own in passes]


def _rows(group: Group, requests: Sequence[Request], longest: int) -> list[list[int]]:
    """The choices of a prompt that have more than one token, in rows."""
    rows: list[list[int]] = []
    room = 0
    for place in group.places:
        tokens = len(requests[place][2]) - 1
        if not tokens:
            continue
        if not rows or tokens > room:
            rows.append([])
            room = longest
        room -= tokens
        rows[-1].append(place)
    return rows


def _pack(rows: Sequence[tuple[int, Sequence[int]]], requests: Sequence[Request]) -> Packed:
    length = max(sum(len(requests[place][2]) - 1 for place in places) for _, places in rows)
    ids, following, offset = (torch.zeros(len(rows), length, dtype=torch.long) for _ in range(3))
    choice = torch.full_like(ids, PADDING)
    spans = []
    for row, (_, places) in enumerate(rows):
        start = 0
        for number, place in enumerate(places):
            tokens = torch.tensor(requests[place][2], dtype=torch.long)
            end = start + len(tokens) - 1
            ids[row, start:end], following[row, start:end] = tokens[:-1], tokens[1:]
            offset[row, start:end], choice[row, start:end] = torch.arange(end - start), number
            spans.append(Span(place, row, start, end))
            start = end
    return Packed([prompt for prompt, _ in rows], ids, following, offset, choice, spans)


def _is_window(name: str) -> bool:
    return ("window" in name or "chunk" in name) and name not in NO_WINDOW
