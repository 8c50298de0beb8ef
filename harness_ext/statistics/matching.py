"""The disparity at equal difficulty: items of recall and of in-context ability are matched on their margin in the dense model."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness_ext.statistics.checks import RESAMPLES, Array, StatisticsError, check_drop, check_level, check_resamples
from harness_ext.statistics.curves import Curve, over_calibrations
from harness_ext.statistics.disparity import NAMES, Compared, Disparity, from_criticals, outlasts_words, range_words
from harness_ext.statistics.results import Result, percent
from harness_ext.statistics.right_items import RightItems, units_of
from harness_ext.statistics.weighted_items import Resampled, bootstrap_weights, effective_number, weighted_critical

FEWEST_EFFECTIVE = 30  # effective items of each ability: if fewer keep every answer, a loss of a tenth is still in the interval
LEAST_SHARE = 0.1  # of each ability in the common support: with less, the statement is about a corner of the ability
ITEMS_PER_STRATUM = 8  # of the ability with fewer items
FEWEST_STRATA, MOST_STRATA = 5, 64
WIDEST_STRATUM = 0.5  # in standard deviations of the margins


@dataclass(frozen=True)
class Overlap(Result):
    """How far two abilities have items of equal margin. Pairs are of recall and of in-context ability.

    Args:
        items: items that the dense model answers rightly.
        shares: the share of each ability that is in the common support: in strata that hold items of both.
        effective: the effective number of items of each ability after matching, ``(sum w)^2 / sum w^2``; an item that several tasks have
            counts once.
        strata: strata that hold items of both abilities.
        low, high: the least and the greatest margin in the common support; None if there is none.
        means: the mean margin of each ability before matching.
        apart: the difference of the mean margins, in-context ability less recall, in standard deviations (the root of the mean variance).
        apart_matched: the same after matching, in the same standard deviations; None without a common support.
        refusal: why there is too little overlap to match on, or None.
    """

    items: tuple[int, int]
    shares: tuple[float, float]
    effective: tuple[float, float]
    strata: int
    low: float | None
    high: float | None
    means: tuple[float, float]
    apart: float
    apart_matched: float | None
    refusal: str | None
    names: tuple[str, str] = NAMES

    def words(self) -> str:
        """``61 % of recall and 48 % of in-context ability, effectively 88 and 120 items``."""
        (recall, other), shares = self.names, [percent(round(share, 2)) for share in self.shares]
        return f"{shares[0]} of {recall} and {shares[1]} of {other}, effectively {self.effective[0]:.0f} and {self.effective[1]:.0f} items"


@dataclass(frozen=True)
class MatchedDisparity(Result):
    """The disparity between items of equal margin in the dense model.

    Args:
        overlap: what was matched.
        disparity: of the matched items; None where there is too little overlap.
    """

    overlap: Overlap
    disparity: Disparity | None

    def sentence(self) -> str:
        """What was shown at equal margin, with the overlap; or why nothing can be."""
        return matched_sentence([self])


def matched_sentence(found: Sequence[MatchedDisparity], *, caveat: bool = True) -> str:
    """A sentence for each result of one matching at several drops, one for the overlap, and the caveat."""
    overlap = found[0].overlap
    if overlap.refusal is not None:
        return f"At equal difficulty there is no overlap to match on: {overlap.refusal}."
    known = [one.disparity for one in found if one.disparity is not None]
    more = f" Intervals are {known[0].caveat}." if caveat and known[0].caveat else ""
    compared = f"Compared were items with equal margins in the dense model: {overlap.words()}."
    return f"Between items of equal difficulty, {findings(known)}. {compared}{more}"


def findings(found: Sequence[Compared]) -> str:
    """``at a 5 % drop, in-context ability outlasts recall by 0.1 to 0.3. At a 50 % drop, ...``: a sentence for each drop."""
    return "at " + ". At ".join(f"a {percent(one.drop)} drop, {_finding(one)}" for one in found)


def _finding(found: Compared) -> str:
    recall, other = found.names
    if found.finding != "not shown":
        return outlasts_words(found)
    if found.low is None and found.high is None:
        return "neither is shown to be lost within the sparsities measured"
    return f"that one outlasts the other is not shown ({other} less {recall} is {range_words(found.low, found.high)})"


@dataclass(frozen=True)
class _Strata:
    """The strata of the items of one ability, which lie in the order of their margins.

    Args:
        of_item: [items], the stratum of each item, rising.
        present, starts: the strata that have items, and the first item of each.
        count: strata in all.
    """

    of_item: NDArray[np.intp]
    present: NDArray[np.intp]
    starts: NDArray[np.intp]
    count: int

    @classmethod
    def of(cls, of_item: NDArray[np.intp], count: int) -> _Strata:
        return cls(of_item, *np.unique(of_item, return_index=True), count)

    def sums(self, weights: Array) -> Array:
        """[n, strata], of weights [n, items]."""
        sums = np.zeros((len(weights), self.count))
        sums[:, self.present] = np.add.reduceat(weights, self.starts, axis=1)
        return sums


@dataclass(frozen=True, eq=False)
class Matching:
    """Items of recall and of in-context ability, matched on their margin in the dense model.

    Only items that the dense model answers rightly count, since only they can be lost. Their dense score is 1 in both abilities, whatever
    the chance of a guess.

    The range of margins that both abilities have is cut into strata, at quantiles of the margins of both (coarsened exact matching: Iacus,
    King and Porro, Political Analysis 20, 2012, 1-24). Strata wider than half a standard deviation are cut again. Let f be the share of
    recall in a stratum, and g that of the in-context ability. An item of recall is then weighted by g / (f + g), and one of the in-context
    ability by f / (f + g). These are the overlap weights (Li, Morgan and Zaslavsky, JASA 113, 2018, 390-400) of an ability given the
    stratum. Both abilities then have the same shares of strata, f g / (f + g), and strata of one ability alone have no weight. Shares count
    an item as it counts in the score of its ability.

    Args:
        recall: the curves of its tasks, as in ``disparity``.
        in_context: the same of the in-context ability.
        margins: by the name of the task, the margin of each item in the order of the curve. Items that the dense model gets wrong may
            have NaN.
        corrected: chance-correct each score first.
        families: the family of each task of both abilities, as in ``ability_critical``.
        resamples: random weightings of the items that are drawn. Matching is done again under each.
        seed: of the draws.
        strata: how many, all at quantiles; None: one for every 8 items of the ability with fewer items in the range, from 5 to 64, and none
            wider than half a standard deviation.
        names: of the two abilities, for sentences: recall's first.

    Raises:
        StatisticsError: bad input, margins that are missing, or a dense score that is neither 0 nor 1.
    """

    recall: Sequence[Curve]
    in_context: Sequence[Curve]
    margins: Mapping[str, ArrayLike]
    corrected: bool = False
    families: Mapping[str, Hashable] | None = None
    resamples: int = RESAMPLES
    seed: int = 0
    strata: int | None = None
    names: tuple[str, str] = NAMES
    _right: tuple[RightItems, RightItems] = field(init=False)

    def __post_init__(self) -> None:
        if self.recall and self.in_context and self.recall[0].seeds != self.in_context[0].seeds:
            counts = f"{self.names[0]} has {self.recall[0].seeds} calibration seeds, {self.names[1]} {self.in_context[0].seeds}"
            raise StatisticsError(f"{counts}; want the same ones")
        check_resamples(self.resamples, 0.95)
        if self.strata is not None and (isinstance(self.strata, bool) or not isinstance(self.strata, int) or self.strata < 1):
            raise StatisticsError(f"strata={self.strata!r}: want a whole number of at least 1, such as 20")
        both = zip((self.recall, self.in_context), self.names, strict=True)
        right = [RightItems.of(curves, self.margins, self.corrected, self.families, name) for curves, name in both]
        object.__setattr__(self, "_right", tuple(right))

    @cached_property
    def _spread(self) -> float:
        """The root of the mean variance of the margins of the two abilities."""
        variances = [one.weights @ (one.margins - one.weights @ one.margins) ** 2 for one in self._right]
        return float(np.sqrt(np.mean(variances)))

    @cached_property
    def _strata(self) -> tuple[_Strata, _Strata]:
        low, high = max(one.margins[0] for one in self._right), min(one.margins[-1] for one in self._right)
        ends = [low, np.nextafter(high, np.inf)] if low <= high else [low]  # outside of these, there are items of one ability alone
        inside = [one.margins[(one.margins >= low) & (one.margins <= high)] for one in self._right]
        count = self.strata or int(np.clip(min(map(len, inside)) // ITEMS_PER_STRATUM, FEWEST_STRATA, MOST_STRATA))
        cuts = [*ends, *(np.quantile(np.concatenate(inside), np.arange(1, count) / count) if low <= high else [])]
        if self.strata is None and self._spread > 0:
            cuts += np.arange(low, high, WIDEST_STRATUM * self._spread).tolist()
        recall, other = (_Strata.of(np.searchsorted(np.unique(cuts), one.margins, side="right"), len(cuts) + 1) for one in self._right)
        return recall, other

    @cached_property
    def weights(self) -> tuple[Array, Array]:
        """The weights of the right items of each ability after matching, in the order of their margins; 0 outside of the common support."""
        recall, other = (factors[0] for factors in self._factors([one.weights[None] for one in self._right]))
        return self._right[0].weights * recall[self._strata[0].of_item], self._right[1].weights * other[self._strata[1].of_item]

    def _factors(self, weights: Sequence[Array]) -> tuple[Array, Array]:
        """The overlap weight of each stratum, [n, strata] for each ability, of items with the weights [n, items]."""
        f, g = (strata.sums(each) for strata, each in zip(self._strata, weights, strict=True))
        f, g = f / f.sum(1, keepdims=True), g / g.sum(1, keepdims=True)
        both = np.where((f > 0) & (g > 0), f + g, np.inf)
        return g / both, f / both

    @cached_property
    def overlap(self) -> Overlap:
        """How far the abilities have items of equal margin."""
        inside = [weights > 0 for weights in self.weights]
        shares = [min(float(one.weights[kept].sum()), 1.0) for one, kept in zip(self._right, inside, strict=True)]
        by_item = [np.zeros(len(one.ids)) for one in self._right]
        for sums, one, weights in zip(by_item, self._right, self.weights, strict=True):
            np.add.at(sums, units_of(one.ids), weights)
        effective = [effective_number(sums) for sums in by_item]
        means = [float(one.weights @ one.margins) for one in self._right]
        common = np.concatenate([one.margins[kept] for one, kept in zip(self._right, inside, strict=True)])
        matched = None
        if len(common):
            recall, other = (np.average(one.margins, weights=weights) for one, weights in zip(self._right, self.weights, strict=True))
            matched = _in_deviations(float(other - recall), self._spread)
        return Overlap(
            items=(len(inside[0]), len(inside[1])),
            shares=(shares[0], shares[1]),
            effective=(effective[0], effective[1]),
            strata=len(np.unique(self._strata[0].of_item[inside[0]])),
            low=float(common.min()) if len(common) else None,
            high=float(common.max()) if len(common) else None,
            means=(means[0], means[1]),
            apart=_in_deviations(means[1] - means[0], self._spread),
            apart_matched=matched,
            refusal=self._refusal(shares, effective),
            names=self.names,
        )

    def _refusal(self, shares: Sequence[float], effective: Sequence[float]) -> str | None:
        """Why nothing is computed; None if there is enough overlap."""
        for name, share in zip(self.names, shares, strict=True):
            if share < LEAST_SHARE:
                least = f"at least {percent(LEAST_SHARE)} of each ability are needed"
                return f"{percent(round(share, 3))} of {name} have a margin that the other ability has too, and {least}"
        for name, number in zip(self.names, effective, strict=True):
            if number < FEWEST_EFFECTIVE:
                least = f"at least {FEWEST_EFFECTIVE} of each ability are needed"
                return f"{name} has effectively {number:.1f} items of a margin that the other ability has too, and {least}"
        return None

    @cached_property
    def _resampled(self) -> tuple[Resampled, Resampled]:
        """Weighted sums under random weightings of the items, with the matching done again under each.

        An item that both abilities have gets one random weight. One more item weighs as much as the heaviest one could.
        """
        units = units_of([key for one in self._right for key in one.ids])
        own = np.split(units, [len(self._right[0].ids)])
        generator = np.random.default_rng(self.seed)
        parts: tuple[list[Resampled], list[Resampled]] = ([], [])
        by_item = [np.ascontiguousarray(one.scores.mean(0).T) for one in self._right]
        for random in bootstrap_weights(generator, int(units.max()) + 1, self.resamples):
            drawn = [random[:, columns] * one.weights for columns, one in zip(own, self._right, strict=True)]
            for index, (weights, factors) in enumerate(zip(drawn, self._factors(drawn), strict=True)):
                matched = weights * factors[:, self._strata[index].of_item]
                extra = generator.standard_exponential(len(random)) * factors.max(1) * self._right[index].weights.max()
                parts[index].append(Resampled(matched @ by_item[index], matched.sum(1), extra))
        return Resampled.joined(parts[0]), Resampled.joined(parts[1])

    def over_calibrations(self) -> Matching:
        """The same with scores averaged over calibration seeds."""
        recall, other = (over_calibrations(curves) for curves in (self.recall, self.in_context))
        return replace(self, recall=recall, in_context=other)

    def disparity(self, drop: float, level: float = 0.95) -> MatchedDisparity:
        """The critical sparsity of the in-context ability minus that of recall, of matched items.

        The interval is made as that of ``disparity``.

        Raises:
            StatisticsError: bad input.
        """
        drop, level = check_drop(drop), check_level(level)
        check_resamples(self.resamples, level)
        if self.overlap.refusal is not None:
            return MatchedDisparity(self.overlap, None)
        first, second = (
            weighted_critical(one.items(weights, self.corrected), sums, drop=drop, level=level)
            for one, weights, sums in zip(self._right, self.weights, self._resampled, strict=True)
        )
        return MatchedDisparity(self.overlap, from_criticals(first, second, self.names))


def matched_disparity(
    recall: Sequence[Curve],
    in_context: Sequence[Curve],
    margins: Mapping[str, ArrayLike],
    *,
    drop: float,
    corrected: bool = False,
    families: Mapping[str, Hashable] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    names: tuple[str, str] = NAMES,
) -> MatchedDisparity:
    """The disparity between items of equal margin in the dense model; see ``Matching``.

    Raises:
        StatisticsError: bad input.
    """
    matching = Matching(recall, in_context, margins, corrected, families, resamples, seed, names=names)
    return matching.disparity(drop, level)


def _in_deviations(difference: float, spread: float) -> float:
    return difference / spread if spread > 0 else 0.0
