"""Writes the record of a trial: a folder with checksums of its files, written whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_ext.atomic import whole_folder, write_file, writing
from harness_ext.errors import with_type
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
    """Writes the record of a trial. A process that is killed while it writes leaves no record.

    Args:
        measured: ``items``, ``parameters``, ``seconds`` and ``cost``.

    Raises:
        WriteError: the disk is full, or the file system refuses.
    """
    from lm_eval.utils import handle_non_serializable, sanitize_task_name

    trial_key = key(settings)
    pruning = results["config"]["pruning"]
    contents = {"results.json": json.dumps(results, indent=1, default=handle_non_serializable, ensure_ascii=False).encode()}
    sample_files = {task: f"samples_{sanitize_task_name(task)}.jsonl.gz" for task in samples}
    for task, rows in samples.items():
        contents[sample_files[task]] = _packed(rows)
    described: dict[str, Any] = {
        "format": FORMAT,
        "key": trial_key,
        "settings": dict(settings),
        "arguments": dict(trial.arguments),
        "command": results["config"]["command"],
        "ratio": trial.plan.sparsity.ratio,
        "pruning": pruning,
        **measured,
        "samples": sample_files,
        "files": {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()},
    }
    described = json.loads(json.dumps(described, default=str))
    contents["trial.json"] = json.dumps({"checksum": checksum(described), **described}, indent=1).encode()
    folder = out / TRIALS / trial_key
    with whole_folder(folder) as part, writing(folder):
        for file, content in contents.items():
            (part / file).write_bytes(content)
    return TrialRecord(folder, {"checksum": checksum(described), **described})


def write_failure(out: Path, trial_key: str, trial: TrialSpec, settings: Mapping[str, Any], error: BaseException, trace: str) -> None:
    """Writes down that a trial failed, with the error.

    Raises:
        WriteError: the disk is full, or the file system refuses.
    """
    failure: dict[str, Any] = {
        "key": trial_key,
        "trial": str(trial),
        "error": with_type(error),
        "traceback": trace,
    }
    failure |= {"arguments": dict(trial.arguments), "settings": dict(settings)}
    write_file(out / FAILED / f"{trial_key}.json", json.dumps(failure, indent=1, default=str) + "\n")


def _packed(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Samples as JSON lines, without documents and prompts, which all trials of a model share."""
    from lm_eval.utils import handle_non_serializable

    lines = []
    for row in rows:
        line = {name: row[name] for name in SAMPLE} | {name: row[name] for name in row["metrics"]}
        if isinstance(row["doc"], dict) and isinstance(row["doc"].get("id"), str | int):
            line["id"] = row["doc"]["id"]
        lines.append(json.dumps(line, default=handle_non_serializable, ensure_ascii=False) + "\n")
    return gzip.compress("".join(lines).encode(), compresslevel=5, mtime=0)
