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
)  # fmt: skip


def table(records: Iterable[TrialRecord]) -> str:
    """All scores as CSV, one a row, in canonical order. Nothing in it depends on when or how often the sweep was run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in sorted(records, key=order):
        options = {name: value for name, value in record.arguments.items() if "." in name and name != "calibration.seed"}
        trial = [record.key, record.pretrained, record.pruner, record.sparsity, record.ratio, record.achieved_sparsity]
        trial += [record.allocation, record.modules, record.calibration, record.seed, json.dumps(options, sort_keys=True)]
        trial += [record.parameters, record.nonzero, record.settings["limit"]]
        for task, scores in record.results["results"].items():
            for name, value in scores.items():
                metric, comma, of = name.partition(",")
                if not comma or metric.endswith("_stderr"):
                    continue
                stderr = scores.get(f"{metric}_stderr,{of}")
                row = [task, record.results["versions"].get(task), of, metric, value, stderr if isinstance(stderr, float) else None]
                writer.writerow([*trial, *row, scores.get("sample_len"), record.items.get(task), record.fingerprint])
    return text.getvalue()
