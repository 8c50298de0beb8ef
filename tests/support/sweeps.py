"""Sweeps on the smallest embedded model, for the tests of ``harness-ext sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness_ext.sweep.fields import sweep_from
from harness_ext.sweep.prepared import Prepared
from harness_ext.sweep.run import Summary, run

COUNTS = {"icl_items": 24, "facts_items": 24, "lookup_items": 24}
FIELDS: dict[str, Any] = {
    "pretrained": ["lab-xs"],
    "pruner": ["magnitude"],
    "sparsity": ["0.5"],
    "tasks": ["icl_linear"],
    "metadata": {"icl_items": 8},
    "device": "cpu",
}
TASK = """
task: raising
custom_dataset: !function raising.load
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["a", "b"]
doc_to_target: 0
process_results: !function raising.process_results
metric_list:
  - metric: acc
metadata:
  version: 1.0
"""
TASK_FUNCTIONS = """
import datasets

def load(**_):
    return {"test": datasets.Dataset.from_dict({"question": ["one", "two"]})}

def process_results(doc, results):
    if WHEN:
        raise RuntimeError("this task raises")
    return {"acc": 1.0}
"""


def prepare(**fields: Any) -> Prepared:
    return Prepared(sweep_from(FIELDS | fields))


def sweep(out: Path, **fields: Any) -> Summary:
    return run(prepare(**fields), out)


def files(out: Path) -> dict[Path, bytes]:
    """All that is below a folder, without what says when or how long."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.suffix == ".gz" or path.name == "results.csv":
            found[path.relative_to(out)] = path.read_bytes()
    return found
