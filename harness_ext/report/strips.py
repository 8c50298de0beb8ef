"""The figure of the sparsity of each linear layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness_ext.report.drawing import Drawn, Hover, draw, panels
from harness_ext.report.series import Series
from harness_ext.report.trials import LoadedTrial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALIKE = 0.02  # in sparsity: whole numbers of weights are removed, so that layers of other shapes differ a little


def layer_sparsities(trial: LoadedTrial) -> dict[str, float]:
    """The share of zeros in each linear layer that was pruned."""
    layers: Mapping[str, Mapping[str, float]] = trial.pruning.get("layers", {})
    return {name: entry["zeros"] / entry["weights"] for name, entry in layers.items() if entry.get("weights") and "zeros" in entry}


def is_uneven(series: Series) -> bool:
    """Whether the layers of a series differ in their sparsity."""
    shares = [list(layer_sparsities(trial).values()) for trial in series.trials]
    return any(max(layers) - min(layers) > ALIKE for layers in shares if layers)


def strips(series: Sequence[Series], folder: Path) -> Drawn:
    """Rows of grey, one for each sparsity, with a column for each layer."""

    def make(hover: Hover) -> Figure:
        most = max(len(one.points) for one in series)
        figure, axes = panels(len(series), columns=1, width=8.0, height=1.1 + 0.22 * most)
        for one, of in zip(axes, series, strict=True):
            shares = [[layer_sparsities(trial) for trial in by_seed.values()] for _, by_seed in sorted(of.points.items())]
            names = list(dict.fromkeys(name for trials in shares for layers in trials for name in layers))
            grid = [[float(np.mean([layers.get(name, 0.0) for layers in trials])) for name in names] for trials in shares]
            # One pixel for each layer and sparsity: as shapes, the strips of many layers would be most of the page.
            image = one.imshow(
                np.array(grid), cmap="Greys", vmin=0, vmax=1, interpolation="none", aspect="auto", extent=(0, len(names), len(grid), 0)
            )
            one.hlines(range(1, len(grid)), 0, len(names), color="#bbbbbb", linewidth=0.6)
            one.spines[:].set_visible(True)
            one.set_title(of.label, fontsize=10)
            one.set_yticks(np.arange(len(grid)) + 0.5, [f"{sparsity:g}" for sparsity in sorted(of.points)])
            one.set_ylabel("sparsity")
            shown = range(0, len(names), max(1, len(names) // 24))
            one.set_xticks([place + 0.5 for place in shown], [_short(names[place]) for place in shown], rotation=60, ha="right", fontsize=7)
            one.grid(visible=False)
        figure.colorbar(image, ax=axes, label="share of zeros", shrink=0.8)
        return figure

    said = []
    for one in series:
        ends = [share for trial in one.trials[-1:] for share in layer_sparsities(trial).values()]
        if ends:
            said.append(f"{one.label} at its largest sparsity: from {min(ends):.2f} to {max(ends):.2f}")
    return draw(
        folder, "layers", "Sparsity per layer",
        "The share of zeros in each linear layer that was pruned, from the pruning records; the mean over calibration seeds. Layers run "
        "from the first block to the last.",
        f"Strips of grey for each method, one row for each sparsity and one column for each layer. {'; '.join(said)}.", make,
    )  # fmt: skip


def _short(name: str) -> str:
    parts = name.split(".")
    number = next((part for part in parts if part.isdigit()), "")
    return f"{number} {parts[-1]}".strip()
