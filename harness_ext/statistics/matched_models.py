"""The disparity at equal dense margin over several trained models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness_ext.statistics.checks import StatisticsError
from harness_ext.statistics.matching import Matching, Overlap, findings
from harness_ext.statistics.models import ModelsDisparity, over_models
from harness_ext.statistics.results import Result


@dataclass(frozen=True)
class MatchedModels(Result):
    """The disparity between items of equal dense margin, over trained models.

    Args:
        models: their names.
        overlaps: what was matched in each model. Every model has margins of its own.
        disparity: over the models; None where a model has too little overlap.
    """

    models: tuple[str, ...]
    overlaps: tuple[Overlap, ...]
    disparity: ModelsDisparity | None

    def sentence(self) -> str:
        """What was shown at equal margin, with the overlap of each model; or why nothing can be."""
        return matched_models_sentence([self])


def matched_over_models(models: Mapping[str, Matching], *, drop: float, level: float = 0.95) -> MatchedModels:
    """The mean disparity at equal dense margin of models that differ in their training seed, as in ``disparity_over_models``.

    Args:
        models: by name; at least two. Scores are those averaged over calibration seeds.
        drop: relative, such as 0.05.

    Raises:
        StatisticsError: fewer than two models, or bad input.
    """
    if len(models) < 2:
        raise StatisticsError(f"models: {len(models)}; want at least two trained models, or use matched_disparity for one")
    each = {name: matching.over_calibrations().disparity(drop, level) for name, matching in models.items()}
    known = {name: found.disparity for name, found in each.items() if found.disparity is not None}
    whole = over_models(known) if len(known) == len(each) else None
    return MatchedModels(tuple(models), tuple(found.overlap for found in each.values()), whole)


def matched_models_sentence(found: Sequence[MatchedModels], *, caveat: bool = True) -> str:
    """A sentence for each result of the same models at several drops, one for the overlap, and the caveat."""
    first = found[0]
    refused = [f"{name}: {overlap.refusal}" for name, overlap in zip(first.models, first.overlaps, strict=True) if overlap.refusal]
    if refused:
        return f"At equal difficulty there is no overlap to match on ({'; '.join(refused)})."
    overlaps = "; ".join(f"{name}: {overlap.words()}" for name, overlap in zip(first.models, first.overlaps, strict=True))
    known = [one.disparity for one in found if one.disparity is not None]
    more = f" Intervals are {known[0].caveat}." if caveat and known[0].caveat else ""
    compared = f"Compared were items with equal margins in the dense model: {overlaps}."
    return f"Over {len(first.models)} trained models, between items of equal difficulty, {findings(known)}. {compared}{more}"
