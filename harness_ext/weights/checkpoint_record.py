"""The pruning record beside the weights of a checkpoint. It tells that the model that was loaded is not dense."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness_ext.errors import UnsupportedModelError, one_line, shown
from harness_ext.weights.folder import RECORD

CHECKPOINT = "checkpoint"
"""The key of a pruning record that has the record of the checkpoint that the run began with."""
_TIMES = "seconds_"


def of_checkpoint(pretrained: str, *, revision: str | None = None, subfolder: str | None = None, cached: bool = False) -> dict[str, Any]:
    """Reads the pruning record of a checkpoint that ``harness-ext prune`` wrote.

    Args:
        pretrained: a folder, or a name on the hub.
        cached: look for a name on the hub in the local cache only.

    Returns:
        ``{"checkpoint": record}``; nothing for a dense model, and for a model of others.

    Raises:
        UnsupportedModelError: there is such a file, and it cannot be read.
    """
    file = _file(pretrained, revision or "main", subfolder or "", cached=cached)
    if file is None:
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(f"pretrained={shown(pretrained)}: {RECORD} cannot be read: {one_line(error)}") from error
    if not isinstance(record, dict) or not isinstance(record.get("plan"), dict) or "sparsity" not in record["plan"]:
        return {}  # another program's file of this name
    record = {name: value for name, value in record.items() if not name.startswith(_TIMES)}
    return {CHECKPOINT: record} if changes(record) or CHECKPOINT in record else {}


def changes(record: Mapping[str, Any]) -> bool:
    """Whether the run of a pruning record changed weights."""
    return str(record["plan"]["sparsity"]) != "0" or "bits" in record["plan"]


def made(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record of the last run that changed the weights of a model, or the first record if none did."""
    while not changes(record) and CHECKPOINT in record:
        record = record[CHECKPOINT]
    return record


def in_words(record: Mapping[str, Any]) -> str:
    """What was done to a model: ``gptq, 4 bits``, or ``magnitude, sparsity 0.5, then gptq, 4 bits``; ``dense`` if nothing was."""
    steps = [in_words(record[CHECKPOINT])] if CHECKPOINT in record else []
    plan = record["plan"]
    if changes(record):
        parts = [f"{plan['bits']} bits"] if "bits" in plan else []
        parts += [f"sparsity {plan['sparsity']}"] if str(plan["sparsity"]) != "0" else []
        steps.append(", ".join([str(plan.get("pruner", "pruned")), *parts]))
    return ", then ".join(steps) or "dense"


def _file(pretrained: str, revision: str, subfolder: str, *, cached: bool) -> Path | None:
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        file = folder / subfolder / RECORD
        return file if file.is_file() else None
    from transformers.utils import cached_file

    try:
        found = cached_file(
            pretrained, RECORD, revision=revision, subfolder=subfolder, local_files_only=cached,
            _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )  # fmt: skip
    except OSError:  # not a name on the hub: loading the model gives the error
        return None
    return Path(found) if found else None
