"""The tables of a report as CSV and Parquet files, with the same columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness_ext.report.analysis import Analysis
from harness_ext.report.axis import bits_of_model
from harness_ext.report.difficulty_rows import OVER_MODELS, bin_rows, matched_rows
from harness_ext.report.equal_size import EqualSize
from harness_ext.report.method_pairs import MethodPair, pair_rows
from harness_ext.report.perplexity_scores import perplexity_rows
from harness_ext.report.recall_scores import recall_rows
from harness_ext.statistics import Disparity, Estimate, ModelsDisparity, Spread

TEXT, REAL, WHOLE, TRUTH = "string", "float64", "int64", "bool"
SPREAD = ("", "_low", "_high", "_sd", "_least", "_greatest")  # over calibration seeds: mean, interval, standard deviation, range
COLUMNS: dict[str, dict[str, str]] = {
    "scores": {
        "model": TEXT, "series": TEXT, "pruner": TEXT, "sparsity": TEXT, "ratio": REAL, "achieved_sparsity": REAL, "allocation": TEXT,
        "modules": TEXT, "calibration": TEXT, "seed": WHOLE, "parameters": WHOLE, "nonzero": WHOLE, "task": TEXT, "version": TEXT,
        "ability": TEXT, "metric": TEXT, "filter": TEXT, "items": WHOLE, "score": REAL, "stderr": REAL, "chance": REAL,
        "chance_declared": TRUTH, "corrected": REAL, "retained": REAL, "retained_low": REAL, "retained_high": REAL, "difference": REAL,
        "difference_low": REAL, "difference_high": REAL, "mcnemar_p": REAL, "right_to_wrong": WHOLE, "wrong_to_right": WHOLE,
        "dense_right": WHOLE, "dense_wrong": WHOLE, "not_computed": TEXT, "fingerprint": TEXT, "source": TEXT, "bits": WHOLE,
        "bits_of_model": REAL,
    },
    "curves": {
        "series": TEXT, "ability": TEXT, "tasks": TEXT, "sparsity": REAL, "corrected_score": REAL, "low": REAL, "high": REAL,
        "level": REAL, "fitted": REAL, "seeds": WHOLE, "items": WHOLE,
    },
    "critical": {
        "series": TEXT, "ability": TEXT, "tasks": TEXT, "drop": REAL, "corrected": TRUTH, "critical_sparsity": REAL,
        "cell_low": REAL, "cell_high": REAL, "low": REAL, "high": REAL, "level": REAL, "censored": TRUTH, "last": REAL, "add": TEXT,
        "seeds": WHOLE, "items": WHOLE, "caveat": TEXT,
    },
    "disparity": {
        "series": TEXT, "drop": REAL, "corrected": TRUTH, "kind": TEXT, "difference": REAL, "low": REAL, "high": REAL, "level": REAL,
        "finding": TEXT, "told_apart_at": REAL, "add": TEXT, "sentence": TEXT, "caveat": TEXT, "models": WHOLE, "p": REAL, "p_holm": REAL,
        "statements": WHOLE,
    },
    "matched": {
        "series": TEXT, "drop": REAL, "corrected": TRUTH, "kind": TEXT, "difference": REAL, "low": REAL, "high": REAL, "level": REAL,
        "finding": TEXT, "raw_difference": REAL, "raw_low": REAL, "raw_high": REAL, "raw_finding": TEXT, "models": WHOLE,
        "recall_items": WHOLE, "in_context_items": WHOLE, "recall_share": REAL, "in_context_share": REAL, "recall_effective": REAL,
        "in_context_effective": REAL, "margin_low": REAL, "margin_high": REAL, "unit": TEXT, "apart": REAL, "apart_matched": REAL,
        "refusal": TEXT, "caveat": TEXT,
    },
    "difficulty": {
        "series": TEXT, "ability": TEXT, "tasks": TEXT, "margin_low": REAL, "margin_middle": REAL, "margin_high": REAL, "unit": TEXT,
        "items": WHOLE, "drop": REAL, "corrected": TRUTH, "critical_sparsity": REAL, "low": REAL, "high": REAL, "level": REAL,
        "censored": TRUTH, "last": REAL, "seeds": WHOLE,
    },
    "layers": {
        "model": TEXT, "series": TEXT, "sparsity": REAL, "seed": WHOLE, "layer": TEXT, "weights": WHOLE, "zeros": WHOLE,
        "layer_sparsity": REAL, "fingerprint": TEXT, "bits": WHOLE,
    },
    "labels": {
        "model": TEXT, "series": TEXT, "pruner": TEXT, "sparsity": TEXT, "seed": WHOLE, "task": TEXT, "answers": WHOLE, "entropy": REAL,
        "label_entropy": REAL, "distinct": WHOLE, "commonest": REAL, "balanced_accuracy": REAL, "fingerprint": TEXT, "bits": WHOLE,
    },
    "recall": {
        "model": TEXT, "series": TEXT, "pruner": TEXT, "sparsity": TEXT, "seed": WHOLE, "task": TEXT, "items": WHOLE, "exact": REAL,
        "recognition": REAL, "recognition_chance": REAL, "recall_at_1": REAL, "recall_at_5": REAL, "recall_at_10": REAL,
        "median_rank": REAL, "exact_helped": REAL, "recovered": REAL, "lost": REAL, "fingerprint": TEXT, "bits": WHOLE,
    },
    "perplexity": {
        "model": TEXT, "series": TEXT, "pruner": TEXT, "sparsity": TEXT, "seed": WHOLE, "task": TEXT, "metric": TEXT, "text": TEXT,
        "identity": TEXT, "perplexity": REAL, "times_dense": REAL, "fingerprint": TEXT, "bits": WHOLE,
    },
    "seeds": {
        "model": TEXT, "series": TEXT, "pruner": TEXT, "sparsity": TEXT, "task": TEXT, "seeds": WHOLE, "items": WHOLE, "chance": REAL,
        "level": REAL, "caveat": TEXT,
        **{f"{name}{part}": REAL for name in ("score", "corrected", "retained", "difference") for part in SPREAD}, "bits": WHOLE,
    },
    "ladder": {
        "model": TEXT, "series": TEXT, "sparsity": REAL, "ability": TEXT, "tasks": TEXT, "nonzero": REAL, "corrected_score": REAL,
        "low": REAL, "high": REAL, "dense_at_equal_nonzero": REAL,
    },
    "bits": {
        "model": TEXT, "series": TEXT, "amount": TEXT, "ability": TEXT, "tasks": TEXT, "bits_of_model": REAL, "corrected_score": REAL,
        "low": REAL, "high": REAL, "dense_at_equal_bits": REAL,
    },
    "methods": {
        "first": TEXT, "second": TEXT, "first_sparsity": TEXT, "second_sparsity": TEXT, "seeds": TEXT, "kind": TEXT, "name": TEXT,
        "tasks": TEXT, "items": WHOLE, "first_score": REAL, "second_score": REAL, "difference": REAL, "low": REAL, "high": REAL,
        "level": REAL, "seed": WHOLE, "mcnemar_p": REAL, "mcnemar_p_holm": REAL, "only_first_right": WHOLE, "only_second_right": WHOLE,
        "method": TEXT, "caveat": TEXT,
    },
}  # fmt: skip
Row = dict[str, Any]


def tables(analysis: Analysis, pairs: Sequence[MethodPair] = ()) -> dict[str, list[Row]]:
    """The rows of each table in ``COLUMNS``. Unknown values are None."""
    rows = {
        "scores": _scores(analysis), "curves": _curves(analysis), "critical": _critical(analysis), "disparity": _disparity(analysis),
        "layers": _layers(analysis), "labels": _labels(analysis), "seeds": _seeds(analysis),
        "ladder": _equal_size(analysis.equal_parameters, "nonzero", "sparsity"),
        "bits": _equal_size(analysis.equal_bits, "bits_of_model", "amount"), "recall": recall_rows(analysis),
        "perplexity": perplexity_rows(analysis),
        "methods": pair_rows(pairs), "matched": matched_rows(analysis), "difficulty": bin_rows(analysis),
    }  # fmt: skip
    return {name: [dict.fromkeys(columns) | row for row in rows[name]] for name, columns in COLUMNS.items()}


def write(rows: Mapping[str, Sequence[Row]], folder: Path) -> list[str]:
    """Writes ``NAME.csv`` and ``NAME.parquet`` of each table, and returns the names of the files."""
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    names = []
    for name, columns in COLUMNS.items():
        (folder / f"{name}.csv").write_text(csv_text(name, rows[name]), encoding="utf-8", newline="")
        types = {TEXT: pyarrow.string(), REAL: pyarrow.float64(), WHOLE: pyarrow.int64(), TRUTH: pyarrow.bool_()}
        schema = pyarrow.schema([(column, types[of]) for column, of in columns.items()])
        parquet.write_table(pyarrow.Table.from_pylist(list(rows[name]), schema=schema), folder / f"{name}.parquet")
        names += [f"{name}.csv", f"{name}.parquet"]
    return names


def csv_text(table: str, rows: Sequence[Row]) -> str:
    """The rows of a table in ``COLUMNS`` as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS[table]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _scores(analysis: Analysis) -> list[Row]:
    labels = analysis.labels
    rows = []
    for row in analysis.rows:
        trial, score, compared = row.trial, row.score, row.found
        mcnemar, flips, settings = compared and compared.mcnemar, compared and compared.flips, trial.settings
        rows.append({
            **trial.columns(labels.get(id(trial))), "ratio": trial.ratio, "achieved_sparsity": trial.achieved,
            "allocation": settings.get("allocation"), "modules": settings.get("modules"), "calibration": settings.get("calibration"),
            "parameters": trial.parameters, "nonzero": trial.nonzero, "task": score.task, "version": score.version,
            "ability": row.ability, "metric": score.metric, "filter": score.filter, "items": score.count, "score": score.value,
            "stderr": score.stderr, "chance": score.chance, "chance_declared": score.chance_declared, "corrected": score.corrected,
            **_estimate("retained", compared.retained if compared else None),
            **_estimate("difference", compared.difference if compared else None),
            "mcnemar_p": mcnemar.p_value if mcnemar else None, "right_to_wrong": flips.right_to_wrong if flips else None,
            "wrong_to_right": flips.wrong_to_right if flips else None, "dense_right": flips.dense_right if flips else None,
            "dense_wrong": flips.dense_wrong if flips else None, "not_computed": row.why_not if not trial.is_dense else None,
            "source": trial.source, "bits_of_model": bits_of_model(trial),
        })  # fmt: skip
    return rows


