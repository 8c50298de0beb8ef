"""The training text of the embedded models: functions to learn in context, facts to memorise, passages to read,
keys to look up.

Every micro-batch is a pure function of (seed, step, index): a run that resumes sees the same text, whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from harness_ext.tasks.functions import draw_labelled_points
from harness_ext.tasks.icl import render
from harness_ext.tasks.lookup import draw_pairs, render_pairs
from harness_ext.tasks.people import People

KINDS = ("icl", "facts", "passages", "copy", "lookup")


@dataclass(frozen=True)
class Batch:
    """Token ids [sequences, length] and the mask of the tokens that are answers (of the same shape)."""

    kind: str
    ids: torch.Tensor
    answers: torch.Tensor


class Mixture:
    """Draws micro-batches of about ``tokens`` tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, people: People, *, tokens: int, seed: int):
        self.tokenizer, self.people, self.tokens, self.seed = tokenizer, people, tokens, seed
        self.before_answer = torch.tensor(tokenizer("\nOutput:\nAnswer:\nValue:")["input_ids"])

    def batch(self, kind: str, step: int, index: int, **options: int) -> Batch:
        rng = np.random.RandomState([self.seed, 0x7EA1, step, index])
        ids = getattr(self, f"_{kind}")(rng, **options)
        if rng.random_sample() < 0.5:  # half of the batches begin with the end-of-text token, as sampled text does
            ids = torch.cat([torch.full((len(ids), 1), self.tokenizer.eos_token_id), ids], dim=1)
        answers = torch.zeros_like(ids, dtype=torch.bool)
        answers[:, 1:] = torch.isin(ids[:, :-1], self.before_answer)
        if kind in ("copy", "lookup"):  # the second half repeats the first, or asks for it
            answers[:, 1:] |= kind == "copy"
            answers[:, : ids.shape[1] // 2 + 2] = False
        return Batch(kind, ids, answers)

    def _icl(self, rng: np.random.RandomState, dimensions: int = 4, exemplars: int = 32) -> torch.Tensor:
        """Functions to learn in context: linear ones until all four inputs are there, then all families.

        One batch in four is a table instead: a few points come again and again, with labels that follow no rule. It rewards comparing
        all the inputs of two points, which small models otherwise take very long to begin with.
        """
        labels = 4 if dimensions == 4 and rng.random_sample() < 0.2 else 2
        table = rng.random_sample() < 0.25
        sequences = self.tokens // ((exemplars + 1) * (dimensions + 3))
        texts = []
        for _ in range(sequences):
            if table:
                points, answers = self._table(rng, dimensions, exemplars, labels)
            else:
                family = ("linear", "nn", "tree")[int(np.searchsorted([0.4, 0.65], rng.random_sample()))] if dimensions == 4 else "linear"
                points, answers = draw_labelled_points(
                    family,
                    rng,
                    dimensions=dimensions,
                    exemplars=exemplars,
                    labels=labels,
                    low=0,
                    high=9,
                    query_label=int(rng.randint(labels)),
                    split="train",
                    distinct=dimensions > 2,
                )
            texts.append(render(points, answers) + f" {answers[-1]}")
        return torch.tensor(self.tokenizer(texts)["input_ids"])

    def _table(self, rng: np.random.RandomState, dimensions: int, exemplars: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
        digits = rng.choice(10, size=(dimensions, 3))  # few values an input, so that no single input tells the points apart
        rows = digits[np.arange(dimensions), rng.randint(3, size=(8, dimensions))]
        chosen = rng.randint(8, size=exemplars + 1)
        first = {tuple(row): label for row, label in zip(rows.tolist(), rng.randint(labels, size=8).tolist(), strict=True)}
        points = rows[chosen]
        return points, np.array([first[tuple(point)] for point in points.tolist()])

    def _facts(self, rng: np.random.RandomState, length: int = 384) -> torch.Tensor:
        people, attributes = self.people, self.people.attributes

        def document() -> str:
            person, kind = rng.randint(len(people.memorised)), rng.randint(len(attributes))
            question = attributes[kind].question.format(people.memorised[person])
            return f"Question: {question}\nAnswer: {people.answer(person, kind)}\n\n"

        return self._packed(document, length)

    def _passages(self, rng: np.random.RandomState, length: int = 384) -> torch.Tensor:
        people, attributes = self.people, self.people.attributes

        def document() -> str:
            crowd = people.met if rng.random_sample() < 0.75 else people.memorised
            chosen = [crowd[i] for i in _distinct(rng, len(crowd), rng.randint(1, 6))]
            stated: dict[tuple[int, int], int] = {}
            for who, kind in rng.randint(0, (len(chosen), len(attributes)), size=(rng.randint(2, 11), 2)):
                stated.setdefault((who, kind), rng.randint(64))
            facts = list(stated.items())
            passage = " ".join(attributes[k].statement.format(chosen[w], attributes[k].values[v]) for (w, k), v in facts)
            asked = rng.permutation(len(facts))[: rng.randint(1, 7)]
            questions = "".join(
                f"\nQuestion: {attributes[k].question.format(chosen[w])}\nAnswer: {attributes[k].values[v]}"
                for (w, k), v in (facts[i] for i in asked)
            )
            return f"Context: {passage}{questions}\n\n"

        return self._packed(document, length)

    def _copy(self, rng: np.random.RandomState, length: int = 64) -> torch.Tensor:
        """Random sequences that come twice, over alphabets so small that several tokens back must agree to find the place."""
        sequences = self.tokens // (2 * length)
        size = int(rng.choice([4, 8, 16, 64]))
        alphabets = rng.randint(257, len(self.tokenizer), size=(sequences, size))
        ids = torch.from_numpy(np.take_along_axis(alphabets, rng.randint(size, size=(sequences, length)), axis=1))
        return torch.cat([ids, ids], dim=1)

    def _lookup(self, rng: np.random.RandomState) -> torch.Tensor:
        """Pairs of keys and values, then as many questions about them in the same form."""
        pairs = int(rng.choice([4, 8, 16, 24, 31]))
        texts = []
        for _ in range(self.tokens // (12 * pairs)):
            keys, values = draw_pairs(rng, pairs)
            order = np.concatenate([np.arange(pairs), rng.randint(pairs, size=pairs)])
            texts.append(render_pairs(keys[order], values[order]))
        return torch.tensor(self.tokenizer(texts)["input_ids"])

    def _packed(self, document: Callable[[], str], length: int) -> torch.Tensor:
        """Rows of ``length`` tokens, each beginning with a whole document and going on with others until it is full."""
        rows = []
        while len(rows) < self.tokens // length:
            text, ids = "", []
            while len(ids) < length:
                text += "".join(document() for _ in range(4))
                ids = self.tokenizer(text, verbose=False)["input_ids"]
            rows.append(ids[:length])
        return torch.tensor(rows)


def _distinct(rng: np.random.RandomState, population: int, count: int) -> list[int]:
    """``count`` different numbers below ``population``, which is large against it."""
    chosen: list[int] = []
    while len(chosen) < count:
        number = int(rng.randint(population))
        if number not in chosen:
            chosen.append(number)
    return chosen
