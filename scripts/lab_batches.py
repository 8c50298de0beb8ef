"""Micro-batches as arrays for a stack of models: what each predicts, where, and with which weight in its loss.

A model of the stack reads its own text. Its micro-batches of one kind are read in one pass; all are padded on the right to one shape, which
changes nothing, as the attention is causal. A loss is a sum over places with weights that are the mean over each micro-batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from lab_mixture import Mixture
from lab_probes import Probes
from lab_settings import Settings
from numpy.typing import NDArray

LAST_LABELS = 8  # of a sequence of exemplars: the accuracy that decides whether the functions get another input
Array = NDArray[np.generic]


@dataclass(frozen=True)
class Targets:
    """What is predicted at some places of a micro-batch.

    Args:
        rows, columns: int [places].
        wanted: int16 [places], the class; or float32 [places, inputs].
        weights: float [places] or [places, inputs], of each term in the mean; they sum to 1.
        counted: float [places], the weights of the accuracy; those of the loss by default.
    """

    rows: Array
    columns: Array
    wanted: Array
    weights: Array
    counted: Array | None = None


@dataclass(frozen=True)
class Part:
    """One micro-batch: token ids [rows, length], and its targets by name."""

    ids: Array
    targets: dict[str, Targets]


class Stacked(NamedTuple):
    """Targets of a stack: places int32 [models, places] in the flat micro-batches of each model, and arrays of the same length."""

    places: Array
    wanted: Array
    weights: Array
    counted: Array


@dataclass(frozen=True)
class StackedBatch:
    """All micro-batches of one kind in a step: token ids int16 [models, rows, length], and targets by name."""

    kind: str
    ids: Array
    targets: dict[str, Stacked]


def part(mixture: Mixture, probes: Probes, kind: str, step: int, index: int, **options: int) -> Part:
    """Draws a micro-batch, with what the model and its probes are to predict."""
    batch = mixture.batch(kind, step, index, **options)
    ids, answers = batch.ids.numpy(), batch.answers.numpy()
    targets = {"answers": _next_tokens(ids, answers, batch.weight)}
    if kind == "icl":
        counted = np.zeros((len(ids), answers[0].sum()))
        counted[:, -LAST_LABELS:] = 1 / counted[:, -LAST_LABELS:].size
        found = targets["answers"]
        targets["answers"] = Targets(found.rows, found.columns, found.wanted, found.weights, counted.reshape(-1))
    if kind != "copy":
        some = max(1, len(ids) // 4)
        rest = ~answers[:some]
        rest[:, 0] = False
        targets["text"] = _next_tokens(ids[:some], rest)
        targets |= {name: Targets(*values) for name, values in probes.targets(kind, ids).items()}
    return Part(ids.astype(np.int16), targets)


def _next_tokens(ids: Array, chosen: Array, weight: float = 1.0) -> Targets:
    """The tokens that are chosen, each predicted from the place before it; their weights have the sum ``weight``."""
    rows, columns = chosen.nonzero()
    even = np.full(len(rows), 1 / max(1, len(rows)))
    return Targets(rows, columns - 1, ids[rows, columns].astype(np.int16), weight * even, None if weight == 1 else even)


def stack(kind: str, parts: Sequence[Sequence[Part]]) -> StackedBatch:
    """Stacks the micro-batches of a kind: of each model in turn, equally many."""
    shapes = np.array([part.ids.shape for model in parts for part in model])
    height, length = shapes.max(axis=0)
    ids = np.zeros((len(parts), len(parts[0]) * height, length), dtype=np.int16)
    for of_model, model in zip(ids, parts, strict=True):
        for number, part in enumerate(model):
            rows, columns = part.ids.shape
            of_model[number * height : number * height + rows, :columns] = part.ids
    names = parts[0][0].targets
    return StackedBatch(
        kind, ids, {name: _stack_targets([[p.targets[name] for p in model] for model in parts], height, length) for name in names}
    )


def _stack_targets(models: list[list[Targets]], height: int, length: int) -> Stacked:
    columns: list[tuple[Array, ...]] = []
    for parts in models:
        share = 1 / len(parts)
        columns.append(
            (
                np.concatenate([(number * height + t.rows) * length + t.columns for number, t in enumerate(parts)]).astype(np.int32),
                np.concatenate([t.wanted for t in parts]),
                np.concatenate([t.weights * share for t in parts]).astype(np.float32),
                np.concatenate([(t.weights if t.counted is None else t.counted) * share for t in parts]).astype(np.float32),
            )
        )
    most = max(len(places) for places, *_ in columns)
    padded = [[np.pad(array, [(0, most - len(array)), *[(0, 0)] * (array.ndim - 1)]) for array in model] for model in columns]
    places, wanted, weights, counted = (np.stack(arrays) for arrays in zip(*padded, strict=True))
    return Stacked(places, wanted, weights, counted)


@dataclass(frozen=True)
class Source:
    """Draws whole steps for a stack of models, each with its mixture and settings."""

    mixtures: Sequence[Mixture]
    probes: Probes
    runs: Sequence[Settings]

    def step(self, step: int, dimensions: Sequence[int], *, together: bool) -> list[StackedBatch]:
        """The batches of a step.

        Args:
            dimensions: for each model, the number of inputs of the functions.
            together: one batch for all micro-batches of a kind; otherwise one for each.
        """
        kinds, drawn = self.runs[0].kinds(step), dict[tuple[object, ...], Part]()

        def of(model: int, index: int) -> Part:
            mixture, kind, options = self.mixtures[model], kinds[index], dict[str, int]()
            if kind == "icl":
                options = {"dimensions": dimensions[model]}
            elif kind == "facts" and (people := self.runs[model].people_asked(step)):
                options = {"people": people}
            crowd = mixture.crowd if kind == "facts" and not options else None
            key = mixture.seed, index, crowd, *options.items()
            if key not in drawn:  # models of one seed read one text
                drawn[key] = part(mixture, self.probes, kind, step, index, **options)
            return drawn[key]

        models = range(len(self.mixtures))
        if not together:
            return [stack(kind, [[of(m, index)] for m in models]) for index, kind in enumerate(kinds)]
        places = {kind: [i for i, k in enumerate(kinds) if k == kind] for kind in kinds}
        return [stack(kind, [[of(m, index) for index in indices] for m in models]) for kind, indices in places.items()]


class Feeder:
    """Draws the steps ahead of the training, in processes of its own; with none, when they are taken.

    Start it before CUDA: the processes are copies of this one.

    Args:
        together: one batch for all micro-batches of a kind, as suits a GPU; otherwise one for each, as suits the caches of a CPU.
    """

    def __init__(self, source: Source, processes: int, *, together: bool):
        self.source, self.together = source, together
        self._pool = None
        if processes:
            self._pool = ProcessPoolExecutor(processes, mp_context=get_context("fork"), initializer=_bring, initargs=(source,))
            self._pool.submit(int).result()  # starts the processes
        self._asked: deque[Callable[[], list[StackedBatch]]] = deque()

    def ask(self, step: int, dimensions: Sequence[int]) -> None:
        """Asks for a step. Steps are asked for in their order."""
        if self._pool:
            self._asked.append(self._pool.submit(_draw, step, list(dimensions), self.together).result)
        else:
            self._asked.append(partial(self.source.step, step, list(dimensions), together=self.together))

    def take(self) -> list[StackedBatch]:
        """The batches of the first step that was asked for and not taken yet."""
        return self._asked.popleft()()

    def close(self) -> None:
        """Ends the processes."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


_brought: list[Source] = []  # to a process that draws


def _bring(source: Source) -> None:
    _brought[:] = [source]


def _draw(step: int, dimensions: Sequence[int], together: bool) -> list[StackedBatch]:
    return _brought[0].step(step, dimensions, together=together)
