"""Keeps the trials of measured pages in the repository, so that the pages can be written again without measuring anew.

    python scripts/kept_trials.py keep runs/memory-load scripts/memory_load/trials.jsonl.xz
    python scripts/kept_trials.py put scripts/memory_load/trials.jsonl.xz runs/memory-load

What ``put`` writes are records that ``harness-ext report`` and ``harness_ext.sweep.load`` read, with the scores of all items. They lack
the hashes of items, the answers and the files of tasks. Absolute paths below the folder of the sweeps are
relative to it.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import lzma
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from harness_ext.atomic import whole_folder, writing
from harness_ext.sweep import load
from harness_ext.sweep.identity import key
from harness_ext.sweep.records import TRIALS, TrialRecord, checksum

HASHES = ("doc_hash", "prompt_hash", "target_hash")
ANSWERS = ("target", "filtered_resps")  # from which margins are computed

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def keep(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="It has the folders of the sweeps.")],
    archive: Annotated[Path, typer.Argument(help="The file to write.")],
    answers: Annotated[bool, typer.Option(help="Also keep the answers of dense models.")] = False,
) -> None:
    """Writes the trials of all sweeps in a folder into one file."""
    with lzma.open(archive, "wt", encoding="utf-8", preset=9) as lines:
        for sweep in sorted(path.parent for path in folder.glob(f"*/{TRIALS}")):
            for record in load(sweep):
                line = {"sweep": sweep.name, **relative(kept(record, answers=answers and record.is_dense), str(folder.resolve()))}
                lines.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


@app.command()
def put(
    archive: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file that keep wrote.")],
    folder: Annotated[Path, typer.Argument(help="The folder to write the sweeps into; a trial that is there stays as it is.")],
) -> None:
    """Writes the kept trials as the records of sweeps."""
    for line in lines_of(archive):
        described = {**line["described"], "key": key(line["described"]["settings"])}
        target = folder / line["sweep"] / TRIALS / described["key"]
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        files = {"results.json": json.dumps(line["results"], indent=1).encode()}
        for task, columns in line["samples"].items():
            text = "".join(json.dumps(row) + "\n" for row in rows_of(columns))
            files[described["samples"][task]] = gzip.compress(text.encode(), mtime=0)
        described["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        files["trial.json"] = json.dumps({"checksum": checksum(described), **described}, indent=1).encode()
        with whole_folder(target) as part, writing(target):
            for name, content in files.items():
                (part / name).write_bytes(content)


def kept(record: TrialRecord, *, answers: bool) -> dict[str, Any]:
    """What is kept of a trial. The samples of a task are columns."""
    without = {*HASHES, "resps", *(() if answers else ANSWERS)}
    samples = {}
    for task in record.tasks:
        rows = record.samples(task)
        fields = [field for field in rows[0] if field not in without] if rows else []
        if any(set(row) != set(rows[0]) for row in rows):
            raise ValueError(f"{record.folder}: the samples of {task} have different fields")
        samples[task] = {field: short([row[field] for row in rows]) for field in fields}
    described = {name: value for name, value in record.described.items() if name not in ("checksum", "files", "key")}
    results = copy.deepcopy(record.results)
    for config in results["configs"].values():
        (config.get("metadata") or {}).pop("config_source", None)  # a path of the installation
    return {"described": described, "results": results, "samples": samples}


def short(column: list[Any]) -> list[Any] | str:
    """Scores that are all 0.0 or 1.0 as digits."""
    if all(isinstance(value, float) and value in (0.0, 1.0) for value in column):
        return "".join(f"{value:.0f}" for value in column)
    return column


def rows_of(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The samples of a task from their columns."""
    values = [map(float, column) if isinstance(column, str) else column for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


@dataclass(frozen=True)
class KeptTrial(TrialRecord):
    """A trial in an archive. It has no folder and no results, and its samples are columns."""

    columns: Mapping[str, Mapping[str, Any]]

    def samples(self, task: str) -> list[dict[str, Any]]:
        return rows_of(self.columns[task])


def trials_of(archive: Path) -> Iterator[KeptTrial]:
    """The trials of an archive, one after the other: faster than ``put`` and reading what it wrote."""
    for line in lines_of(archive):
        yield KeptTrial(archive, {**line["described"], "key": key(line["described"]["settings"])}, line["samples"])


def relative(value: Any, root: str) -> Any:
    """A JSON value in which paths below a folder are relative to it."""
    if isinstance(value, str):
        return value.replace(f"{root}/", "")
    if isinstance(value, Mapping):
        return {relative(name, root): relative(one, root) for name, one in value.items()}
    return [relative(one, root) for one in value] if isinstance(value, list) else value


def lines_of(archive: Path) -> Iterator[dict[str, Any]]:
    """The kept trials."""
    with lzma.open(archive, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


if __name__ == "__main__":
    app()
