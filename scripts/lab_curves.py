"""Draws the losses and accuracies of a training run, from the log that scripts/train_lab.py writes.

python scripts/lab_curves.py build/lab-m/log.jsonl build/lab-m/curves.png
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Line style and grey tell the kinds apart in print; the colours have the same order of brightness.
STYLES: dict[str, tuple[str, str, Any]] = {
    "icl": ("functions in context", "#08306b", "-"),
    "facts": ("facts from memory", "#a63603", (0, (6, 2))),
    "passages": ("facts from a passage", "#238b45", (0, (1, 1))),
    "copy": ("copying", "#969696", "-."),
    "text": ("other tokens", "#bdbdbd", "-"),
    "probe": ("probes", "#bdbdbd", (0, (1, 3))),
}


def read(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last ``window`` values, or of all so far where there are fewer."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def draw(log: Path, out: Path, window: int | None = None) -> None:
    """Writes the curves to ``out``; the running mean is over ``window`` steps, or a fiftieth of the run."""
    records = read(log)
    window = window or max(1, len(records) // 50)
    figure = Figure(figsize=(8, 7), layout="constrained")
    accuracy, loss = figure.subplots(2, 1, sharex=True)
    _panel(accuracy, records, "acc", "accuracy", window)
    accuracy.set_ylim(0, 1.02)
    accuracy.axhline(0.5, color="0.5", linewidth=0.7)
    place = {"xycoords": ("axes fraction", "data"), "xytext": (4, 0), "textcoords": "offset points"}
    accuracy.annotate("chance with\ntwo labels", (1, 0.5), **place, fontsize=8, va="center")
    _panel(loss, records, "loss", "loss, nats per token", window)
    loss.set_ylim(bottom=0)
    loss.set_xlabel(f"million tokens ({len(records):,} steps; running mean over {window})")
    _mark_dimensions(accuracy, loss, records)
    handles, labels = loss.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=8, handlelength=3)
    figure.savefig(out, dpi=130)


def _panel(axes: Axes, records: list[dict[str, Any]], quantity: str, title: str, window: int) -> None:
    for kind, (label, colour, style) in STYLES.items():
        points = [(record["tokens"] / 1e6, record[key]) for record in records if (key := f"{kind}_{quantity}") in record]
        if points:
            tokens, values = np.array(points).T
            axes.plot(tokens, running_mean(values, window), color=colour, linestyle=style, linewidth=1.6, label=label)
    axes.set_ylabel(title)
    axes.grid(axis="y", linewidth=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _mark_dimensions(accuracy: Axes, loss: Axes, records: list[dict[str, Any]]) -> None:
    """A vertical line at each step from which the functions have one input more."""
    steps = [(later["tokens"] / 1e6, later["dimensions"]) for now, later in pairwise(records) if later["dimensions"] > now["dimensions"]]
    for tokens, dimensions in steps:
        for axes in (accuracy, loss):
            axes.axvline(tokens, color="0.4", linewidth=0.8, linestyle=(0, (2, 4)))
        accuracy.annotate(
            f"{dimensions} inputs" if dimensions == steps[-1][1] else f"{dimensions}",
            (tokens, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 2),
            textcoords="offset points",
            fontsize=8,
        )


def main(
    log: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="log.jsonl of a run.")],
    out: Annotated[Path, typer.Argument(help="The PNG to write.")],
    window: Annotated[int | None, typer.Option(min=1, help="Steps of the running mean; a fiftieth of the run if not given.")] = None,
) -> None:
    draw(log, out, window)


if __name__ == "__main__":
    typer.run(main)
