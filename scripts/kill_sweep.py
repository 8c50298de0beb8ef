"""Kills ``harness-ext sweep`` again and again, and compares what it ends with to a sweep that was left alone, bit by bit.

    python scripts/kill_sweep.py --kills 100

A sweep is killed (SIGKILL) after a delay that is drawn uniformly over the seconds that a whole one takes, and started again in the same
folder, to be killed again or, two times in five, left alone to its end; then the next begins with an empty folder. Of two kills, one waits
until the run has opened its folder and strikes within the time that the trials take: most of a short sweep is imports. Prints when the
kills struck, and fails if the tables or the samples of a trial differ.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

LONGEST = 600
METADATA = '{"icl_items": 16, "facts_items": 16}'


def contents(out: Path) -> dict[str, bytes]:
    """The tables and the samples of every trial."""
    paths = [out / "results.csv", *sorted(out.glob("trials/*/samples_*"))]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def start(arguments: list[str], out: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-c", "from harness_ext.commands.cli import app; app()", *arguments, "--out", str(out)],
            stdout=file,
            stderr=file,
        )


def phase(out: Path) -> str:
    """Where a sweep is, by what is in its folder."""
    if not (out / "lock").exists():
        return "before the folder"
    if list(out.glob("trials/.*.part")):
        return "while a record is written"
    if list(out.glob(".*.part")):
        return "while the table is written"
    return f"after {len(list(out.glob('trials/[!.]*')))} trials"


def wait_for_lock(out: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the process has the folder: its log of open files says so."""
    lock = str(out / "lock")
    while process.poll() is None:
        try:
            handles = [os.readlink(handle) for handle in Path(f"/proc/{process.pid}/fd").iterdir()]
        except (FileNotFoundError, PermissionError):
            handles = []
        if lock in handles:
            return
        time.sleep(0.02)


def main(
    kills: Annotated[int, typer.Option(min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of the delays.")] = 0,
    pretrained: Annotated[str, typer.Option()] = "lab-xs",
    sparsity: Annotated[str, typer.Option()] = "0.2:0.8:0.2,2:4",
) -> None:
    draw = random.Random(seed)
    arguments = ["sweep", "--pretrained", pretrained, "--pruner", "magnitude", "--pruner", "random", "--sparsity", sparsity]
    arguments += ["--tasks", "icl_linear,lab_facts_closed", "--metadata", METADATA]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "log.txt"
        began = time.monotonic()
        process = start(arguments, folder / "whole", log)
        wait_for_lock(folder / "whole", process)
        ready = time.monotonic() - began
        if process.wait(LONGEST):
            raise SystemExit(log.read_text())
        whole = time.monotonic() - began
        expected = contents(folder / "whole")
        print(f"a whole sweep takes {whole:.1f} s, {ready:.1f} s of them before the folder is opened")
        struck: Counter[str] = Counter()
        runs = ended = 0
        out = folder / "killed"
        while sum(struck.values()) < kills:
            process = start(arguments, out, log)
            runs += 1
            if draw.random() < 0.5:
                wait_for_lock(out, process)
                time.sleep(draw.uniform(0, whole - ready))
            else:
                time.sleep(draw.uniform(0, whole))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait(LONGEST)
                struck[phase(out)] += 1
                if draw.random() < 0.6 and sum(struck.values()) < kills:
                    continue
                process = start(arguments, out, log)
                process.wait(LONGEST)
                runs += 1
            check(process, out, expected, log)
            ended += 1
        print(f"{kills} kills in {runs} runs: {', '.join(f'{count} {when}' for when, count in sorted(struck.items()))}")
        print(f"{ended} sweeps came to their end, all with the bits of the one that was left alone")


def check(process: subprocess.Popen[bytes], out: Path, expected: dict[str, bytes], log: Path) -> None:
    """Compares a sweep that has ended, and deletes its folder."""
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}\n{log.read_text()[-4000:]}")
    found = contents(out)
    apart = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if apart:
        raise SystemExit(f"not the same bits: {', '.join(apart)}")
    shutil.rmtree(out)


if __name__ == "__main__":
    typer.run(main)
