"""Reads the records of trials. A record is a folder with checksums of its files."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_ext.atomic import writing
from harness_ext.errors import with_type
from harness_ext.sweep.identity import canonical, key
from harness_ext.weights.checkpoint_record import CHECKPOINT, in_words, made

log = logging.getLogger(__name__)

TRIALS = "trials"
KEY = re.compile("[0-9a-f]{16}")  # the name of a record


class CorruptError(Exception):
    """A record that differs from what was written."""


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial. ``described`` is the content of ``trial.json``; other files are read from the folder when they are needed."""

    folder: Path
    described: Mapping[str, Any]

    @property
    def key(self) -> str:
        return str(self.described["key"])

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the scores; ``key`` is its digest."""
        return dict(self.described["settings"])

    @property
    def arguments(self) -> dict[str, Any]:
        """As ``lm_eval --model pruned-hf --model_args`` takes them."""
        return dict(self.described["arguments"])

    @property
    def command(self) -> str:
        """The ``lm_eval`` command that gives the same scores."""
        return str(self.described["command"])

    @property
    def pruning(self) -> dict[str, Any]:
        """The pruning record of :func:`harness_ext.prune`."""
        return dict(self.described["pruning"])

    @property
    def fingerprint(self) -> str:
        return str(self.described["pruning"]["fingerprint"])

    @property
    def is_dense(self) -> bool:
        """Whether the evaluated model is dense. A checkpoint that ``harness-ext prune`` wrote is not, also at sparsity 0."""
        return not self._changes and self.checkpoint is None

    @property
    def checkpoint(self) -> str | None:
        """What had been done to the model before the trial, such as ``gptq, 4 bits``; None for dense weights."""
        return in_words(self.pruning[CHECKPOINT]) if CHECKPOINT in self.pruning else None

    @property
    def _changes(self) -> bool:
        return self.ratio != 0 or self.bits is not None

    @property
    def bits(self) -> int | None:
        """The bits of a weight; None where weights are not quantised."""
        bits = self.pruning["plan"].get("bits")
        return None if bits is None else int(bits)

    @property
    def pretrained(self) -> str:
        return str(self.arguments["pretrained"])

    @property
    def pruner(self) -> str | None:
        """None if the trial changed no weights. ``allocation``, ``modules``, ``calibration`` and ``seed`` are None then as well."""
        return str(self.pruning["plan"]["pruner"]) if self._changes else None

    @property
    def sparsity(self) -> str:
        """The sparsity that was asked for: ``0.5``, or ``2:4``."""
        return str(self.pruning["plan"]["sparsity"])

    @property
    def ratio(self) -> float:
        """The sparsity that was asked for, as a number: 0.5 for ``2:4``."""
        return float(self.described["ratio"])

    @property
    def achieved_sparsity(self) -> float:
        """The share of zeros in the selected linear layers."""
        return float(made(self.pruning)["achieved_sparsity"])

    @property
    def allocation(self) -> str | None:
        return str(self.pruning["plan"]["allocation"]) if self._changes else None

    @property
    def modules(self) -> str | None:
        return str(self.pruning["plan"]["modules"]) if self._changes else None

    @property
    def calibration(self) -> str | None:
        """The calibration source or file; None if the method reads no text."""
        if "calibration" not in self.pruning["plan"]:
            return None
        return str(self.arguments.get("calibration", self.pruning["plan"]["calibration"]))

    @property
    def seed(self) -> int | None:
        """The calibration seed; None if the method reads no text."""
        seed = self.pruning["plan"].get("calibration_options", {}).get("seed")
        return None if seed is None else int(seed)

    @property
    def parameters(self) -> int:
        """The number of parameters of the evaluated model, zeros included."""
        return int(self.described["parameters"])

    @property
    def nonzero(self) -> int:
        """``parameters`` without the zeros in the pruned linear layers."""
        return self.parameters - sum(int(entry["zeros"]) for entry in made(self.pruning)["layers"].values())

    @property
    def seconds(self) -> dict[str, float]:
        return dict(self.described["seconds"])

    @property
    def tasks(self) -> list[str]:
        """The tasks, without groups: those that have samples."""
        return list(self.described["samples"])

    @property
    def items(self) -> dict[str, str]:
        """A digest of the items and the scoring of each task. Trials with equal digests can be compared item by item."""
        return dict(self.described["items"])

    @functools.cached_property
    def results(self) -> dict[str, Any]:
        """As ``lm_eval --output_path`` writes them."""
        results: dict[str, Any] = json.loads((self.folder / "results.json").read_text(encoding="utf-8"))
        return results

    def samples(self, task: str) -> list[dict[str, Any]]:
        """A mapping for each item and filter, in the order of the items. docs/sweep.md lists the fields.

        Raises:
            KeyError: no such task in this trial.
        """
        lines = gzip.decompress((self.folder / self.described["samples"][task]).read_bytes()).splitlines()
        rows: list[dict[str, Any]] = json.loads(b"[" + b",".join(lines) + b"]")  # at once: a third faster than line by line
        return rows


def read(folder: Path) -> TrialRecord:
    """A record, checked.

    Raises:
        CorruptError: and what is wrong with it.
    """
    try:
        described = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
        written = described.pop("checksum")
        if written != checksum(described) or key(described["settings"]) != described["key"] or described["key"] != folder.name:
            raise CorruptError("trial.json does not have its checksum")
        for file, digest in described["files"].items():
            if hashlib.sha256((folder / file).read_bytes()).hexdigest() != digest:
                raise CorruptError(f"{file} does not have its checksum")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError(with_type(error)) from error
    return TrialRecord(folder, {"checksum": written, **described})


def scan(out: Path) -> tuple[list[TrialRecord], dict[Path, str]]:
    """The records in a sweep's folder in canonical order, and the corrupt ones with the reason. Other files and folders are ignored."""
    records, corrupt = [], {}
    folders = sorted((out / TRIALS).iterdir()) if (out / TRIALS).is_dir() else []
    for folder in folders:
        if KEY.fullmatch(folder.name):
            try:
                records.append(read(folder))
            except CorruptError as error:
                corrupt[folder] = str(error)
    return sorted(records, key=order), corrupt


