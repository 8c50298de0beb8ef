"""Small figures, one for each task: the score as lm-eval prints it, for all methods."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness_ext.report.analysis import Analysis
from harness_ext.report.axis import SPARSITY, Axis
from harness_ext.report.drawing import GLYPHS, Drawn, Hover, draw, marker, style
from harness_ext.report.series import Series
from harness_ext.report.words import name_of, tasks_by_ability

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def multiples(analysis: Analysis, axis: Axis, abilities: Sequence[str | None]) -> list[Drawn]:
    """One figure for each task of these abilities. None stands for tasks without an ability. All figures have the same axes."""
    ends = _ends(analysis, axis)
    drawn = []
    for ability, tasks in tasks_by_ability(analysis).items():
        for task in tasks if ability in abilities else []:
            name = f"task-{re.sub(r'[^A-Za-z0-9_-]', '-', task)}"
            alt = f"The score of {task} against {axis.label}, one line for each method. The table of scores has its values."
            make = functools.partial(_figure, analysis, axis, task, ends)
            drawn.append(draw(None, name, task, "" if ability is None else name_of(ability), alt, make))
    return drawn


def keys(analysis: Analysis, axis: Axis) -> list[tuple[str, str, str]]:
    """Colour, marker (as a character) and name of each method."""
    return [(str(style(number)["color"]), GLYPHS[marker(number)], series.label) for number, series in enumerate(_shown(analysis, axis))]


def _shown(analysis: Analysis, axis: Axis) -> list[Series]:
    """The methods with a line. Bits have no place on an axis of sparsities."""
    return analysis.series if axis is SPARSITY else analysis.every_series


def scores(series: Series, task: str) -> Mapping[float, list[float]]:
    """The scores of a task for all calibration seeds, by sparsity. Sparsity 0 is the dense model."""
    scores_by_sparsity = {0.0: [series.dense.tasks[task].value]} if series.dense and task in series.dense.tasks else {}
    for sparsity, by_seed in sorted(series.points.items()):
        if values := [trial.tasks[task].value for trial in by_seed.values() if task in trial.tasks]:
            scores_by_sparsity[sparsity] = values
    return scores_by_sparsity


def _at(series: Series, place: float) -> str:
    """The sparsity or the bits of a point, for its text."""
    if series.quantised:
        return f"with {place:g} bits" if place else "nothing removed"
    return f"at sparsity {place:g}"


def _ends(analysis: Analysis, axis: Axis) -> tuple[float, float]:
    """The ends of the horizontal axis, the same for all tasks."""
    shown = _shown(analysis, axis)
    places = [axis.place(series, point) for series in shown for point in [*([0.0] if series.dense else []), *series.points]]
    if axis is not SPARSITY:
        places += [axis.of(trial) for trial in analysis.trials if trial.is_dense]
        return min(places) / 1.15, max(places) * 1.15
    most = max(places, default=1.0)
    return -0.03 * most, 1.03 * most


def _figure(analysis: Analysis, axis: Axis, task: str, ends: tuple[float, float], hover: Hover) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.3, 2.3), layout="constrained")
    axes = figure.subplots()
    for number, series in enumerate(_shown(analysis, axis)):
        by_sparsity = scores(series, task)
        if not by_sparsity:
            continue
        x, y = axis.places(series, list(by_sparsity)), [float(np.mean(values)) for values in by_sparsity.values()]
        line = sorted(zip(x, y, strict=True)) if series.quantised else list(zip(x, y, strict=True))
        axes.plot(*zip(*line, strict=True), **style(number), linewidth=1.5)
        texts = [
            f"{series.label}, {task}: {mean:.4g} {_at(series, sparsity)}{f' (mean of {len(values)} seeds)' if len(values) > 1 else ''}"
            for (sparsity, values), mean in zip(by_sparsity.items(), y, strict=True)
        ]
        hover.points(axes, x, y, texts)
    dense = [trial for trial in analysis.trials if trial.is_dense and task in trial.tasks]
    if axis is not SPARSITY:
        x, y = [axis.of(trial) for trial in dense], [trial.tasks[task].value for trial in dense]
        axes.plot(x, y, linestyle="none", marker="*", markersize=10, color="black", zorder=4)
        hover.points(axes, x, y, [f"{trial.pretrained}, {task}: {trial.tasks[task].value:.4g}, nothing removed" for trial in dense])
        axis.scale(axes)
    elif not analysis.series and not analysis.quantised:
        hover.points(axes, [0.0] * len(dense), [trial.tasks[task].value for trial in dense], [trial.pretrained for trial in dense])
    axes.axhline(
        next(trial.tasks[task].chance for trial in analysis.trials if task in trial.tasks), color="#555555", linewidth=1, linestyle="--"
    )
    axes.set(xlim=ends, ylim=(-0.03, 1.03))
    axes.tick_params(labelsize=9)
    return figure
