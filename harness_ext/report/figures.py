"""Draws the figures of a report, grouped by their place on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness_ext.report.analysis import Analysis
from harness_ext.report.axis import Axis
from harness_ext.report.comparisons import comparisons
from harness_ext.report.difficulty_figure import difficulty_figure
from harness_ext.report.drawing import Drawn
from harness_ext.report.hero import hero
from harness_ext.report.multiples import multiples
from harness_ext.report.perplexity_scores import not_drawn, perplexity_figure
from harness_ext.report.recall_scores import recall_figure
from harness_ext.report.strips import is_uneven, layer_sparsities, strips


@dataclass(frozen=True)
class Figures:
    """The figures of a report.

    Args:
        hero: the first figure of the page, for a wide and for a narrow window. Empty if there is no curve.
        tasks: one figure for each task that has an ability.
        unclassified: one figure for each other task.
        comparisons: comparisons of methods, models, and parts of the model.
        layers: sparsities of layers, for methods that give layers different sparsities.
        gaps: the reason for each figure that cannot be drawn.
    """

    hero: Sequence[Drawn]
    tasks: Sequence[Drawn]
    unclassified: Sequence[Drawn]
    comparisons: Sequence[Drawn]
    layers: Drawn | None = None
    gaps: Sequence[str] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        """Names of the figure files beside the page."""
        names = [*self.hero[:1], *self.comparisons, *([self.layers] if self.layers else [])]
        return [f"{figure.name}.{ending}" for figure in names for ending in ("svg", "png")]


def figures(analysis: Analysis, axis: Axis, drops: Sequence[float], main: float, label: str | None, folder: Path) -> Figures:
    """Draws all figures that the results allow.

    Args:
        drops: shares of the dense score that count as lost.
        main: the drop of the first figure.
        label: label of the method in the headline.
        folder: folder of the files.
    """
    compared, gaps = comparisons(analysis, axis, drops, folder)
    compared += [difficult] if (difficult := difficulty_figure(analysis, folder)) else []
    compared += [recall] if (recall := recall_figure(analysis, folder)) else []
    compared += [perplexity] if (perplexity := perplexity_figure(analysis, folder)) else []
    gaps += not_drawn(analysis)
    first = hero(analysis, axis, main, label, folder) if analysis.curves else []
    if not first:
        gaps.insert(0, "no figure of ability curves: there is no curve")
    if analysis.series and not any(layer_sparsities(trial) for series in analysis.series for trial in series.trials):
        gaps.append("no sparsity per layer: no pruning record has layers")
    uneven_series = [series for series in analysis.series if is_uneven(series)]
    named = list(dict.fromkeys(analysis.abilities.values()))
    tasks, others = multiples(analysis, axis, named), multiples(analysis, axis, [None])
    return Figures(first, tasks, others, compared, strips(uneven_series, folder) if uneven_series else None, gaps)
