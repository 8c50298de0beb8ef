"""How a model uses its answers: a pruned one may only guess more evenly, or repeat one label."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from harness_ext.statistics.checks import StatisticsError
from harness_ext.statistics.results import Result


@dataclass(frozen=True)
class Labels(Result):
    """The answers that a model gave.

    Args:
        entropy: of the predictions in bits, without a correction for few items; 0 if they are all the same.
        label_entropy: of the right labels; None if they are not given.
        distinct: different predictions.
        balanced_accuracy: the mean over the labels of the share of their items that were predicted right; None without labels.
        commonest: the share of the commonest prediction.
    """

    entropy: float
    label_entropy: float | None
    distinct: int
    balanced_accuracy: float | None
    commonest: float


def entropy(answers: Sequence[Hashable]) -> float:
    """Entropy in bits of the shares of the answers."""
    if not answers:
        raise StatisticsError("answers: empty; want at least one")
    counts = Counter(answers).values()
    return sum(count / len(answers) * math.log2(len(answers) / count) for count in counts)


def balanced_accuracy(predictions: Sequence[Hashable], labels: Sequence[Hashable]) -> float:
    """The mean over the labels of the share of their items that were predicted right."""
    if len(predictions) != len(labels):
        raise StatisticsError(f"{len(predictions)} predictions for {len(labels)} labels")
    if not labels:
        raise StatisticsError("labels: empty; want at least one")
    of = Counter(labels)
    right = Counter(label for prediction, label in zip(predictions, labels, strict=True) if prediction == label)
    return sum(right[label] / of[label] for label in of) / len(of)


def label_use(predictions: Sequence[Hashable], labels: Sequence[Hashable] | None) -> Labels:
    """Entropy, balanced accuracy and the commonest answer."""
    bits, counts = entropy(predictions), Counter(predictions)
    return Labels(
        entropy=bits,
        label_entropy=None if labels is None else entropy(labels),
        distinct=len(counts),
        balanced_accuracy=None if labels is None else balanced_accuracy(predictions, labels),
        commonest=max(counts.values()) / len(predictions),
    )
