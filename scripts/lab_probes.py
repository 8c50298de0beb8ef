"""Auxiliary losses that teach the embedded models to gather what belongs together; not part of the models.

A model of this size stays for a very long time on the plateau where it compares one input of two exemplars, or one word of two names.
Linear probes half-way up, trained with the model, ask what comes before a position: the inputs of an exemplar at its ``Output:`` and at its
label, the digits of a key at its ``Value:``, the name of the person at a value and at ``Answer:``. From there it is one step to comparing
the whole.
"""

from __future__ import annotations

import torch
from lab_mixture import Batch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from harness_ext.tasks.people import FIRST_NAMES, LAST_NAMES, People

INPUTS = 4


class Probes(nn.Module):
    """Linear maps from the hidden states [sequences, length, width] half-way up to what was read before."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, people: People, width: int):
        super().__init__()
        self.inputs, self.first, self.last = nn.Linear(width, INPUTS), nn.Linear(width, FIRST_NAMES), nn.Linear(width, LAST_NAMES)
        everyone = people.memorised + people.met + people.unseen
        first, last = (sorted({getattr(person, part) for person in everyone}) for part in ("first", "last"))
        values = [value for attribute in people.attributes for value in attribute.values]
        self.digit, self.first_index, self.last_index, self.value = (self._table(tokenizer, words) for words in (None, first, last, values))
        self.output, self.found, self.answer = (tokenizer(f"\n{marker}:")["input_ids"][0] for marker in ("Output", "Value", "Answer"))

    def _table(self, tokenizer: PreTrainedTokenizerFast, words: list[str] | None) -> torch.Tensor:
        """For every token, the number of the word (or digit) that it is, or -1."""
        table = torch.full((len(tokenizer),), -1)
        if words is None:
            for start in (" ", ", "):
                for digit in range(10):
                    table[tokenizer(f"{start}{digit}")["input_ids"][0]] = digit
        else:
            for index, word in enumerate(words):
                table[tokenizer(f" {word}")["input_ids"][0]] = index
        return table

    def loss(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The mean squared error of the inputs in standard deviations, or the cross-entropy of the names."""
        if batch.kind == "lookup":
            return self._inputs(hidden, batch.ids, self.found)
        return self._inputs(hidden, batch.ids, self.output) if batch.kind == "icl" else self._names(hidden, batch.ids)

    def _inputs(self, hidden: torch.Tensor, ids: torch.Tensor, marker: int) -> torch.Tensor:
        rows, places = (ids == marker).nonzero(as_tuple=True)
        dimensions = int((places[1] - places[0]).item()) - 3 if rows[0] == rows[1] else 1
        digits = torch.stack([self.digit[ids[rows, places - dimensions + i]] for i in range(dimensions)], dim=1)
        wanted = (digits.float() - 4.5) / 2.87
        losses = [F.mse_loss(self.inputs(hidden[rows, places + shift].float())[:, :dimensions], wanted) for shift in (0, 1)]
        return (losses[0] + losses[1]) / 2

    def _names(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(ids.shape[1]).expand_as(ids)
        latest = torch.where(self.last_index[ids] >= 0, positions, -1).cummax(dim=1).values
        rows, places = (((self.value[ids] >= 0) | (ids == self.answer)) & (latest > 0)).nonzero(as_tuple=True)
        name = latest[rows, places]
        first, last = self.first_index[ids[rows, name - 1]], self.last_index[ids[rows, name]]
        known = first >= 0  # a row may begin in the middle of a name
        states = hidden[rows, places].float()[known]
        return (F.cross_entropy(self.first(states), first[known]) + F.cross_entropy(self.last(states), last[known])) / 2
