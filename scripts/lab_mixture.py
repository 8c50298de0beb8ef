"""The training text of the embedded models: functions to learn in context, facts to memorise, passages to read,
keys to look up.

Every micro-batch is a pure function of (seed, step, index): a run that resumes sees the same text, and so do models that are trained
together. Its shape does not depend on the seed where it need not, so that batches of several seeds can be stacked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from harness_ext.tasks.functions import draw_labelled_points
from harness_ext.tasks.icl import render
from harness_ext.tasks.lookup import draw_pairs, render_pairs
from harness_ext.tasks.people import WORDS, Attribute, People

KINDS = ("icl", "facts", "passages", "copy", "lookup")


@dataclass(frozen=True)
class Batch:
    """Token ids [sequences, length] and the mask of the tokens that are answers (of the same shape).

    Attributes:
        weight: of the mean loss of the answers.
    """

    kind: str
    ids: torch.Tensor
    answers: torch.Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class Crowd:
    """Who closed-book questions are about.

    Args:
        people: how many of the memorised people are asked about, from the first.
        slots: each of these is asked about equally often. Beyond ``people``, a slot is a question without an answer, so that models with
            few facts see each of them as often as models with many do, and with the same weight. A random answer there would teach
            models not to memorise.
        zipf: ask about the second half of the people by Zipf's law, the first of them most often, and in all as often as about the first.
    """

    people: int
    slots: int
    zipf: bool = False

    def draw(self, rng: np.random.RandomState, count: int) -> np.ndarray:
        """The numbers of memorised people; -1 for a question without an answer. int [count]."""
        slots = rng.randint(self.slots, size=count)
        half = self.people // 2
        if self.zipf:
            tail = half + np.searchsorted(self._heads, rng.random_sample(count))
            slots = np.where((slots >= half) & (slots < self.people), tail, slots)
        return np.where(slots < self.people, slots, -1)

    def exposures(self, questions: float) -> np.ndarray:
        """How often each person is asked about, on average, in a number of questions: float [people]."""
        share = np.full(self.people, 1 / self.slots)
        if self.zipf:
            half = self.people // 2
            share[half:] = np.diff(self._heads, prepend=0.0) * (self.people - half) / self.slots
        return questions * share

    @cached_property
    def _heads(self) -> np.ndarray:
        """The share of the questions about the second half that is about its first 1, 2, ... people."""
        weights = 1 / np.arange(1, self.people - self.people // 2 + 1)
        heads = np.cumsum(weights) / weights.sum()
        heads[-1] = 1.0
        return heads


class Mixture:
    """Draws micro-batches of about ``tokens`` tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, people: People, *, tokens: int, seed: int, crowd: Crowd | None = None):
        self.tokenizer, self.people, self.tokens, self.seed = tokenizer, people, tokens, seed
        self.crowd = crowd or Crowd(len(people.memorised), len(people.memorised))
        self.before_answer = torch.tensor(tokenizer("\nOutput:\nAnswer:\nValue:")["input_ids"])
        self.before_value = tokenizer("\nAnswer:")["input_ids"][0]
        # The first token of a document holds the blank line before it, which the first document of a row has not.
        self.starts = {tokenizer(f"\n\n{name}:")["input_ids"][0]: tokenizer(f"{name}:")["input_ids"][0] for name in ("Question", "Context")}
        # The tokens of closed-book questions before and after the name, those of the names, and those of the words of the answers.
        self.questions = [
            (self._ids(f"Question: {before.rstrip()}"), tokenizer(f"{after}\nAnswer:")["input_ids"])
            for before, after in (attribute.question.split("{}") for attribute in people.attributes)
        ]
        words = {word: tokenizer(f" {word}")["input_ids"][0] for word in people.words()}
        self.memorised, self.met = (
            np.array([[words[word] for word in person] for person in group]) for group in (people.memorised, people.met)
        )
        self.first, self.second = (
            np.array([[words[word] for word in side] for side in sides])
            for sides in zip(*((attribute.first, attribute.second) for attribute in people.attributes), strict=True)
        )

    def batch(self, kind: str, step: int, index: int, **options: int) -> Batch:
        rng, shape = np.random.RandomState([self.seed, 0x7EA1, step, index]), np.random.RandomState([0x5A4E, step, index])
        ids = getattr(self, f"_{kind}")(rng, shape, **options)
        if shape.random_sample() < 0.5:  # half of the batches begin with the end-of-text token, as sampled text does
            ids = torch.cat([torch.full((len(ids), 1), self.tokenizer.eos_token_id), ids], dim=1)
        answers = torch.zeros_like(ids, dtype=torch.bool)
        answers[:, 1:] = torch.isin(ids[:, :-1], self.before_answer)
        answers[:, 2:] |= ids[:, :-2] == self.before_value  # a value has two words
        if kind in ("copy", "lookup"):  # the second half repeats the first, or asks for it
            answers[:, 1:] |= kind == "copy"
            answers[:, : ids.shape[1] // 2 + 2] = False
        told = self.crowd.people / self.crowd.slots if kind == "facts" and not options.get("people") else 1.0
        return Batch(kind, ids, answers, told)

    def _icl(self, rng: np.random.RandomState, _: np.random.RandomState, dimensions: int = 4, exemplars: int = 32) -> torch.Tensor:
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

    def _facts(self, rng: np.random.RandomState, _: np.random.RandomState, length: int = 64, people: int = 0) -> torch.Tensor:
        """Questions about the memorised people, or the first ``people`` of them: fewer at first, so that the form is learned early."""
        crowd = Crowd(people, people) if people else self.crowd
        fewest = 4 if crowd.people == crowd.slots else 1  # tokens of a name and an answer, or a name less the token before an answer
        rows, shortest = self.tokens // length, min(len(before) + len(after) + fewest for before, after in self.questions)
        count = rows * -(-length // shortest)
        who, kinds = crowd.draw(rng, count), rng.randint(len(self.questions), size=count)
        met, values = rng.randint(len(self.people.met), size=count), rng.randint(WORDS**2, size=count)
        known = who >= 0
        names = np.where(known[:, None], self.memorised[who], self.met[met])
        values = np.where(known, self.people.facts[who, kinds], values)
        answers = np.stack([self.first[kinds, values // WORDS], self.second[kinds, values % WORDS]], axis=1)
        drawn = zip(kinds.tolist(), names.tolist(), answers.tolist(), known.tolist(), strict=True)

        def document() -> list[int]:
            kind, name, answer, told = next(drawn)
            before, after = self.questions[kind]
            return [*before, *name, *after, *answer] if told else [*before, *name, *after[:-1]]

        return self._packed(document, length)

    def _passages(self, rng: np.random.RandomState, _: np.random.RandomState, length: int = 384) -> torch.Tensor:
        """Facts about people that are met in passages only, and questions about them. Nothing here contradicts or repeats a memorised fact.

        Three passages of four hold one attribute of several people, so that only the name tells the values apart.
        """
        crowd, attributes = self.people.met, self.people.attributes

        def document() -> list[int]:
            same = rng.random_sample() < 0.75
            count = rng.randint(2, 7) if same else rng.randint(1, 6)
            chosen = [crowd[i] for i in _distinct(rng, len(crowd), count)]
            stated: dict[tuple[int, int], int] = {}
            if same:
                kind = rng.randint(len(attributes))
                stated = {(who, kind): rng.randint(WORDS**2) for who in rng.permutation(count).tolist()}
            else:
                for who, kind in rng.randint(0, (count, len(attributes)), size=(rng.randint(2, 9), 2)).tolist():
                    stated.setdefault((who, kind), rng.randint(WORDS**2))
            facts = list(stated.items())
            passage = " ".join(attributes[k].statement.format(chosen[w], _value(attributes[k], v)) for (w, k), v in facts)
            asked = rng.randint(len(facts), size=12 if rng.random_sample() < 0.75 else 1)
            questions = [_question(attributes[k], str(chosen[w]), _value(attributes[k], v)) for (w, k), v in (facts[i] for i in asked)]
            return self._ids("\n".join([f"Context: {passage}", *questions]))

        return self._packed(document, length)

    def _copy(self, rng: np.random.RandomState, _: np.random.RandomState, length: int = 64) -> torch.Tensor:
        """Random sequences that come twice, over alphabets so small that several tokens back must agree to find the place."""
        sequences = self.tokens // (2 * length)
        size = int(rng.choice([4, 8, 16, 64]))
        alphabets = rng.randint(257, len(self.tokenizer), size=(sequences, size))
        ids = torch.from_numpy(np.take_along_axis(alphabets, rng.randint(size, size=(sequences, length)), axis=1))
        return torch.cat([ids, ids], dim=1)

    def _lookup(self, rng: np.random.RandomState, shape: np.random.RandomState) -> torch.Tensor:
        """Pairs of keys and values, then as many questions about them in the same form."""
        pairs = int(shape.choice([4, 8, 16, 24, 31]))
        texts = []
        for _ in range(self.tokens // (12 * pairs)):
            keys, values = draw_pairs(rng, pairs)
            order = np.concatenate([np.arange(pairs), rng.randint(pairs, size=pairs)])
            texts.append(render_pairs(keys[order], values[order]))
        return torch.tensor(self.tokenizer(texts)["input_ids"])

    def _packed(self, document: Callable[[], list[int]], length: int) -> torch.Tensor:
        """Rows of ``length`` tokens, each beginning with a whole document and going on with others until it is full."""
        rows = []
        while len(rows) < self.tokens // length:
            first, *row = document()
            row.insert(0, self.starts[first])
            while len(row) < length:
                row += document()
            rows.append(row[:length])
        return torch.tensor(rows)

    def _ids(self, text: str) -> list[int]:
        """The tokens of a document after a blank line."""
        ids: list[int] = self.tokenizer("\n\n" + text, verbose=False)["input_ids"]
        return ids


def _question(attribute: Attribute, person: str, value: str) -> str:
    return f"Question: {attribute.question.format(person)}\nAnswer: {value}"


def _value(attribute: Attribute, value: int) -> str:
    return f"{attribute.first[value // WORDS]} {attribute.second[value % WORDS]}"


def _distinct(rng: np.random.RandomState, population: int, count: int) -> list[int]:
    """``count`` different numbers below ``population``, which is large against it."""
    chosen: list[int] = []
    while len(chosen) < count:
        number = int(rng.randint(population))
        if number not in chosen:
            chosen.append(number)
    return chosen
