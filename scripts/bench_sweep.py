"""Times ``harness-ext sweep`` against separate ``lm_eval`` processes, one for each pair of a sparsity and a task.

    python scripts/bench_sweep.py                 # three of the processes, one for each of three sparsities; the rest extrapolated
    python scripts/bench_sweep.py --all           # all of them

The bar is 5: 9 sparsities x 6 tasks against 54 processes. Both are measured in the same run, one after the other, with the same tasks,
items and threads. Prints the ratio, and with ``--out`` writes the figures as JSON. Fails below the bar.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from harness_ext.host.command_line import lm_eval_command

SPARSITIES = [f"0.{tenth}" for tenth in range(1, 10)]
TASKS = ("lab_facts_closed", "lab_facts_open", "lab_unseen_open", "kv_32", "icl_linear", "icl_nn")
BAR = 5.0


def seconds(command: list[str], folder: Path) -> float:
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    return time.monotonic() - began


def main(
    pretrained: Annotated[str, typer.Option()] = "lab-m",
    pruner: Annotated[str, typer.Option()] = "sparsegpt",
    items: Annotated[int, typer.Option(help="Items of each task; 0 is what each task has by default.")] = 256,
    everything: Annotated[bool, typer.Option("--all", help="Run every separate process.")] = False,
    processes: Annotated[int, typer.Option(help="How many separate processes to run, without --all.", min=1)] = 3,
    out: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
) -> None:
    metadata = {"facts_items": items, "lookup_items": items, "icl_items": items} if items else {}
    pairs = [(sparsity, task) for sparsity in SPARSITIES for task in TASKS]
    # Every sparsity and every task as often as the others, as far as the number goes: 7 and 9 x 6 have no common divisor but 1.
    chosen = pairs if everything else [pairs[(index * len(pairs) // processes + index * 7) % len(pairs)] for index in range(processes)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        separate = []
        for sparsity, task in chosen:
            model_args = {"pretrained": pretrained, "pruner": pruner, "sparsity": float(sparsity)}
            words = lm_eval_command({"model_args": model_args, "tasks": [task], "metadata": metadata}).words[1:]
            separate.append(seconds([sys.executable, "-m", "lm_eval", *words, "--log_samples", "--output_path", "stock"], folder))
            print(f"lm_eval, sparsity {sparsity}, {task}: {separate[-1]:.1f} s", flush=True)
        command = [sys.executable, "-c", "from harness_ext.commands.cli import app; app()", "sweep", "--metadata", json.dumps(metadata)]
        command += ["--pretrained", pretrained, "--pruner", pruner, "--sparsity", ",".join(SPARSITIES)]
        command += ["--tasks", ",".join(TASKS), "--out", "sweep"]
        whole = seconds(command, folder)
        print(f"harness-ext sweep, {len(SPARSITIES)} sparsities and the dense model, {len(TASKS)} tasks: {whole:.1f} s", flush=True)
        again = seconds(command, folder)
        print(f"the same again, with nothing to do: {again:.1f} s")
    total = sum(separate) / len(separate) * len(pairs)
    how = "measured" if everything else f"EXTRAPOLATED from {len(separate)} of them, at their mean"
    print(f"{len(pairs)} separate processes: {total:.0f} s ({how}); ratio {total / whole:.1f}, the bar is {BAR:g}")
    if out:
        figures = {
            "pretrained": pretrained,
            "pruner": pruner,
            "items": items,
            "separate_processes": len(pairs),
            "separate_measured": len(separate),
            "separate_seconds_each": separate,
            "separate_seconds": total,
            "sweep_seconds": whole,
            "sweep_again_seconds": again,
            "ratio": total / whole,
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
        }
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if total / whole < BAR:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