def _estimate(name: str, estimate: Estimate | None) -> Row:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high} if estimate else {}


def _curves(analysis: Analysis) -> list[Row]:
    return [
        {
            "series": label, "ability": ability, "tasks": " ".join(analysis.used[label, ability]), "sparsity": sparsity,
            "corrected_score": score.value, "low": score.low, "high": score.high, "level": score.level, "fitted": fitted,
            "seeds": curve.seeds, "items": curve.items,
        }
        for (label, ability), curve in analysis.curves.items()
        for sparsity, score, fitted in zip(curve.sparsities, curve.scores, curve.fitted, strict=True)
    ]  # fmt: skip


def _critical(analysis: Analysis) -> list[Row]:
    return [
        {
            "series": label, "ability": ability, "tasks": " ".join(analysis.used[label, ability]), "drop": drop, "corrected": corrected,
            "critical_sparsity": critical.sparsity, "cell_low": critical.cell[0], "cell_high": critical.cell[1], "low": critical.low,
            "high": critical.high, "level": critical.level, "censored": critical.censored, "last": critical.last,
            "add": _listed(critical.add), "seeds": critical.seeds, "items": critical.items, "caveat": critical.caveat,
        }
        for (label, ability, drop, corrected), critical in analysis.critical.items()
    ]  # fmt: skip


