"""The tables of a report as CSV and Parquet files, with the same columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness_ext.report.analysis import Analysis

TEXT, REAL, WHOLE, TRUTH = "string", "float64", "int64", "bool"
COLUMNS: dict[str, dict[str, str]] = {
    "scores": {
        "model": TEXT, "series": TEXT, "pruner": TEXT, "sparsity": TEXT, "ratio": REAL, "achieved_sparsity": REAL, "allocation": TEXT,
        "modules": TEXT, "calibration": TEXT, "seed": WHOLE, "parameters": WHOLE, "nonzero": WHOLE, "task": TEXT, "version": TEXT,
        "ability": TEXT, "metric": TEXT, "filter": TEXT, "items": WHOLE, "score": REAL, "stderr": REAL, "chance": REAL,
        "chance_declared": TRUTH, "corrected": REAL, "retained": REAL, "retained_low": REAL, "retained_high": REAL, "difference": REAL,
        "difference_low": REAL, "difference_high": REAL, "mcnemar_p": REAL, "right_to_wrong": WHOLE, "wrong_to_right": WHOLE,
        "dense_right": WHOLE, "dense_wrong": WHOLE, "not_computed": TEXT, "fingerprint": TEXT, "source": TEXT,
    },
    "curves": {
        "series": TEXT, "ability": TEXT, "tasks": TEXT, "sparsity": REAL, "corrected_score": REAL, "low": REAL, "high": REAL,
        "level": REAL, "fitted": REAL, "seeds": WHOLE, "items": WHOLE,
    },
    "critical": {
        "series": TEXT, "ability": TEXT, "tasks": TEXT, "drop": REAL, "corrected": TRUTH, "critical_sparsity": REAL, "low": REAL,
        "high": REAL, "level": REAL, "censored": TRUTH, "last": REAL, "seeds": WHOLE, "items": WHOLE,
    },
    "disparity": {
        "series": TEXT, "drop": REAL, "corrected": TRUTH, "kind": TEXT, "difference": REAL, "low": REAL, "high": REAL, "level": REAL,
        "finding": TEXT, "sentence": TEXT,
    },
    "layers": {
        "model": TEXT, "series": TEXT, "sparsity": REAL, "seed": WHOLE, "layer": TEXT, "weights": WHOLE, "zeros": WHOLE,
        "layer_sparsity": REAL, "fingerprint": TEXT,
    },
    "ladder": {
        "model": TEXT, "series": TEXT, "sparsity": REAL, "ability": TEXT, "tasks": TEXT, "nonzero": REAL, "corrected_score": REAL,
        "dense_at_equal_nonzero": REAL,
    },
}  # fmt: skip
Row = dict[str, Any]


def tables(done: Analysis) -> dict[str, list[Row]]:
    """The rows of each table in ``COLUMNS``; what is not known is None."""
    return {
        "scores": _scores(done), "curves": _curves(done), "critical": _critical(done), "disparity": _disparity(done),
        "layers": _layers(done), "ladder": _ladder(done),
    }  # fmt: skip


def write(rows: Mapping[str, Sequence[Row]], folder: Path) -> list[str]:
    """Writes ``NAME.csv`` and ``NAME.parquet`` of each table, and returns the names of the files."""
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    names = []
    for name, columns in COLUMNS.items():
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name])
        (folder / f"{name}.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
        types = {TEXT: pyarrow.string(), REAL: pyarrow.float64(), WHOLE: pyarrow.int64(), TRUTH: pyarrow.bool_()}
        schema = pyarrow.schema([(column, types[of]) for column, of in columns.items()])
        parquet.write_table(pyarrow.Table.from_pylist(list(rows[name]), schema=schema), folder / f"{name}.parquet")
        names += [f"{name}.csv", f"{name}.parquet"]
    return names


def _scores(done: Analysis) -> list[Row]:
    labels = {id(trial): series.label for series in done.series for trial in series.trials}
    rows = []
    for row in done.rows:
        trial, score, found = row.trial, row.score, row.found
        mcnemar, flips = (found.mcnemar, found.flips) if found else (None, None)
        settings = trial.settings
        rows.append({
            "model": trial.pretrained, "series": labels.get(id(trial)), "pruner": settings.get("pruner"),
            "sparsity": "0" if trial.is_dense else trial.sparsity, "ratio": trial.ratio, "achieved_sparsity": trial.achieved,
            "allocation": settings.get("allocation"), "modules": settings.get("modules"), "calibration": settings.get("calibration"),
            "seed": trial.seed, "parameters": trial.parameters, "nonzero": trial.nonzero, "task": score.task, "version": score.version,
            "ability": row.ability, "metric": score.metric, "filter": score.filter, "items": score.count, "score": score.value,
            "stderr": score.stderr, "chance": score.chance, "chance_declared": score.chance_declared, "corrected": score.corrected,
            "retained": found.retained.value if found else None, "retained_low": found.retained.low if found else None,
            "retained_high": found.retained.high if found else None, "difference": found.difference.value if found else None,
            "difference_low": found.difference.low if found else None, "difference_high": found.difference.high if found else None,
            "mcnemar_p": mcnemar.p_value if mcnemar else None, "right_to_wrong": flips.right_to_wrong if flips else None,
            "wrong_to_right": flips.wrong_to_right if flips else None, "dense_right": flips.dense_right if flips else None,
            "dense_wrong": flips.dense_wrong if flips else None, "not_computed": row.why_not if not trial.is_dense else None,
            "fingerprint": trial.fingerprint, "source": trial.source,
        })  # fmt: skip
    return rows


def _curves(done: Analysis) -> list[Row]:
    return [
        {
            "series": label, "ability": ability, "tasks": " ".join(done.used[label, ability]), "sparsity": sparsity,
            "corrected_score": score.value, "low": score.low, "high": score.high, "level": score.level, "fitted": fitted,
            "seeds": curve.seeds, "items": curve.items,
        }
        for (label, ability), curve in done.curves.items()
        for sparsity, score, fitted in zip(curve.sparsities, curve.scores, curve.fitted, strict=True)
    ]  # fmt: skip


def _critical(done: Analysis) -> list[Row]:
    return [
        {
            "series": label, "ability": ability, "tasks": " ".join(done.used[label, ability]), "drop": drop, "corrected": corrected,
            "critical_sparsity": found.sparsity, "low": found.low, "high": found.high, "level": found.level, "censored": found.censored,
            "last": found.last, "seeds": found.seeds, "items": found.items,
        }
        for (label, ability, drop, corrected), found in done.critical.items()
    ]  # fmt: skip


def _disparity(done: Analysis) -> list[Row]:
    return [
        {
            "series": label, "drop": drop, "corrected": corrected, "kind": found.kind, "difference": found.difference, "low": found.low,
            "high": found.high, "level": found.level, "finding": found.finding, "sentence": found.sentence(),
        }
        for (label, drop, corrected), found in done.disparities.items()
    ]  # fmt: skip


def _layers(done: Analysis) -> list[Row]:
    return [
        {
            "model": series.pretrained, "series": series.label, "sparsity": sparsity, "seed": seed, "layer": layer,
            "weights": entry["weights"], "zeros": entry["zeros"], "layer_sparsity": entry["zeros"] / entry["weights"],
            "fingerprint": trial.fingerprint,
        }
        for series in done.series
        for sparsity, by_seed in sorted(series.points.items())
        for seed, trial in by_seed.items()
        for layer, entry in trial.pruning.get("layers", {}).items()
        if entry.get("weights") and "zeros" in entry
    ]  # fmt: skip


def _ladder(done: Analysis) -> list[Row]:
    return [
        {
            "model": rung.pretrained, "series": rung.series, "sparsity": rung.sparsity, "ability": rung.ability,
            "tasks": " ".join(done.ladder_tasks[rung.ability]), "nonzero": rung.nonzero, "corrected_score": rung.score,
            "dense_at_equal_nonzero": rung.dense_at_equal,
        }
        for rung in done.rungs
    ]  # fmt: skip
