"""Auxiliary losses that teach the embedded models to gather what belongs together; not part of the models.

A model of this size stays for a very long time on the plateau where it compares one input of two exemplars, or one word of two names.
Linear probes read the hidden states half-way up and are trained with the model. They predict what comes before a position. At ``Output:``
and at a label, that is the inputs of the exemplar. At ``Value:``, it is the digits of the key. At a value and at ``Answer:``, it is the
name of the person. From there it is one step to comparing the whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from harness_ext.tasks.people import FIRST_NAMES, LAST_NAMES, People

INPUTS = 4
Array = NDArray[np.generic]
KIND_WORDS = (("born",), ("employs", "works"), ("job",), ("enjoy", "enjoys"))
"""The words by which a question or a statement names each attribute."""


class Probes:
    """What linear maps of the hidden states half-way up are to tell about what was read before."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, people: People):
        self.sizes = {"inputs": INPUTS, "first": FIRST_NAMES, "last": LAST_NAMES, "kind": len(people.attributes)}
        everyone = people.memorised + people.met + people.unseen
        first, last = (sorted({getattr(person, part) for person in everyone}) for part in ("first", "last"))
        values = [word for attribute in people.attributes for word in attribute.first]
        self.digit, self.first, self.last, self.value = (_table(tokenizer, words) for words in (None, first, last, values))
        self.kind = np.full(len(tokenizer), -1)
        for index, words in enumerate(KIND_WORDS):
            self.kind[[tokenizer(f" {word}")["input_ids"][0] for word in words]] = index
        self.output, self.found, self.answer = (tokenizer(f"\n{marker}:")["input_ids"][0] for marker in ("Output", "Value", "Answer"))

    def targets(self, kind: str, ids: Array) -> dict[str, tuple[Array, Array, Array, Array]]:
        """For each probe that has something to tell: rows, columns, what is wanted there, and the weight of each in the loss.

        ``inputs`` tells the inputs of a function or the digits of a key, in standard deviations: wanted and weights are [places, 4].
        ``first``, ``last`` and ``kind`` tell the person and the attribute.
        """
        if kind in ("icl", "lookup"):
            return {"inputs": self._inputs(ids, self.output if kind == "icl" else self.found)}
        return self._names(ids)

    def _inputs(self, ids: Array, marker: int) -> tuple[Array, Array, Array, Array]:
        rows, places = (ids == marker).nonzero()
        dimensions = int(places[1] - places[0]) - 3 if rows[0] == rows[1] else 1
        wanted, weights = np.zeros((len(rows), INPUTS), dtype=np.float32), np.zeros((len(rows), INPUTS), dtype=np.float32)
        for i in range(dimensions):
            wanted[:, i] = (self.digit[ids[rows, places - dimensions + i]] - 4.5) / 2.87
        weights[:, :dimensions] = 1 / (2 * len(rows) * dimensions)
        return np.tile(rows, 2), np.concatenate([places, places + 1]), np.tile(wanted, (2, 1)), np.tile(weights, (2, 1))

    def _names(self, ids: Array) -> dict[str, tuple[Array, Array, Array, Array]]:
        positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        last, kind = (np.maximum.accumulate(np.where(table[ids] >= 0, positions, -1), axis=1) for table in (self.last, self.kind))
        rows, places = (((self.value[ids] >= 0) | (ids == self.answer)) & (last > 0) & (kind >= 0)).nonzero()
        known = self.first[ids[rows, last[rows, places] - 1]] >= 0  # a row may begin in the middle of a name
        rows, places = rows[known], places[known]
        name, weights = last[rows, places], np.full(len(rows), 1 / (3 * max(1, len(rows))))
        wanted = {
            "first": self.first[ids[rows, name - 1]],
            "last": self.last[ids[rows, name]],
            "kind": self.kind[ids[rows, kind[rows, places]]],
        }
        return {probe: (rows, places, of.astype(np.int16), weights) for probe, of in wanted.items()}


def _table(tokenizer: PreTrainedTokenizerFast, words: list[str] | None) -> Array:
    """For every token, the number of the word (or digit, where there are no words) that it is, or -1."""
    table = np.full(len(tokenizer), -1)
    named = (words and {f" {word}": index for index, word in enumerate(words)}) or {
        f"{start}{digit}": digit for start in (" ", ", ") for digit in range(10)
    }
    for text, index in named.items():
        table[tokenizer(text)["input_ids"][0]] = index
    return table