def _disparity(analysis: Analysis) -> list[Row]:
    """One row for each series, and for replicates over models. Headline statements have p-values."""
    claims = {id(claim.found): claim for claim in analysis.claims}
    results: dict[tuple[str, float, bool], Disparity | ModelsDisparity] = {**analysis.disparities, **analysis.over_models}
    rows = []
    for (label, drop, corrected), result in results.items():
        claim = claims.get(id(result))
        rows.append({
            "series": label, "drop": drop, "corrected": corrected, "kind": result.kind if isinstance(result, Disparity) else OVER_MODELS,
            "difference": result.difference, "low": result.low, "high": result.high, "level": result.level, "finding": result.finding,
            "told_apart_at": result.told_apart_at if isinstance(result, Disparity) else None, "add": _listed(result.add),
            "sentence": result.sentence(shown=claim.shown if claim else None), "caveat": result.caveat,
            "models": 1 if isinstance(result, Disparity) else len(result.models),
            "p": claim.p if claim else None, "p_holm": claim.holm if claim else None, "statements": claim.count if claim else None,
        })  # fmt: skip
    return rows


def _listed(sparsities: Sequence[float]) -> str:
    return " ".join(f"{sparsity:g}" for sparsity in sparsities)


def _layers(analysis: Analysis) -> list[Row]:
    return [
        {
            "model": series.pretrained, "series": series.label, "sparsity": trial.achieved if series.quantised else place,
            "seed": seed, "layer": layer, "weights": entry["weights"], "zeros": entry["zeros"],
            "layer_sparsity": entry["zeros"] / entry["weights"], "fingerprint": trial.fingerprint,
            "bits": entry.get("bits", trial.weight_bits),
        }
        for series in analysis.every_series
        for place, by_seed in sorted(series.points.items())
        for seed, trial in by_seed.items()
        if trial.ratio > 0
        for layer, entry in trial.layers.items()
    ]  # fmt: skip


