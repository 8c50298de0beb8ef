"""The three families of functions of the in-context-learning tasks.

The families follow Garg et al. (arXiv 2208.01066) and Jin et al. (arXiv 2310.04680): linear classifiers, 2-layer ReLU networks with 100
hidden units, and decision trees of depth 4. All are homogeneous around the centre of the input range.

An item is the same on every machine and with every library version: labels are computed in integer arithmetic, and random numbers come
from ``numpy.random.RandomState``, whose stream NumPy does not change.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness_ext.errors import BadOptionError

Split = Literal["test", "train"]

HIDDEN_UNITS = 100
TREE_DEPTH = 4
WEIGHT_SCALE = 1000  # Gaussian weights are rounded to three decimals and stored as integers
MAX_DRAWS = 10_000


class ImpossibleDrawError(BadOptionError):
    """No function of the family gives the wanted labels, for example two labels on one point."""


@dataclass(frozen=True)
class Linear:
    """``argmax(W x)`` with ``W ~ N(0, I)``; for two labels ``w . x > 0``."""

    weight: NDArray[Any]  # int64 [labels, dimensions], or [1, dimensions] for two labels

    @classmethod
    def draw(cls, rng: np.random.RandomState, dimensions: int, labels: int) -> Linear:
        return cls(_gaussian(rng, _outputs(labels), dimensions))

    def __call__(self, centred: NDArray[Any]) -> NDArray[Any]:
        return _decide(centred @ self.weight.T)

    def digest(self) -> bytes:
        return _sha256(b"linear", self.weight)


@dataclass(frozen=True)
class Network:
    """A 2-layer ReLU network with 100 hidden units and no biases. The label is the sign (two labels) or the argmax of its output."""

    hidden: NDArray[Any]  # int64 [100, dimensions]
    output: NDArray[Any]  # int64 [labels, 100], or [1, 100] for two labels

    @classmethod
    def draw(cls, rng: np.random.RandomState, dimensions: int, labels: int) -> Network:
        return cls(_gaussian(rng, HIDDEN_UNITS, dimensions), _gaussian(rng, _outputs(labels), HIDDEN_UNITS))

    def __call__(self, centred: NDArray[Any]) -> NDArray[Any]:
        return _decide(np.maximum(centred @ self.hidden.T, 0) @ self.output.T)

    def digest(self) -> bytes:
        return _sha256(b"nn", self.hidden, self.output)


@dataclass(frozen=True)
class Tree:
    """A complete decision tree of depth 4. Inner nodes test whether one random input is above the centre. Leaves have random labels."""

    features: NDArray[Any]  # int64 [15], heap order
    leaves: NDArray[Any]  # int64 [16]
    dimensions: int

    @classmethod
    def draw(cls, rng: np.random.RandomState, dimensions: int, labels: int) -> Tree:
        features = rng.randint(0, dimensions, size=2**TREE_DEPTH - 1)
        return cls(features.astype(np.int64), rng.randint(0, labels, size=2**TREE_DEPTH).astype(np.int64), dimensions)

    def __call__(self, centred: NDArray[Any]) -> NDArray[Any]:
        node = np.zeros(len(centred), dtype=np.int64)
        rows = np.arange(len(centred))
        for _ in range(TREE_DEPTH):
            node = 2 * node + 1 + (centred[rows, self.features[node]] > 0)
        return np.asarray(self.leaves[node - len(self.features)])

    def digest(self) -> bytes:
        """SHA-256 of the truth table over the orthants, so that two trees that are the same function have the same digest."""
        signs = 2 * ((np.arange(2**self.dimensions)[:, None] >> np.arange(self.dimensions)) & 1) - 1
        return _sha256(b"tree", self(signs))


Function = Linear | Network | Tree
FAMILIES: dict[str, type[Linear] | type[Network] | type[Tree]] = {"linear": Linear, "nn": Network, "tree": Tree}


def split_of(function: Function) -> Split:
    """The split of a function, by its digest. One function in four is for testing.

    The tasks draw from ``test``. The embedded models were trained on ``train`` only.
    """
    return "test" if function.digest()[0] < 64 else "train"


def draw_labelled_points(
    family: str,
    rng: np.random.RandomState,
    *,
    dimensions: int,
    exemplars: int,
    labels: int,
    low: int,
    high: int,
    query_label: int,
    split: Split = "test",
    distinct: bool = True,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draws one function of the split, and labels ``exemplars + 1`` points with it. The query is the last point.

    All labels have the same number of exemplars, up to one if ``labels`` does not divide ``exemplars``. The exemplars are in random order,
    and the query has ``query_label``. A constant answer and the commonest label are therefore no better than chance.

    Args:
        low, high: range of each integer input, including both ends.
        distinct: whether all points differ. If False, exemplars may repeat.

    Returns:
        int64 points [exemplars + 1, dimensions] and int64 labels [exemplars + 1].

    Raises:
        ImpossibleDrawError: 10,000 functions in a row could not give the labels.
    """
    wanted = np.full(labels, exemplars // labels)
    wanted[rng.permutation(labels)[: exemplars % labels]] += 1
    needed = wanted.copy()
    needed[query_label] += 1
    for _ in range(MAX_DRAWS):
        function = FAMILIES[family].draw(rng, dimensions, labels)
        if split_of(function) != split:
            continue
        pool = rng.randint(low, high + 1, size=(16 * (exemplars + 1), dimensions)).astype(np.int64)
        if distinct:
            pool = pool[np.sort(np.unique(pool, axis=0, return_index=True)[1])]
        pool_labels = function(2 * pool - (low + high))
        if (np.bincount(pool_labels, minlength=labels) < needed).any():
            continue
        chosen = [np.flatnonzero(pool_labels == label)[: needed[label]] for label in range(labels)]
        query = chosen[query_label][-1]
        chosen[query_label] = chosen[query_label][:-1]
        order = np.append(rng.permutation(np.concatenate(chosen)), query)
        return pool[order], pool_labels[order]
    raise ImpossibleDrawError(
        f"no {family} function of {dimensions} input(s) in {low}..{high} gives {labels} labels to {exemplars} exemplars and a query"
    )


def _outputs(labels: int) -> int:
    return 1 if labels == 2 else labels


def _decide(scores: NDArray[Any]) -> NDArray[Any]:
    if scores.shape[1] == 1:
        return np.asarray(scores[:, 0] > 0, dtype=np.int64)
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)


def _gaussian(rng: np.random.RandomState, *shape: int) -> NDArray[Any]:
    return np.asarray(np.rint(rng.standard_normal(shape) * WEIGHT_SCALE), dtype=np.int64)


def _sha256(kind: bytes, *arrays: NDArray[Any]) -> bytes:
    digest = hashlib.sha256(kind)
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return digest.digest()
