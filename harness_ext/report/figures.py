"""The figures of a report, by their place on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness_ext.report.analysis import Analysis
from harness_ext.report.axis import Axis
from harness_ext.report.comparisons import comparisons
from harness_ext.report.drawing import Drawn
from harness_ext.report.hero import hero
from harness_ext.report.multiples import multiples
from harness_ext.report.strips import is_uneven, layer_sparsities, strips


@dataclass(frozen=True)
class Figures:
    """What was drawn.

    Args:
        hero: the first figure, for a wide and for a narrow window; empty if there is no curve.
        tasks: one for each task of an ability, and ``unclassified``, one for each other task.
        comparisons: of methods, models and parts.
        layers: of methods whose layers differ in sparsity.
        gaps: for each figure that there is not, why.
    """

    hero: Sequence[Drawn]
    tasks: Sequence[Drawn]
    unclassified: Sequence[Drawn]
    comparisons: Sequence[Drawn]
    layers: Drawn | None = None
    gaps: Sequence[str] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        """The files of the figures that are written beside the page."""
        names = [*self.hero[:1], *self.comparisons, *([self.layers] if self.layers else [])]
        return [f"{one.name}.{ending}" for one in names for ending in ("svg", "png")]


def figures(done: Analysis, axis: Axis, drops: Sequence[float], main: float, label: str | None, folder: Path) -> Figures:
    """Draws what can be drawn.

    Args:
        drops: shares of the dense score that count as lost, and ``main``, the one of the first figure.
        label: of the method that the headline is about.
    """
    compared, gaps = comparisons(done, axis, drops, folder)
    first = hero(done, axis, main, label, folder) if done.curves else []
    if not first:
        gaps.insert(0, "no figure of ability curves: there is no curve")
    if done.series and not any(layer_sparsities(trial) for one in done.series for trial in one.trials):
        gaps.append("no sparsity per layer: no pruning record has layers")
    uneven = [one for one in done.series if is_uneven(one)]
    named = list(dict.fromkeys(done.abilities.values()))
    tasks, others = multiples(done, axis, named), multiples(done, axis, [None])
    return Figures(first, tasks, others, compared, strips(uneven, folder) if uneven else None, gaps)
