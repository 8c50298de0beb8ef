"""The folder of a training run: its settings, which no other run may take over, and its log."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
import typer
from lab_mixture import KINDS, Mixture
from lab_settings import Settings
from lab_tokenizer import build as build_tokenizer

from harness_ext.tasks.people import population


def text_digest() -> str:
    """SHA-256 of some batches of each kind, as 16 hexadecimal digits: it tells texts apart, and the populations they are about."""
    people = population(0)
    mixture, sha = Mixture(build_tokenizer(people), people, tokens=Settings.micro_tokens, seed=0), hashlib.sha256()
    for kind in KINDS:
        for step in range(4):
            sha.update(mixture.batch(kind, step, 0).ids.numpy().astype("<i8").tobytes())
    return sha.hexdigest()[:16]


def claim(out: Path, settings: Settings) -> None:
    """Writes the settings of a run into its folder.

    Raises:
        typer.BadParameter: the folder has a run with other settings, or of another text. Nothing is changed in it.
    """
    described = asdict(settings) | {"text": text_digest()}
    path = out / "settings.json"
    if path.exists():
        other = json.loads(path.read_text())
        if differ := [name for name in {**described, **other} if described.get(name) != other.get(name)]:
            name = differ[0]
            raise typer.BadParameter(f"--out {out} has a run with {name} {other.get(name)}, not {described.get(name)}: want another folder")
    elif (out / "checkpoint.pt").exists():
        raise typer.BadParameter(f"--out {out} has a checkpoint and no settings.json: want another folder")
    out.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(described, indent=2) + "\n")
    os.replace(temporary, path)


def logged(run: Path) -> int:
    """The steps in the log of a run: those after its last checkpoint come again if it is cut off."""
    return len((run / "log.jsonl").read_bytes().splitlines()) if (run / "log.jsonl").exists() else 0


def saved(run: Path) -> tuple[int, int]:
    """The step of the last checkpoint of a run, and all its steps; zeros where there is none."""
    if not (run / "settings.json").exists():
        return 0, 0
    steps: int = json.loads((run / "settings.json").read_text())["steps"]
    checkpoint = run / "checkpoint.pt"
    return (torch.load(checkpoint, weights_only=True, mmap=True)["counters"]["step"] if checkpoint.exists() else 0), steps


def trim_log(log: Path, step: int) -> None:
    """Drops what a run that was cut off logged after its last checkpoint, half a line at the end included: those steps come again."""
    kept = []
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []:
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    temporary = log.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, log)
