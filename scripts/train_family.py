"""Trains the embedded models and those that they are compared with: every size with several seeds, on one text.

    python scripts/train_family.py --out build/family --jobs 2
    python scripts/train_family.py --out build/family --sets sizes,loads,zipf --device cuda

There are three sets of models:

- ``sizes``: the ladder that we ship.
- ``loads``: the smallest size with 3,072 down to 215 memorised people. It is asked about each of them equally often.
- ``zipf``: the smallest size with 2,048 memorised people. It is asked about half of them by Zipf's law.

On a CPU each run has one thread and a folder of its own. On a GPU all runs of a size are trained at once, and all sizes beside each other.
An interrupted family resumes. Finished runs are not repeated.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from lab_curves import draw as draw_curves
from lab_runs import logged, saved
from lab_settings import SIZES, SMOKE, Settings
from train_lab import OWN, train

log = logging.getLogger("train_family")
EVERY = 30.0  # seconds between two lines of progress
LOADED = (215, 614, 1229, 1843, 3072)  # memorised people: 0.07, 0.2, 0.4, 0.6 and 1 bits of facts a decoder weight of lab-xs
UNEVEN = 2048  # memorised people of the set zipf: 0.67 bits a decoder weight of lab-xs
SETS = ("sizes", "loads", "zipf")
Runs = dict[str, tuple[str, Settings]]
"""The size and the settings of each run, by the name of its folder."""


def runs_of(sets: Sequence[str], sizes: Sequence[str], seeds: Sequence[int], steps: int) -> Runs:
    """The runs of some sets, the seeds of a model after each other."""
    found: Runs = {}
    if "sizes" in sets:
        found |= {f"{size}-{seed}": (size, Settings(**SIZES[size], steps=steps, seed=seed)) for size in sizes for seed in seeds}
    for people in LOADED if "loads" in sets else ():
        for seed in seeds:
            settings = Settings(**SIZES["lab-xs"], steps=steps, seed=seed, people=people, slots=max(LOADED))
            found[f"lab-xs-{people}-people-{seed}"] = "lab-xs", settings
    for seed in seeds if "zipf" in sets else ():
        settings = Settings(**SIZES["lab-xs"], steps=steps, seed=seed, people=UNEVEN, slots=UNEVEN, zipf=True)
        found[f"lab-xs-zipf-{seed}"] = "lab-xs", settings
    return found


def trained(out: Path, names: Sequence[str]) -> list[Path]:
    """The models of a family.

    Raises:
        typer.BadParameter: a run is missing or not at its end, or two runs are of different texts or numbers of steps.
    """
    runs, texts = [out / name for name in names], {}
    for run in runs:
        done, steps = saved(run)
        if not steps or done < steps:
            raise typer.BadParameter(
                f"{run}: {f'step {done} of {steps}' if steps else 'no run'}: want scripts/train_family.py to end first"
            )
        settings = json.loads((run / "settings.json").read_text())
        texts.setdefault((settings["text"], settings["steps"]), run)
    if len(texts) > 1:
        first, second, *_ = texts.values()
        raise typer.BadParameter(f"{first} and {second} were trained on different texts: want one family")
    return [run / "model" for run in runs]


def command(run: Path, size: str, settings: Settings, extra: Sequence[str]) -> list[str]:
    """The command that trains one run."""
    words = [sys.executable, str(Path(__file__).with_name("train_lab.py")), "--size", size, "--out", str(run), *extra]
    for name in ("seed", "steps", "people", "slots"):
        words += [f"--{name}", str(getattr(settings, name))]
    return words + ["--zipf"] * settings.zipf


def train_on_cpu(out: Path, runs: Runs, jobs: int, extra: Sequence[str]) -> None:
    """Trains some runs at a time.

    Raises:
        SystemExit: a run failed; the others go on first.
    """

    def start(name: str) -> subprocess.Popen[bytes]:
        (out / name).mkdir(parents=True, exist_ok=True)
        with (out / name / "output.txt").open("ab") as output:
            words = command(out / name, *runs[name], extra)
            return subprocess.Popen(words, stdout=output, stderr=output, env=os.environ | {"OMP_NUM_THREADS": "1"})

    _all_of({name: lambda name=name: start(name) for name in runs}, jobs, out, {name: [name] for name in runs})


def train_on_gpu(out: Path, runs: Runs, device: str, processes: int, save_every: int) -> None:
    """Trains all runs of a size that stand at one step as one stack, and all stacks at once.

    Raises:
        SystemExit: a size failed; the others go on first.
    """
    fresh = multiprocessing.get_context("spawn")
    stacks: dict[str, Runs] = {}
    for name, run in runs.items():  # runs that were cut off while they were saved may stand at two steps
        stacks.setdefault(f"{run[0]} from step {saved(out / name)[0]}", {})[name] = run

    def start(stack: Runs) -> multiprocessing.Process:
        settings, outs = [settings for _, settings in stack.values()], [out / name for name in stack]
        own = max(2, processes * len(stack) // len(runs)) if processes else 0
        process = fresh.Process(target=train, args=(settings, outs, device, own, save_every))
        process.start()
        return process

    _all_of(
        {size: lambda stack=stack: start(stack) for size, stack in stacks.items()},
        len(stacks),
        out,
        {s: list(r) for s, r in stacks.items()},
    )


def _all_of(starts: dict[str, Callable], jobs: int, out: Path, folders: dict[str, list[str]]) -> None:
    """Starts processes, some at a time, tells how far they are, and waits for all."""
    waiting, running, failed = list(starts), {}, list[str]()
    told = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                running[name] = starts[name]()
                log.info("%s: started", name)
            for name in [name for name, process in running.items() if _code(process) is not None]:
                code = _code(running.pop(name))
                log.info("%s: %s", name, "done" if code == 0 else "failed")
                failed += [name] if code else []
            if time.monotonic() - told > EVERY:
                told = time.monotonic()
                steps = ", ".join(f"{name}: step {logged(out / folders[name][0])}" for name in running)
                log.info("%s; %d waiting", steps, len(waiting))
            time.sleep(0.2)
    finally:
        for process in running.values():  # checkpoints let the runs go on
            process.terminate()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; what a run on a CPU said is in its output.txt")


def _code(process: subprocess.Popen[bytes] | multiprocessing.Process) -> int | None:
    return process.poll() if isinstance(process, subprocess.Popen) else process.exitcode


def main(
    out: Annotated[Path, typer.Option(help="Folder of the family; what is in it is resumed.")],
    sets: Annotated[str, typer.Option(help="Some of sizes, loads, zipf, with commas.")] = "sizes",
    sizes: Annotated[str, typer.Option(help="Of the set sizes, with commas.")] = ",".join(SIZES),
    seeds: Annotated[str, typer.Option(help="With commas.")] = "0,1,2",
    steps: int = Settings.steps,
    jobs: Annotated[int, typer.Option(help="Runs at a time on a CPU, one thread each.", min=1)] = 1,
    device: str = "cpu",
    processes: Annotated[int, typer.Option(help="On a GPU, processes that draw the text of all runs.", min=0)] = os.cpu_count() or 1,
    save_every: int = 100,
    smoke: Annotated[bool, typer.Option(help="A tiny model and a few steps for each, to see that everything runs.")] = False,
) -> None:
    groups, names, numbers = sets.split(","), sizes.split(","), seeds.split(",")
    if unknown := [group for group in groups if group not in SETS]:
        raise typer.BadParameter(f"--sets {unknown[0]}: want some of {', '.join(SETS)}")
    if unknown := [name for name in names if name not in SIZES]:
        raise typer.BadParameter(f"--sizes {unknown[0]}: want some of {', '.join(SIZES)}")
    if len(set(names)) < 2:
        raise typer.BadParameter(f"--sizes {sizes}: a family has two sizes or more; scripts/train_lab.py trains one")
    if not all(number.isdigit() for number in numbers) or len(set(numbers)) < len(numbers):
        raise typer.BadParameter(f"--seeds {seeds}: want different whole numbers such as 0,1,2")
    runs = runs_of(groups, names, [int(number) for number in numbers], steps)
    if smoke:
        runs = {name: (size, Settings(**SMOKE, **{own: getattr(s, own) for own in OWN})) for name, (size, s) in runs.items()}
    unfinished = {name: run for name, run in runs.items() if (state := saved(out / name))[0] < state[1] or not state[1]}
    if device == "cpu":
        train_on_cpu(out, unfinished, jobs, ["--smoke"] * smoke + ["--save-every", str(save_every)])
    else:
        train_on_gpu(out, unfinished, device, processes, save_every)
    for model in trained(out, list(runs)):
        draw_curves(model.parent / "log.jsonl", model.parent / "curves.png")
        typer.echo(str(model))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    typer.run(main)
