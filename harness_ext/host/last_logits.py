"""Answers requests whose choices are one token long from the logits of the last token of each prompt.

lm-eval runs such a prompt once as well, but computes the logits of all its tokens. The forward pass is the same otherwise: prompts are
padded on the right, without a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from harness_ext.host.requests import Answer, Group, Request, answer_of, takes_of

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

KEEP = "logits_to_keep"


def possible(model: Any) -> bool:
    """Whether the model computes the logits of some tokens only."""
    return KEEP in takes_of(model)


def groups(by_prompt: Mapping[tuple[int, ...], list[int]], requests: Sequence[Request]) -> list[Group]:
    """The prompts with several choices, all of one token, in the order in which lm-eval runs them."""
    one_token = {
        prompt: places for prompt, places in by_prompt.items() if len(places) > 1 and all(len(requests[place][2]) == 1 for place in places)
    }
    return [Group(list(prompt), one_token[prompt]) for prompt in sorted(one_token, key=lambda prompt: (-len(prompt), prompt))]


def run(lm: HFLM, batch: list[Group], requests: Sequence[Request]) -> dict[int, Answer]:
    """The answers of a batch by their indices."""
    lengths = torch.tensor([len(group.prompt) for group in batch])
    ids = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long)
    for row, group in enumerate(batch):
        ids[row, : len(group.prompt)] = torch.tensor(group.prompt)
    kept, columns = torch.unique(lengths - 1, return_inverse=True)
    with torch.no_grad(), torch.autocast(lm.device.type, lm.mixed_precision_dtype, lm.mixed_precision_dtype is not None):
        logits = lm.model(ids.to(lm.device), **{KEEP: kept.to(lm.device)}).logits
    if logits.shape[1] != len(kept):
        raise ValueError(f"{logits.shape[1]} logits of a sequence: want {len(kept)}")
    rows = [(row, place) for row, group in enumerate(batch) for place in group.places]
    last = F.log_softmax(logits[torch.arange(len(batch)), columns], dim=-1, dtype=lm.softmax_dtype)
    of_row = torch.tensor([row for row, _ in rows], device=last.device)
    tokens = torch.tensor([requests[place][2][0] for _, place in rows], device=last.device)
    own, likeliest = last[of_row, tokens].cpu(), (last.argmax(-1)[of_row] == tokens).cpu()
    return {place: answer_of(own[index], likeliest[index]) for index, (_, place) in enumerate(rows)}
