"""Results of checkpoints that ``harness-ext prune`` wrote: they count as what was made of the dense model, not as dense models."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness_ext.errors import HarnessExtError, shortened
from harness_ext.host.model_folder import is_path
from harness_ext.report.trials import LoadedTrial, ReportError
from harness_ext.weights.checkpoint_record import CHECKPOINT, changes, in_words, made, of_checkpoint
from harness_ext.weights.folder import RECORD

BEFORE = "before"
"""The key of a record in a report that has what was done to the weights before the run."""


def joined(pretrained: str, pruning: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Takes the record of the checkpoint that a run began with together with the record of the run.

    Args:
        pretrained: the model that the run loaded.
        pruning: the record of the run.

    Returns:
        The name of the dense model, and one record: with its digest, with the plan of the last run that changed weights, and with what was
        done before, if that is another run.

    Raises:
        ReportError: the record of the checkpoint is not complete.
    """
    if CHECKPOINT not in pruning:
        return pretrained, dict(pruning)
    last, dense, name = made(pruning), pruning, pretrained
    while CHECKPOINT in dense:
        dense = dense[CHECKPOINT]
        name = str(dense.get("source", {}).get("pretrained", name))
    if missing := [key for key in ("dense_digest", "fingerprint", "achieved_sparsity", "layers") if key not in last or key not in dense]:
        raise ReportError(f"{shortened(pretrained)}: the pruning record of this checkpoint has no {missing[0]}")
    own = {key: value for key, value in last.items() if key != CHECKPOINT} | {"dense_digest": dense["dense_digest"]}
    if environment := pruning.get("environment"):
        own["environment"] = environment
    if CHECKPOINT in last:
        before = last[CHECKPOINT]
        own[BEFORE] = {"words": in_words(before), "bits": made(before)["plan"].get("bits")}
    return name, own


def calibration_of(pruning: Mapping[str, Any]) -> str | None:
    """The source of the calibration text, by the plan of a record."""
    plan = pruning["plan"]
    return str(plan["calibration"]) if "calibration" in plan else None


def changed_before(pruning: Mapping[str, Any]) -> bool:
    """Whether the run that a record is of changed nothing, in a checkpoint that had been changed."""
    return CHECKPOINT in pruning and not changes(pruning)


def beside_weights(
    file: Path, config: Mapping[str, Any], arguments: Mapping[str, Any], date: float | None, gaps: list[str]
) -> dict[str, Any] | None:
    """The pruning record of a model that another model class of lm-eval loaded, which writes no record to the results.

    The folder of the model is looked at, if it is still there.

    Args:
        file: the results.
        date: when the results were written, in seconds since 1970.
        gaps: gets what is not known.

    Returns:
        ``{"checkpoint": record}``, nothing for a model without a record, or None if it cannot be known what the results are of.
    """
    pretrained = str(arguments.get("pretrained", ""))
    folder = Path(pretrained).expanduser()
    model = str(config.get("model", "unknown"))
    if not pretrained:
        return {}
    if not folder.is_dir() and (is_path(pretrained) or ("/" not in pretrained and not config.get("model_sha"))):
        gaps.append(
            f"{file}: left out, the folder pretrained={shortened(pretrained)} is not there, and --model {model} writes no pruning record: "
            "it is not known whether the model is dense; put the folder back, or evaluate it with --model pruned-hf"
        )
        return None
    try:
        revision = str(config.get("model_sha") or config.get("model_revision") or "main")
        found = of_checkpoint(pretrained, revision=revision, subfolder=arguments.get("subfolder"), cached=True)
    except HarnessExtError as error:
        gaps.append(f"{file}: left out, it is not known whether the model is dense: {error}")
        return None
    record = folder / str(arguments.get("subfolder") or "") / RECORD
    if found and date is not None and record.is_file() and record.stat().st_mtime > date:
        written = datetime.datetime.fromtimestamp(record.stat().st_mtime).isoformat(" ", "seconds")
        gaps.append(
            f"{file}: left out, {record} was written after the results ({written}): it is not known whether it is of the same weights"
        )
        return None
    if found:
        gaps.append(
            f"{file}: --model {model} writes no pruning record; that of {shortened(pretrained)} is taken: {in_words(found[CHECKPOINT])}"
        )
    elif not folder.is_dir():
        gaps.append(
            f"{file}: {shortened(pretrained)} is taken for a model from which nothing was removed; --model {model} writes no pruning "
            "record, and --model pruned-hf does"
        )
    return found


def name_apart(trials: Sequence[LoadedTrial], loaded: Sequence[LoadedTrial]) -> None:
    """Gives another name to a model of a checkpoint's record whose name another model has.

    Args:
        loaded: those of the trials whose name and weights a checkpoint's record tells.
    """
    apart = {id(trial) for trial in loaded}
    digests = {trial.pretrained: trial.dense_digest for trial in trials if id(trial) not in apart}
    for trial in loaded:
        if digests.setdefault(trial.pretrained, trial.dense_digest) != trial.dense_digest:
            trial.pretrained = f"{trial.pretrained} ({trial.dense_digest[:6]})"
