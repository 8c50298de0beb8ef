"""A dense and a pruned model on the same items: what each scores, what is left, what changed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest  # type: ignore[import-untyped]

from harness_ext.statistics.checks import (
    RESAMPLES,
    Array,
    StatisticsError,
    check_above_chance,
    check_aligned,
    check_chance,
    check_ids,
    check_level,
    check_resamples,
    scores_array,
)
from harness_ext.statistics.labels import Labels, label_use
from harness_ext.statistics.resampling import Bounds, interval, linear_interval, method
from harness_ext.statistics.results import Estimate, Result, bounded, caveat_of_two
from harness_ext.statistics.weighting import Sample, Table


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one model on the items of one task.

    Args:
        ids: of the items, all different.
        values: in [0, 1], one an item: 0 or 1, or graded.
        predictions: what the model answered, if known.
        labels: what is right, if known.

    Raises:
        StatisticsError: anything else.
    """

    ids: Sequence[Hashable]
    values: ArrayLike
    predictions: Sequence[Hashable] | None = None
    labels: Sequence[Hashable] | None = None

    def __post_init__(self) -> None:
        values = scores_array(self.values, "scores")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "ids", check_ids(self.ids, len(values), "scores"))
        for name in ("predictions", "labels"):
            given = getattr(self, name)
            if given is None:
                continue
            object.__setattr__(self, name, tuple(given))
            if len(getattr(self, name)) != len(values):
                raise StatisticsError(f"scores: {len(getattr(self, name))} {name} for {len(values)} items")

    @property
    def array(self) -> Array:
        """The values as an array of float64."""
        return np.asarray(self.values, dtype=np.float64)

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return bool(np.isin(self.array, (0.0, 1.0)).all())

    def reordered(self, ids: Sequence[Hashable]) -> Scores:
        """The same scores in the order of ``ids``, which must be the same items."""
        ids = tuple(ids)
        if set(ids) == set(self.ids):
            check_ids(ids, len(self.ids), "the order asked for")
        else:
            check_aligned(ids, self.ids, ("the order asked for", "scores"))
        place = {key: index for index, key in enumerate(self.ids)}
        order = [place[key] for key in ids]
        moved = [None if given is None else [given[index] for index in order] for given in (self.predictions, self.labels)]
        return Scores(ids, self.array[order], *moved)


@dataclass(frozen=True)
class Accuracy(Result):
    """A mean score.

    Args:
        value: the mean over ``items``.
        stderr: its standard error, the sample's standard deviation (n - 1) over sqrt(n), as in lm-eval; None for one item.
        corrected: (value - chance) / (1 - chance).
        corrected_stderr: stderr / (1 - chance).
    """

    value: float
    stderr: float | None
    corrected: float
    corrected_stderr: float | None
    chance: float
    items: int


@dataclass(frozen=True)
class McNemar(Result):
    """McNemar's exact test of no difference: among the items on which two models differ, either is right equally often.

    Args:
        right_to_wrong: items that only the dense model gets right.
        wrong_to_right: items that only the pruned model gets right.
        p_value: two-sided, exact (binomial).
    """

    right_to_wrong: int
    wrong_to_right: int
    p_value: float


@dataclass(frozen=True)
class Flips(Result):
    """Answers that changed from right to wrong, and back.

    Args:
        right_to_wrong_share: of the items that the dense model gets right; None if there are none.
        wrong_to_right_share: of the items that the dense model gets wrong; None if there are none.
        share: of all items, both together.
    """

    right_to_wrong: int
    wrong_to_right: int
    dense_right: int
    dense_wrong: int
    right_to_wrong_share: float | None
    wrong_to_right_share: float | None
    share: float


@dataclass(frozen=True)
class Comparison(Result):
    """A pruned model against the dense one on the same items.

    Args:
        retained: (pruned - chance) / (dense - chance).
        difference: pruned - dense.
        mcnemar, flips: None where scores are graded.
        dense_labels, pruned_labels: None where predictions are not given.
    """

    items: int
    chance: float
    dense: Accuracy
    pruned: Accuracy
    retained: Estimate
    difference: Estimate
    mcnemar: McNemar | None
    flips: Flips | None
    dense_labels: Labels | None
    pruned_labels: Labels | None


