"""Rows of the tables of disparities at equal dense margin, and of critical sparsities by margin."""

from __future__ import annotations

from typing import Any

from harness_ext.report.analysis import Analysis
from harness_ext.statistics import MatchedModels, Overlap

OVER_MODELS, REFUSED = "over models", "no overlap"
Row = dict[str, Any]


def matched_rows(analysis: Analysis) -> list[Row]:
    """One row for each method and drop. Rows over models have no overlap: every model has its own, in its own row."""
    rows = []
    for (label, drop), matched in analysis.difficulty.matched.items():
        found, raw = matched.found.disparity, matched.raw
        models = matched.found.models if isinstance(matched.found, MatchedModels) else None
        kind = REFUSED if found is None else OVER_MODELS if models else getattr(found, "kind", None)
        refusals = [one.refusal for one in _overlaps(matched.found) if one.refusal]
        rows.append({
            "series": label, "drop": drop, "corrected": True, "kind": kind,
            "difference": found.difference if found else None, "low": found.low if found else None, "high": found.high if found else None,
            "level": raw.level, "finding": found.finding if found else None, "raw_difference": raw.difference, "raw_low": raw.low,
            "raw_high": raw.high, "raw_finding": raw.finding, "models": len(models) if models else 1,
            **(_overlap(_overlaps(matched.found)[0], analysis.difficulty.unit) if not models else {}),
            "refusal": "; ".join(dict.fromkeys(refusals)) or None, "caveat": found.caveat if found else None,
        })  # fmt: skip
    return rows


def bin_rows(analysis: Analysis) -> list[Row]:
    """One row for each bin of margins, method and ability."""
    return [
        {
            "series": label, "ability": ability, "tasks": " ".join(analysis.difficulty.tasks[label, ability]), "margin_low": one.low,
            "margin_middle": one.middle, "margin_high": one.high, "unit": analysis.difficulty.unit, "items": one.items,
            "drop": one.critical.drop, "corrected": one.critical.corrected, "critical_sparsity": one.critical.sparsity,
            "low": one.critical.low, "high": one.critical.high, "level": one.critical.level, "censored": one.critical.censored,
            "last": one.critical.last, "seeds": one.critical.seeds,
        }
        for (label, ability), bins in analysis.difficulty.bins.items()
        for one in bins
    ]  # fmt: skip


def _overlap(overlap: Overlap, unit: str) -> Row:
    return {
        "recall_items": overlap.items[0], "in_context_items": overlap.items[1], "recall_share": overlap.shares[0],
        "in_context_share": overlap.shares[1], "recall_effective": overlap.effective[0], "in_context_effective": overlap.effective[1],
        "margin_low": overlap.low, "margin_high": overlap.high, "unit": unit, "apart": overlap.apart,
        "apart_matched": overlap.apart_matched,
    }  # fmt: skip


def _overlaps(found: Any) -> tuple[Overlap, ...]:
    return found.overlaps if isinstance(found, MatchedModels) else (found.overlap,)
