"""The figure of the sparsity of each linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness_ext.report.drawing import Drawn, Hover, draw, panels
from harness_ext.report.series import Series
from harness_ext.report.trials import LoadedTrial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALIKE = 0.02  # rounding to whole weights makes layers of different shapes differ by less


def layer_sparsities(trial: LoadedTrial) -> dict[str, float]:
    """The share of zeros in each linear layer that was pruned."""
    return {name: entry["zeros"] / entry["weights"] for name, entry in trial.layers.items()}


def is_uneven(series: Series) -> bool:
    """Whether the layers of a series have different sparsities."""
    shares = [list(layer_sparsities(trial).values()) for trial in series.trials]
    return any(max(layers) - min(layers) > ALIKE for layers in shares if layers)


def strips(series: Sequence[Series], folder: Path) -> Drawn:
    """Draws an image in grey for each method, with one row for each sparsity and one column for each layer."""

    def make(hover: Hover) -> Figure:
        most = max(len(each.points) for each in series)
        figure, axes = panels(len(series), columns=1, width=8.0, height=1.1 + 0.22 * most)
        for panel, each in zip(axes, series, strict=True):
            shares = [[layer_sparsities(trial) for trial in by_seed.values()] for _, by_seed in sorted(each.points.items())]
            names = list(dict.fromkeys(name for trials in shares for layers in trials for name in layers))
            grid = [[float(np.mean([layers.get(name, 0.0) for layers in trials])) for name in names] for trials in shares]
            # An image with one pixel for each layer and sparsity keeps the page small. Shapes of many layers would be most of it.
            image = panel.imshow(
                np.array(grid), cmap="Greys", vmin=0, vmax=1, interpolation="none", aspect="auto", extent=(0, len(names), len(grid), 0)
            )
            panel.hlines(range(1, len(grid)), 0, len(names), color="#bbbbbb", linewidth=0.6)
            panel.spines[:].set_visible(True)
            panel.set_title(each.label, fontsize=10)
            panel.set_yticks(np.arange(len(grid)) + 0.5, [f"{sparsity:g}" for sparsity in sorted(each.points)])
            panel.set_ylabel("sparsity")
            shown = range(0, len(names), max(1, len(names) // 24))
            panel.set_xticks(
                [place + 0.5 for place in shown], [_short(names[place]) for place in shown], rotation=60, ha="right", fontsize=7
            )
            panel.grid(visible=False)
        figure.colorbar(image, ax=axes, label="share of zeros", shrink=0.8)
        return figure

    extremes = []
    for each in series:
        ends = [share for trial in each.trials[-1:] for share in layer_sparsities(trial).values()]
        if ends:
            extremes.append(f"{each.label} at its largest sparsity: from {min(ends):.2f} to {max(ends):.2f}")
    return draw(
        folder, "layers", "Sparsity per layer",
        "The share of zeros in each linear layer that was pruned, from the pruning records; the mean over calibration seeds. Layers run "
        "from the first block to the last.",
        f"Strips of grey for each method, one row for each sparsity and one column for each layer. {'; '.join(extremes)}.", make,
    )  # fmt: skip


def _short(name: str) -> str:
    parts = name.split(".")
    number = next((part for part in parts if part.isdigit()), "")
    return f"{number} {parts[-1]}".strip()
