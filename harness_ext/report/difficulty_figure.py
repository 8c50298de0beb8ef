"""The figure of critical sparsities against difficulty, one line for each ability."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness_ext.report.analysis import Analysis
from harness_ext.report.difficulty import HALF
from harness_ext.report.drawing import Drawn, Hover, draw, legend, panels, style
from harness_ext.report.words import name_of, of_curves
from harness_ext.statistics import DifficultyBin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, TITLE = "difficulty", "Critical sparsity against difficulty"


def difficulty_figure(analysis: Analysis, folder: Path) -> Drawn | None:
    """One panel for each method; None if there are no bins."""
    found = analysis.difficulty
    labels = [series.label for series in analysis.series if any(key[0] == series.label for key in found.bins)]
    if not labels:
        return None
    last = max(one.critical.last for bins in found.bins.values() for one in bins)
    abilities = [ability for ability in of_curves(analysis) if any(key[1] == ability for key in found.bins)]

    def make(hover: Hover) -> Figure:
        figure, axes = panels(len(labels), columns=2, width=4.6 if len(labels) > 1 else 6.4, height=3.4, sharex=True, sharey=True)
        for panel, label in zip(axes, labels, strict=True):
            for index, ability in enumerate(abilities):
                if bins := found.bins.get((label, ability)):
                    _line(panel, bins, index, name_of(ability), hover)
            panel.set_ylim(-0.02 * last, last * 1.12)
            panel.set_title(label, fontsize=10)
            panel.set_xlabel(f"dense margin of the right answer ({found.unit})\nhard items left, easy items right")
            panel.set_ylabel("sparsity at which half is lost")
            panel.tick_params(labelbottom=True, labelleft=True)
        legend(figure, axes)
        return figure

    summary = "; ".join(
        f"{label}, {name_of(ability)}: "
        + ", ".join(f"margin {one.middle:.3g} fails {one.critical.cell_words()} ({one.critical.interval_words()})" for one in bins)
        for (label, ability), bins in found.bins.items()
    )
    return draw(
        folder, NAME, TITLE,
        "Items that the dense model answers rightly, in bins of equally many items by their margin: the log-likelihood of the right "
        f"answer less that of the best wrong one, in {found.unit}. A mark is the sparsity at which {100 * HALF:g} % of the "
        "chance-corrected score of a bin is lost; a bin has too few items to show a smaller drop. Vertical bars are 95 % intervals, "
        "which end at measured sparsities; an arrow goes on beyond the largest (dotted), and so does an empty mark. Thin horizontal lines "
        "are the margins in a bin. "
        "Where the lines of two abilities coincide, what is lost first depends on how hard items are; where they lie apart at the same "
        "margin, difficulty does not explain the split. Compare lines at one margin only: items with small margins fall after any "
        "change of the weights.",
        f"Critical sparsity against the dense margin, one line for each ability. {summary}.", make,
    )  # fmt: skip


def _line(axes: Axes, bins: tuple[DifficultyBin, ...], index: int, label: str, hover: Hover) -> None:
    look = style(index)
    colour, line = look["color"], look.pop("linestyle")
    last = bins[0].critical.last
    x = [one.middle for one in bins]
    y = [last if one.critical.sparsity is None else one.critical.sparsity for one in bins]
    axes.axhline(last, color="#555555", linewidth=0.8, linestyle=":")
    ends = [last * 1.06 if one.critical.high is None else one.critical.high for one in bins]
    axes.hlines(y, [one.low for one in bins], [one.high for one in bins], color=colour, linewidth=0.8, alpha=0.5)
    axes.vlines(x, [one.critical.low for one in bins], ends, color=colour, linewidth=4, alpha=0.3)
    arrows = [at for one, at in zip(bins, x, strict=True) if one.critical.high is None]
    axes.plot(arrows, [last * 1.06] * len(arrows), color=colour, marker="^", markersize=6, linestyle="none", alpha=0.6)
    axes.plot(x, y, linewidth=1.6, linestyle=line, label=label, **look)
    beyond = [at for one, at in zip(bins, x, strict=True) if one.critical.sparsity is None]
    axes.plot(beyond, [last] * len(beyond), linestyle="none", **look | {"markerfacecolor": "white"})
    texts = [f"{label}, margins {one.low:.3g} to {one.high:.3g}, {one.items} items: {one.critical.phrase()}" for one in bins]
    hover.points(axes, x, y, texts)
