"""The table of all scores of a sweep's folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable

from harness_ext.sweep.records import TrialRecord, order

COLUMNS = (
    "key", "pretrained", "pruner", "sparsity", "ratio", "achieved_sparsity", "allocation", "modules", "calibration", "seed", "options",
    "parameters", "nonzero", "limit", "task", "version", "filter", "metric", "value", "stderr", "samples", "items", "fingerprint",
    "checkpoint",
)  # fmt: skip


OWN_COLUMNS = ("pretrained", "pruner", "sparsity", "allocation", "modules", "calibration", "calibration.seed")
"""Model arguments of a trial that have columns; the others stand in the column ``options``."""


def table(records: Iterable[TrialRecord]) -> str:
    """All scores as CSV, one score per row, in canonical order. The table does not depend on when or how often the sweep ran."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in sorted(records, key=order):
        options = {name: value for name, value in record.arguments.items() if name not in OWN_COLUMNS}
        trial = [record.key, record.pretrained, record.pruner, record.sparsity, record.ratio, record.achieved_sparsity]
        trial += [record.allocation, record.modules, record.calibration, record.seed, json.dumps(options, sort_keys=True)]
        trial += [record.parameters, record.nonzero, record.settings["limit"]]
        for task, scores in record.results["results"].items():
            for name, value in scores.items():
                metric, comma, filter_name = name.partition(",")
                if not comma or metric.endswith("_stderr"):
                    continue
                stderr = scores.get(f"{metric}_stderr,{filter_name}")
                row = [task, record.results["versions"].get(task), filter_name, metric, value]
                row += [stderr if isinstance(stderr, float) else None, scores.get("sample_len")]
                writer.writerow([*trial, *row, record.items.get(task), record.fingerprint, record.checkpoint])
    return text.getvalue()
