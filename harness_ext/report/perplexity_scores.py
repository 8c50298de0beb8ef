"""The table and the figure of perplexities. They are no shares of right answers, and count in no ability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from harness_ext.report.analysis import Analysis
from harness_ext.report.drawing import Drawn, Hover, draw, legend, panels, style
from harness_ext.report.perplexities import Perplexity
from harness_ext.report.series import Series, dense_trials
from harness_ext.report.trials import LoadedTrial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME, TITLE = "perplexity", "Perplexity"
Row = dict[str, Any]
Place = tuple[str, str, str]  # task, metric and text


def perplexity_rows(analysis: Analysis) -> list[Row]:
    """One row for each trial and task that has a perplexity. It is compared with the dense model's of the same text."""
    labels, dense = analysis.labels, dense_trials(analysis.trials)
    rows = []
    for trial in analysis.trials:
        for task, found in trial.perplexities.items():
            before = dense[trial.dense_digest].perplexities.get(task) if trial.dense_digest in dense else None
            comparable = before is not None and _place(task, before) == _place(task, found) and math.isfinite(before.value)
            rows.append({
                **trial.columns(labels.get(id(trial))), "task": task, "metric": found.metric, "text": found.text, "perplexity": found.value,
                "times_dense": found.value / before.value if before is not None and comparable else None,
            })  # fmt: skip
    return rows


def not_finite(analysis: Analysis) -> list[str]:
    """What is said of perplexities that are infinite or NaN: they are in the table and not in the figure."""
    return [
        f"task {task!r}: not in the figure of perplexities, {found.metric} is {found.value} ({trial.name})"
        for trial in analysis.trials
        for task, found in trial.perplexities.items()
        if not math.isfinite(found.value)
    ]


def perplexity_figure(analysis: Analysis, folder: Path) -> Drawn | None:
    """One panel for each text, one line for each method; None where no pruned model has a finite perplexity."""
    lines: dict[Place, dict[str, dict[float, float]]] = {}
    for series in analysis.series:
        for place in dict.fromkeys(_place(task, found) for trial in series.trials for task, found in trial.perplexities.items()):
            if points := _line(series, place):
                lines.setdefault(place, {})[series.label] = points
    if not lines:
        return None
    order = [series.label for series in analysis.series]

    def make(hover: Hover) -> Figure:
        figure, axes = panels(len(lines), columns=2, width=4.6 if len(lines) > 1 else 6.4, height=3.4)
        for panel, ((task, metric, text), by_label) in zip(axes, lines.items(), strict=True):
            for label, points in by_label.items():
                x, y = list(points), list(points.values())
                panel.plot(x, y, label=label, **style(order.index(label)))
                hover.points(panel, x, y, [f"{label} at {at:g}: {value:.1f}" for at, value in points.items()])
            panel.set_yscale("log")
            panel.set_title(text if len(text) < 80 else task, fontsize=9)
            panel.set_xlabel("sparsity")
            panel.set_ylabel(metric.replace("_", " "))
        legend(figure, axes)
        return figure

    summary = "; ".join(
        f"{label}, {task}: {_ends(points)}" for (task, _, _), by_label in lines.items() for label, points in by_label.items()
    )
    return draw(
        folder, NAME, TITLE,
        "The perplexity of a text, on a logarithmic scale: how many tokens (or words) the model hesitates between, on average. Means over "
        "calibration seeds, without intervals. It is no ability: models of one perplexity may differ in what they recall.",
        f"Line charts of perplexity against sparsity. {summary}.", make,
    )  # fmt: skip


def _place(task: str, found: Perplexity) -> Place:
    return task, found.metric, found.text


def _line(series: Series, place: Place) -> dict[float, float]:
    """The finite perplexities by sparsity, with the dense model at 0: the mean over calibration seeds."""
    by_sparsity: Mapping[float, list[LoadedTrial]] = ({0.0: [series.dense]} if series.dense else {}) | {
        sparsity: list(by_seed.values()) for sparsity, by_seed in sorted(series.points.items())
    }
    values = {
        sparsity: [found.value for trial in trials if (found := trial.perplexities.get(place[0])) and _place(place[0], found) == place]
        for sparsity, trials in by_sparsity.items()
    }
    return {sparsity: fmean(of) for sparsity, of in values.items() if of and all(map(math.isfinite, of))}


def _ends(points: Mapping[float, float]) -> str:
    (first, before), (last, after) = min(points.items()), max(points.items())
    return f"{before:.1f} at {first:g} to {after:.1f} at {last:g}"
