"""Requests for log-likelihoods, as lm-eval passes them, and what is the same in all ways to answer them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

Request = tuple[tuple[str, str], list[int], list[int]]
"""The texts of prompt and continuation, the token ids of the prompt, and those of the continuation."""
Answer = tuple[float, bool]
"""The log-likelihood of the continuation in nats, and whether greedy decoding would write it."""
Stock = Callable[[list[Request], int | None], list[Answer]]
"""lm-eval's own ``_loglikelihood_tokens``, with a batch size for a model that has none."""


class Group(NamedTuple):
    """The requests of one prompt. ``places`` are their indices in the list of all requests."""

    prompt: list[int]
    places: list[int]


def prompts_of(requests: Sequence[Request], positions: int) -> dict[tuple[int, ...], list[int]]:
    """The indices of requests by the token ids of their prompts.

    Requests that are longer than the model's positions are left out, and prompts that have a continuation without tokens, which lm-eval
    answers only beside the others.
    """
    found: dict[tuple[int, ...], list[int]] = {}
    empty = {tuple(prompt) for _, prompt, continuation in requests if not continuation}
    for place, (_, prompt, continuation) in enumerate(requests):
        key = tuple(prompt)
        if key not in empty and len(prompt) + len(continuation) <= positions + 1:
            found.setdefault(key, []).append(place)
    return found


def answer_of(own: torch.Tensor, greedy: torch.Tensor) -> Answer:
    """The answer of a continuation.

    Args:
        own: log-probabilities of its tokens.
        greedy: 1 where a token is the likeliest.
    """
    return float(own.sum()), bool(greedy.all())


def takes_of(model: Any) -> Mapping[str, inspect.Parameter]:
    """The arguments of a forward pass."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # an adapter of peft takes any argument
    return inspect.signature(inner.forward).parameters