def load(out: str | Path) -> list[TrialRecord]:
    """The finished trials in a sweep's folder, in the order of its tables; corrupt records are left out, with a warning.

    Raises:
        FileNotFoundError: the folder has no trials at all.
    """
    out = Path(out)
    if not (out / TRIALS).is_dir():
        raise FileNotFoundError(f"{out}: there is no folder {TRIALS!r} in it, as harness-ext sweep --out makes")
    records, corrupt = scan(out)
    for folder, reason in corrupt.items():
        log.warning("%s is corrupt and left out: %s; harness-ext sweep runs the trial again", folder, reason)
    return records


def move_aside(folder: Path) -> Path:
    """Renames a corrupt record, so that nothing reads it and the trial can be recorded again."""
    number = 1
    while (aside := folder.with_name(f".corrupt-{folder.name}-{number}")).exists():
        number += 1
    with writing(folder):
        folder.rename(aside)
    return aside


def checksum(described: Mapping[str, Any]) -> str:
    """SHA-256 of ``trial.json`` without its field ``checksum``."""
    return hashlib.sha256(canonical(described)).hexdigest()


def order(record: TrialRecord) -> tuple[Any, ...]:
    """Sorts records in canonical order."""
    plan, bits = record.pruning["plan"], record.bits or 0
    names = [record.pretrained, record.pruner, record.allocation, record.modules, record.calibration]
    return (
        *(name or "" for name in names), -1 if record.seed is None else record.seed, record.ratio, record.sparsity, bits,
        json.dumps(plan, sort_keys=True, default=str), record.key,
    )  # fmt: skip
