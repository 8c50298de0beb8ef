"""The tables of a report as CSV and Parquet files, with the same columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness_ext.report.analysis import Analysis
from harness_ext.report.compare import pair_rows
from harness_ext.report.method_pairs import MethodPair
from harness_ext.statistics import Disparity, ModelsDisparity, Spread

TEXT, REAL, WHOLE, TRUTH = "string", "float64", "int64", "bool"
SPREAD = ("", "_low", "_high", "_sd", "_least", "_greatest")  # over calibration seeds: the mean, its interval, ...
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
        "series": TEXT, "ability": TEXT, "tasks": TEXT, "drop": REAL, "corrected": TRUTH, "critical_sparsity": REAL,
        "cell_low": REAL, "cell_high": REAL, "low": REAL, "high": REAL, "level": REAL, "censored": TRUTH, "last": REAL, "add": TEXT,
        "seeds": WHOLE, "items": WHOLE, "caveat": TEXT,
    },
    "disparity": {
        "series": TEXT, "drop": REAL, "corrected": TRUTH, "kind": TEXT, "difference": REAL, "low": REAL, "high": REAL, "level": REAL,
        "finding": TEXT, "told_apart_at": REAL, "add": TEXT, "sentence": TEXT, "caveat": TEXT, "models": WHOLE, "p": REAL, "p_holm": REAL,
        "statements": WHOLE,
    },
    "layers": {
        "model": TEXT, "series": TEXT, "sparsity": REAL, "seed": WHOLE, "layer": TEXT, "weights": WHOLE, "zeros": WHOLE,
        "layer_sparsity": REAL, "fingerprint": TEXT,
    },
    "labels": {
        "model": TEXT, "series": TEXT, "pruner": TEXT, "sparsity": TEXT, "seed": WHOLE, "task": TEXT, "answers": WHOLE, "entropy": REAL,
        "label_entropy": REAL, "distinct": WHOLE, "commonest": REAL, "balanced_accuracy": REAL, "fingerprint": TEXT,
    },
    "seeds": {
        "model": TEXT, "series": TEXT, "pruner": TEXT, "sparsity": TEXT, "task": TEXT, "seeds": WHOLE, "items": WHOLE, "chance": REAL,
        "level": REAL, "caveat": TEXT,
        **{f"{name}{part}": REAL for name in ("score", "corrected", "retained", "difference") for part in SPREAD},
    },
    "ladder": {
        "model": TEXT, "series": TEXT, "sparsity": REAL, "ability": TEXT, "tasks": TEXT, "nonzero": REAL, "corrected_score": REAL,
        "dense_at_equal_nonzero": REAL,
    },
    "methods": {
        "first": TEXT, "second": TEXT, "first_sparsity": TEXT, "second_sparsity": TEXT, "seeds": TEXT, "kind": TEXT, "name": TEXT,
        "tasks": TEXT, "items": WHOLE, "first_score": REAL, "second_score": REAL, "difference": REAL, "low": REAL, "high": REAL,
        "level": REAL, "seed": WHOLE, "mcnemar_p": REAL, "mcnemar_p_holm": REAL, "only_first_right": WHOLE, "only_second_right": WHOLE,
        "method": TEXT, "caveat": TEXT,
    },
}  # fmt: skip
OVER_MODELS = "over models"
Row = dict[str, Any]


def tables(done: Analysis, pairs: Sequence[MethodPair] = ()) -> dict[str, list[Row]]:
    """The rows of each table in ``COLUMNS``; what is not known is None."""
    return {
        "scores": _scores(done), "curves": _curves(done), "critical": _critical(done), "disparity": _disparity(done),
        "layers": _layers(done), "labels": _labels(done), "seeds": _seeds(done), "ladder": _ladder(done),
        "methods": pair_rows(pairs),
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


def _series_labels(done: Analysis) -> dict[int, str]:
    return {id(trial): series.label for series in done.series for trial in series.trials}


def _scores(done: Analysis) -> list[Row]:
    labels = _series_labels(done)
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
            "critical_sparsity": found.sparsity, "cell_low": found.cell[0], "cell_high": found.cell[1], "low": found.low,
            "high": found.high, "level": found.level, "censored": found.censored, "last": found.last, "add": _listed(found.add),
            "seeds": found.seeds, "items": found.items, "caveat": found.caveat,
        }
        for (label, ability, drop, corrected), found in done.critical.items()
    ]  # fmt: skip


def _disparity(done: Analysis) -> list[Row]:
    """Of every series, and over the models of replicates; p-values are those of the headline statements."""
    claims = {id(claim.found): claim for claim in done.claims}
    found: list[tuple[tuple[str, float, bool], Disparity | ModelsDisparity]] = [*done.disparities.items(), *done.over_models.items()]
    rows = []
    for (label, drop, corrected), one in found:
        claim = claims.get(id(one))
        rows.append({
            "series": label, "drop": drop, "corrected": corrected, "kind": one.kind if isinstance(one, Disparity) else OVER_MODELS,
            "difference": one.difference, "low": one.low, "high": one.high, "level": one.level, "finding": one.finding,
            "told_apart_at": one.told_apart_at if isinstance(one, Disparity) else None, "add": _listed(one.add),
            "sentence": one.sentence(), "caveat": one.caveat, "models": 1 if isinstance(one, Disparity) else len(one.models),
            "p": claim.p if claim else None, "p_holm": claim.holm if claim else None, "statements": claim.count if claim else None,
        })  # fmt: skip
    return rows


def _listed(sparsities: Sequence[float]) -> str:
    return " ".join(f"{sparsity:g}" for sparsity in sparsities)


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


def _labels(done: Analysis) -> list[Row]:
    series = _series_labels(done)
    return [
        {
            "model": row.trial.pretrained, "series": series.get(id(row.trial)), "pruner": row.trial.settings.get("pruner"),
            "sparsity": "0" if row.trial.is_dense else row.trial.sparsity, "seed": row.trial.seed, "task": row.score.task,
            "answers": len(row.score.predictions or ()), "entropy": row.labels.entropy, "label_entropy": row.labels.label_entropy,
            "distinct": row.labels.distinct, "commonest": row.labels.commonest, "balanced_accuracy": row.labels.balanced_accuracy,
            "fingerprint": row.trial.fingerprint,
        }
        for row in done.rows if row.labels
    ]  # fmt: skip


def _seeds(done: Analysis) -> list[Row]:
    series = _series_labels(done)
    return [
        {
            "model": one.trial.pretrained, "series": series.get(id(one.trial)), "pruner": one.trial.settings.get("pruner"),
            "sparsity": one.trial.sparsity, "task": one.task, "seeds": one.found.seeds, "items": one.found.items,
            "chance": one.found.chance, "level": one.found.accuracy.mean.level, "caveat": one.found.caveat,
            **_spread("score", one.found.accuracy),
            **_spread("corrected", one.found.corrected), **_spread("retained", one.found.retained),
            **_spread("difference", one.found.difference),
        }
        for one in done.spreads
    ]  # fmt: skip


def _spread(name: str, found: Spread | None) -> Row:
    values = (found.mean.value, found.mean.low, found.mean.high, found.sd, found.least, found.greatest) if found else (None,) * len(SPREAD)
    return {f"{name}{part}": value for part, value in zip(SPREAD, values, strict=True)}


def _ladder(done: Analysis) -> list[Row]:
    return [
        {
            "model": rung.pretrained, "series": rung.series, "sparsity": rung.sparsity, "ability": rung.ability,
            "tasks": " ".join(done.ladder_tasks[rung.ability]), "nonzero": rung.nonzero, "corrected_score": rung.score,
            "dense_at_equal_nonzero": rung.dense_at_equal,
        }
        for rung in done.rungs
    ]  # fmt: skip
