"""Writes the record of one trial: a folder of its own, whole or not at all, with checksums over what is in it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_ext.atomic import whole_folder, write_file, writing
from harness_ext.sweep.identity import key
from harness_ext.sweep.records import TRIALS, TrialRecord, checksum

if TYPE_CHECKING:
    from harness_ext.sweep.evaluation import Results, Samples
    from harness_ext.sweep.fields import Sweep
    from harness_ext.sweep.grid import TrialSpec

FORMAT = 1
FAILED = "failed"
SAMPLE = ("doc_id", "doc_hash", "prompt_hash", "target_hash", "target", "filter", "resps", "filtered_resps", "metrics")


def write(
    out: Path, sweep: Sweep, trial: TrialSpec, settings: Mapping[str, Any], results: Results, samples: Samples, measured: Mapping[str, Any]
) -> TrialRecord:
    """Writes the record of a trial; a process that is killed meanwhile leaves none.

    Args:
        measured: ``items``, ``parameters``, ``seconds`` and ``cost``.

    Raises:
        WriteError: the disk is full, or the file system refuses.
    """
    from lm_eval.utils import handle_non_serializable, sanitize_task_name

    name = key(settings)
    pruning = results["config"]["pruning"]
    contents = {"results.json": json.dumps(results, indent=1, default=handle_non_serializable, ensure_ascii=False).encode()}
    named = {task: f"samples_{sanitize_task_name(task)}.jsonl.gz" for task in samples}
    for task, rows in samples.items():
        contents[named[task]] = _packed(rows)
    described: dict[str, Any] = {
        "format": FORMAT,
        "key": name,
        "settings": dict(settings),
        "arguments": dict(trial.arguments),
        "command": results["config"]["command"],
        "ratio": trial.plan.sparsity.ratio,
        "pruning": pruning,
        **measured,
        "samples": named,
        "files": {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()},
    }
    described = json.loads(json.dumps(described, default=str))
    contents["trial.json"] = json.dumps({"checksum": checksum(described), **described}, indent=1).encode()
    folder = out / TRIALS / name
    with whole_folder(folder) as part, writing(folder):
        for file, content in contents.items():
            (part / file).write_bytes(content)
    return TrialRecord(folder, {"checksum": checksum(described), **described})


def write_failure(out: Path, name: str, trial: TrialSpec, settings: Mapping[str, Any], error: BaseException, trace: str) -> None:
    """Says that a trial failed and why.

    Raises:
        WriteError: the disk is full, or the file system refuses.
    """
    said: dict[str, Any] = {
        "key": name,
        "trial": str(trial),
        "error": f"{type(error).__name__}: {' '.join(str(error).split())}",
        "traceback": trace,
    }
    said |= {"arguments": dict(trial.arguments), "settings": dict(settings)}
    write_file(out / FAILED / f"{name}.json", json.dumps(said, indent=1, default=str) + "\n")


def _packed(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Samples without the documents and prompts, which every trial of a model shares, as JSON lines."""
    from lm_eval.utils import handle_non_serializable

    lines = []
    for row in rows:
        kept = {name: row[name] for name in SAMPLE} | {name: row[name] for name in row["metrics"]}
        if isinstance(row["doc"], dict) and isinstance(row["doc"].get("id"), str | int):
            kept["id"] = row["doc"]["id"]
        lines.append(json.dumps(kept, default=handle_non_serializable, ensure_ascii=False) + "\n")
    return gzip.compress("".join(lines).encode(), compresslevel=5, mtime=0)