def accuracy(scores: Scores, *, chance: float = 0.0) -> Accuracy:
    """The mean score with its standard error, raw and chance-corrected."""
    values, chance = scores.array, check_chance(chance)
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return Accuracy(mean, error, (mean - chance) / (1 - chance), None if error is None else error / (1 - chance), chance, len(values))


def flips(dense: Scores, pruned: Scores) -> Flips:
    """How many answers changed; raises StatisticsError for graded scores or other items."""
    right, kept = _both_binary(dense, pruned, "flips")
    lost, won = int((right & ~kept).sum()), int((~right & kept).sum())
    were, were_not = int(right.sum()), int((~right).sum())
    shares = [count / of if of else None for count, of in ((lost, were), (won, were_not))]
    return Flips(lost, won, were, were_not, shares[0], shares[1], (lost + won) / len(right))


def mcnemar(dense: Scores, pruned: Scores) -> McNemar:
    """McNemar's exact test: a two-sided binomial test with probability 1/2 on the items that only one of the two models gets right.

    Raises:
        StatisticsError: graded scores or other items.
    """
    return mcnemar_of(*_both_binary(dense, pruned, "McNemar's test"))


def mcnemar_of(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """The same test for two arrays [items] that tell which answers are right."""
    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    return McNemar(lost, won, float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0)


def compare(
    dense: Scores, pruned: Scores, *, chance: float = 0.0, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Everything about a pruned model against the dense one on the same items.

    Intervals are paired: an item has one weight for both scores (``resampling.item_interval``). Where no score differs, the interval of the
    difference is the exact binomial one for the share of items that differ, 0 of n.

    Args:
        dense, pruned: of the same items in the same order; 0/1 or graded.
        chance: the score of a guess.

    Raises:
        StatisticsError: other items, another order, a dense score that is not above chance, or options out of range.
    """
    check_aligned(dense.ids, pruned.ids, ("dense", "pruned"))
    chance, level = check_chance(chance), check_level(level)
    resamples = check_resamples(resamples, level)
    check_above_chance(float(dense.array.mean()), chance, "dense")
    binary = dense.binary and pruned.binary
    retained, difference = paired_estimates(dense, [pruned], chance=chance, level=level, resamples=resamples, seed=seed)
    return Comparison(
        items=len(dense.ids),
        chance=chance,
        dense=accuracy(dense, chance=chance),
        pruned=accuracy(pruned, chance=chance),
        retained=retained,
        difference=difference,
        mcnemar=mcnemar(dense, pruned) if binary else None,
        flips=flips(dense, pruned) if binary else None,
        dense_labels=label_use(dense.predictions, dense.labels) if dense.predictions is not None else None,
        pruned_labels=label_use(pruned.predictions, pruned.labels) if pruned.predictions is not None else None,
    )


def paired_estimates(
    dense: Scores, pruned: Sequence[Scores], *, chance: float, level: float, resamples: int, seed: int
) -> tuple[Estimate, Estimate]:
    """The retained fraction and the difference, over one calibration seed or more, of scores that are checked to be aligned."""
    both = np.stack([np.stack([dense.array, scores.array]) for scores in pruned])  # [seeds, 2, items]
    sample = Sample([Table(tuple(dense.ids), both)])
    before, after = sample.means
    share = (after - chance) / (before - chance)
    caveat = caveat_of_two(sample.seeds)

    def retained(means: Array) -> Bounds:
        room = means[:, 0] - chance
        value = (means[:, 1] - chance) / np.where(room > 0, room, 1.0)
        return np.where(room > 0, value, -np.inf), np.where(room > 0, value, np.inf)

    slope, step = np.array([-share, 1.0]) / (before - chance), np.array([-1.0, 1.0])
    ends = interval(sample, retained, slope, level=level, resamples=resamples, seed=seed)
    low, high = linear_interval(sample, step, level=level, resamples=resamples, seed=seed)
    return (
        Estimate(float(share), bounded(ends[0]), bounded(ends[1]), level, method(sample, slope), caveat),
        Estimate(float(after - before), low, high, level, method(sample, step), caveat),
    )


def _both_binary(dense: Scores, pruned: Scores, what: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    check_aligned(dense.ids, pruned.ids, ("dense", "pruned"))
    for name, scores in (("dense", dense), ("pruned", pruned)):
        if not scores.binary:
            odd = next(float(value) for value in scores.array if value not in (0, 1))
            raise StatisticsError(f"{what}: a {name} score of {odd:g}; want 0 or 1 for every item")
    return dense.array == 1, pruned.array == 1