def _labels(analysis: Analysis) -> list[Row]:
    labels = analysis.labels
    return [
        {
            **row.trial.columns(labels.get(id(row.trial))), "task": row.score.task,
            "answers": len(row.score.predictions or ()), "entropy": row.labels.entropy, "label_entropy": row.labels.label_entropy,
            "distinct": row.labels.distinct, "commonest": row.labels.commonest, "balanced_accuracy": row.labels.balanced_accuracy,
        }
        for row in analysis.rows if row.labels
    ]  # fmt: skip


def _seeds(analysis: Analysis) -> list[Row]:
    labels = analysis.labels
    return [
        {
            "model": spread.trial.pretrained, "series": labels.get(id(spread.trial)), "pruner": spread.trial.settings.get("pruner"),
            "sparsity": spread.trial.sparsity, "task": spread.task, "seeds": spread.found.seeds, "items": spread.found.items,
            "chance": spread.found.chance, "level": spread.found.accuracy.mean.level, "caveat": spread.found.caveat,
            **_spread("score", spread.found.accuracy),
            **_spread("corrected", spread.found.corrected), **_spread("retained", spread.found.retained),
            **_spread("difference", spread.found.difference), "bits": spread.trial.weight_bits,
        }
        for spread in analysis.spreads
    ]  # fmt: skip


def _spread(name: str, spread: Spread | None) -> Row:
    if spread is None:
        return {}
    values = (spread.mean.value, spread.mean.low, spread.mean.high, spread.sd, spread.least, spread.greatest)
    return {f"{name}{part}": value for part, value in zip(SPREAD, values, strict=True)}


def _equal_size(found: EqualSize, size: str, amount: str) -> list[Row]:
    """Args:
    size: name of the column of sizes.
    amount: ``sparsity`` or ``amount``, the column that says how much was removed.
    """
    return [
        {
            "model": entry.pretrained, "series": entry.series, amount: getattr(entry, amount), "ability": entry.ability,
            "tasks": " ".join(found.tasks[entry.ability]), size: entry.size, "corrected_score": entry.score,
            "low": entry.low, "high": entry.high, f"dense_at_equal_{size.removesuffix('_of_model')}": entry.dense_at_equal,
        }
        for entry in found.scores
    ]  # fmt: skip
