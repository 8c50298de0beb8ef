"""Kills ``harness-ext prune --resume`` again and again, and compares what it ends with to a run that was left alone, bit by bit.

    python scripts/kill_prune.py --kills 100

A run is killed (SIGKILL) after a delay that is drawn uniformly over the seconds that a whole one takes, and started again with the same
folder of checkpoints until it ends; then the next begins with an empty folder. Of five kills, one waits until pruning has begun and one
until saving has, and they strike within the time that this takes: most of a short run is imports. Prints when the kills struck, and fails
if a tensor differs.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))

PHASES = ("before pruning", "mid-pruning", "while saving", "after it was saved")
LONGEST = 600


def phase(resume: Path, out: Path, began: int = 0) -> str:
    """Where a run is, by what it has written: the lock of its checkpoints, the new folder under another name, the new folder.

    Args:
        began: when the run was started, in nanoseconds of the file system's clock; signs from before are of a run that was killed.
    """

    def since(pattern: str, folder: Path) -> bool:
        found = list(folder.glob(pattern))
        for path in found:
            try:
                if path.stat().st_mtime_ns >= began:
                    return True
            except FileNotFoundError:  # renamed meanwhile
                continue
        return False

    if out.exists():
        return PHASES[3]
    if since(f".{out.name}.*.part", out.parent):
        return PHASES[2]
    return PHASES[1] if since("*/lock", resume) else PHASES[0]


def differences(first: Path, second: Path) -> list[str]:
    """The names of the tensors of two checkpoint folders that are not the same bits, or are in one of them only."""
    one, other = (
        {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()} for folder in (first, second)
    )
    apart = one.keys() ^ other.keys()
    return sorted(apart | {name for name in one.keys() & other.keys() if not same_bits(one[name], other[name])})


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Also where values compare equal and are not the same, as 0 and -0, or compare unequal to themselves."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(*(tensor.contiguous().flatten().view(torch.uint8) for tensor in (first, second)))


class Runs:
    """Runs of one command, each with a folder of checkpoints and one to write."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self.folder, self.arguments = folder, arguments
        self.log = folder / "log.txt"
        self.began = 0

    def start(self, name: str) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).with_name("harness-ext")), "prune", *self.arguments]
        command += ["--resume", str(self.resume(name)), "--out", str(self.out(name))]
        self.began = time.time_ns()
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def resume(self, name: str) -> Path:
        return self.folder / f"{name}-resume"

    def out(self, name: str) -> Path:
        return self.folder / name

    def phase(self, name: str) -> str:
        return phase(self.resume(name), self.out(name), self.began)

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Waits for the end of a run.

        Raises:
            RuntimeError: it failed, or takes too long.
        """
        try:
            code = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code:
            raise RuntimeError(f"harness-ext prune ended with {code}:\n{self.log.read_text()[-2000:]}")

    def measure(self, name: str) -> dict[str, float]:
        """Runs once without a kill; the seconds from the start to the first sign of each phase, and to the end."""
        process, began = self.start(name), time.perf_counter()
        seen: dict[str, float] = {}
        while process.poll() is None:
            seen.setdefault(self.phase(name), time.perf_counter() - began)
            time.sleep(0.002)
        self.wait(process)
        return seen | {"end": time.perf_counter() - began}

    def kill(self, name: str, delay: float, after: str | None) -> str | None:
        """Starts a run and kills it after a delay, or so long after a phase began; when that was, or None if it ended before."""
        process = self.start(name)
        until = time.perf_counter() + (LONGEST if after else delay)
        while process.poll() is None and time.perf_counter() < until:
            if after and PHASES.index(self.phase(name)) >= PHASES.index(after):
                time.sleep(delay)
                break
            time.sleep(0.001)
        if process.poll() is not None:
            self.wait(process)
            return None
        process.kill()
        process.wait()
        return self.phase(name)


def main(
    kills: int = 100,
    pruner: str = "sparsegpt",
    sparsity: str = "0.5",
    samples: Annotated[int, typer.Option(help="Calibration sequences.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the delays.")] = 0,
    pretrained: str = "lab-m",
    option: Annotated[list[str] | None, typer.Option(help="A further word for harness-ext prune; once for each.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Work there, and leave it; by default in a folder that is removed.")] = None,
) -> None:
    from lab_text import main as write_text

    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        write_text(place / "text.txt", samples=samples)
        arguments = ["--pretrained", pretrained, "--sparsity", sparsity, "--pruner", pruner, "--calibration", str(place / "text.txt")]
        runs = Runs(place, [*arguments, "--option", f"calibration.samples={samples}", *(option or [])])
        seen = runs.measure("whole")
        duration = seen["end"]
        pruned, saved = seen.get(PHASES[2], duration), seen.get(PHASES[3], duration)
        aims = {3: (PHASES[1], pruned - seen.get(PHASES[1], pruned)), 4: (PHASES[2], saved - pruned)}
        print("a whole run: " + ", ".join(f"{name} {'at' if name == 'end' else 'from'} {seconds:.1f} s" for name, seconds in seen.items()))
        struck: Counter[str] = Counter()
        chains, wrong, again = 0, 0, 0
        while sum(struck.values()) < kills:
            name = f"chain-{chains}"
            chains += 1
            while sum(struck.values()) < kills:
                after, length = aims.get(sum(struck.values()) % 5, (None, duration))
                when = runs.kill(name, draw.uniform(0, length), after)
                if when is not None:
                    struck[when] += 1
                if when is None or when == PHASES[3]:
                    break
                again += 1
            if not runs.out(name).exists():
                runs.wait(runs.start(name))
            different = differences(runs.out("whole"), runs.out(name))
            wrong += bool(different)
            if different:
                print(f"{name}: {len(different)} tensors differ, {different[0]} first")
            shutil.rmtree(runs.out(name))
            shutil.rmtree(runs.resume(name), ignore_errors=True)
        left = [path.name for path in place.iterdir() if path.name.startswith(".")]
    print("| the kill struck | times |\n|---|---|\n" + "\n".join(f"| {name} | {struck[name]} |" for name in PHASES))
    print(f"\n{sum(struck.values())} kills, {again} of them followed by another start with the same folder.")
    print(f"{chains} checkpoints at the end of them: {chains - wrong} with the same bits, {wrong} not.")
    print(f"Left beside them: {', '.join(left) or 'nothing'}.")
    if wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
