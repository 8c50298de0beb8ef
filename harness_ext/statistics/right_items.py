"""The items of an ability that the dense model answers rightly, with their margins. Only these can be lost."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness_ext.statistics.checks import Array, StatisticsError
from harness_ext.statistics.curves import Curve, check_ability
from harness_ext.statistics.families import family_weights
from harness_ext.statistics.weighted_items import Items


@dataclass(frozen=True)
class RightItems:
    """The items of an ability that the dense model answers rightly.

    Args:
        ids, margins, weights: [items]; the weights are those in the score of the ability, and add up to 1.
        scores: [seeds, sparsities, items].
        least: the lowest score that an item can have.
    """

    ids: tuple[Hashable, ...]
    margins: Array
    weights: Array
    scores: Array
    sparsities: Array
    least: float

    @classmethod
    def of(
        cls, curves: Sequence[Curve], margins: Mapping[str, ArrayLike], corrected: bool, families: Mapping[str, Hashable] | None, what: str
    ) -> RightItems:
        check_ability(curves, what)
        ids: list[Hashable] = []
        parts: list[tuple[Array, Array, Array]] = []
        floors = [curve.chance if corrected else 0.0 for curve in curves]
        task_weights = family_weights([curve.name for curve in curves], families)
        for curve, floor, weight in zip(curves, floors, task_weights, strict=True):
            values, of_items = np.asarray(curve.values), _margins_of(curve, margins)
            dense = values[:, 0].mean(0)
            if not np.isin(dense, (0, 1)).all():
                raise StatisticsError(f"{curve.name}: a dense score of {dense[~np.isin(dense, (0, 1))][0]:g}; want 0 or 1 for every item")
            right = dense == 1
            if not np.isfinite(of_items[right]).all():
                raise StatisticsError(
                    f"{curve.name}: the margins of {int((~np.isfinite(of_items[right])).sum())} items are NaN or infinite"
                )
            ids += [key for key, kept in zip(curve.ids or (), right, strict=True) if kept]
            weights = np.full(int(right.sum()), weight / len(right))
            parts.append((of_items[right], weights, (values[:, :, right] - floor) / (1 - floor)))
        margin, weights, scores = (np.concatenate([part[index] for part in parts], axis=-1) for index in range(3))
        order = np.argsort(margin, kind="stable")  # the items of a stratum lie side by side
        return cls(
            tuple(ids[item] for item in order), margin[order], weights[order] / weights.sum(), np.ascontiguousarray(scores[:, :, order]),
            np.asarray(curves[0].sparsities), min(-floor / (1 - floor) for floor in floors),
        )  # fmt: skip

    def items(self, weights: Array, corrected: bool, members: NDArray[np.intp] | None = None) -> Items:
        """The items with other weights, all or some of them."""
        kept = np.arange(len(weights)) if members is None else members
        inside, units = weights[kept], units_of([self.ids[item] for item in kept])
        scores = np.ascontiguousarray(self.scores[:, :, kept])
        return Items(self.sparsities, scores, inside / inside.sum(), units, self.least, corrected)


def units_of(ids: Sequence[Hashable]) -> NDArray[np.intp]:
    """A number from 0 for each id. Equal ids, the same item in two tasks, have the same number."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys(ids))}
    return np.array([numbers[key] for key in ids])


def _margins_of(curve: Curve, margins: Mapping[str, ArrayLike]) -> Array:
    if curve.name not in margins:
        raise StatisticsError(f"margins: none of {curve.name}; want those of every task")
    try:
        of_items = np.asarray(margins[curve.name], dtype=np.float64)
    except (TypeError, ValueError):
        raise StatisticsError(f"{curve.name}: the margins are no array of numbers; want one for each item") from None
    if of_items.shape != (len(curve.ids or ()),):
        raise StatisticsError(f"{curve.name}: margins of shape {of_items.shape}; want one for each of {len(curve.ids or ())} items")
    return of_items
