"""Small figures, one for each task: the score as lm-eval prints it, under all methods."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness_ext.report.analysis import Analysis
from harness_ext.report.axis import SPARSITY, Axis
from harness_ext.report.drawing import GLYPHS, Drawn, Hover, marker, sketch, style
from harness_ext.report.series import Series
from harness_ext.report.words import name_of, tasks_by_ability

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def multiples(done: Analysis, axis: Axis, abilities: Sequence[str | None]) -> list[Drawn]:
    """A figure for each task of these abilities, None for tasks of no ability. All have the same axes."""
    ends = _ends(done, axis)
    found = []
    for ability, tasks in tasks_by_ability(done).items():
        for task in tasks if ability in abilities else []:
            name = f"task-{re.sub(r'[^A-Za-z0-9_-]', '-', task)}"
            alt = f"The score of {task} against {axis.label}, one line for each method. The table of scores has its values."
            make = functools.partial(_figure, done, axis, task, ends)
            found.append(sketch(name, task, "" if ability is None else name_of(ability), alt, make))
    return found


def keys(done: Analysis) -> list[tuple[str, str, str]]:
    """For each method: its colour, its marker as a letter, its name."""
    return [(str(style(number)["color"]), GLYPHS[marker(number)], one.label) for number, one in enumerate(done.series)]


def scores(series: Series, task: str) -> Mapping[float, list[float]]:
    """The scores of a task by sparsity, those of all calibration seeds; 0 is the dense model."""
    found = {0.0: [series.dense.tasks[task].value]} if series.dense and task in series.dense.tasks else {}
    for sparsity, by_seed in sorted(series.points.items()):
        if of := [trial.tasks[task].value for trial in by_seed.values() if task in trial.tasks]:
            found[sparsity] = of
    return found


def _ends(done: Analysis, axis: Axis) -> tuple[float, float]:
    """Of the horizontal axis, of all tasks together."""
    places = [axis.place(one, sparsity) for one in done.series for sparsity in [*([0.0] if one.dense else []), *one.points]]
    if axis is not SPARSITY:
        places += [axis.of(trial) for trial in done.trials if trial.is_dense]
        return min(places) / 1.15, max(places) * 1.15
    most = max(places, default=1.0)
    return -0.03 * most, 1.03 * most


def _figure(done: Analysis, axis: Axis, task: str, ends: tuple[float, float], hover: Hover) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.3, 2.3), layout="constrained")
    axes = figure.subplots()
    for number, one in enumerate(done.series):
        by_sparsity = scores(one, task)
        if not by_sparsity:
            continue
        x, y = axis.places(one, list(by_sparsity)), [float(np.mean(of)) for of in by_sparsity.values()]
        axes.plot(x, y, **style(number), linewidth=1.5)
        texts = [
            f"{one.label}, {task}: {mean:.4g} at sparsity {sparsity:g}{f' (mean of {len(of)} seeds)' if len(of) > 1 else ''}"
            for (sparsity, of), mean in zip(by_sparsity.items(), y, strict=True)
        ]
        hover.points(axes, x, y, texts)
    others = [trial for trial in done.trials if trial.is_dense and task in trial.tasks]
    if axis is not SPARSITY:
        x, y = [axis.of(trial) for trial in others], [trial.tasks[task].value for trial in others]
        axes.plot(x, y, linestyle="none", marker="*", markersize=10, color="black", zorder=4)
        hover.points(axes, x, y, [f"{trial.pretrained}, {task}: {trial.tasks[task].value:.4g}, nothing removed" for trial in others])
        axis.scale(axes)
    elif not done.series:
        hover.points(axes, [0.0] * len(others), [trial.tasks[task].value for trial in others], [trial.pretrained for trial in others])
    axes.axhline(
        next(trial.tasks[task].chance for trial in done.trials if task in trial.tasks), color="#555555", linewidth=1, linestyle="--"
    )
    axes.set(xlim=ends, ylim=(-0.03, 1.03))
    axes.tick_params(labelsize=9)
    return figure
