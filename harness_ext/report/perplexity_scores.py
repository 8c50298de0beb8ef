"""The table and the figure of perplexities. They are no shares of right answers, and count in no ability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from harness_ext.report.analysis import Analysis
from harness_ext.report.drawing import Drawn, Hover, draw, legend, panels, style
from harness_ext.report.perplexities import Key
from harness_ext.report.series import Series, dense_trials
from harness_ext.report.trials import LoadedTrial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME, TITLE = "perplexity", "Perplexity"
Row = dict[str, Any]


def perplexity_rows(analysis: Analysis) -> list[Row]:
    """One row for each trial and text that has a perplexity. It is compared with the dense model's of the same tokens."""
    labels, dense = analysis.labels, dense_trials(analysis.trials)
    rows = []
    for trial in analysis.trials:
        for key, found in trial.perplexities.items():
            before = dense[trial.dense_digest].perplexities.get(key) if trial.dense_digest in dense else None
            rows.append({
                **trial.columns(labels.get(id(trial))), "task": key.task, "metric": key.metric, "text": found.text,
                "identity": " ".join(key.identity), "perplexity": found.value,
                "times_dense": found.value / before.value if before is not None and before.finite else None,
            })  # fmt: skip
    return rows


def not_drawn(analysis: Analysis) -> list[str]:
    """What is said of perplexities that are in the table and not in the figure."""
    gaps = [
        f"task {key.task!r}: not in the figure of perplexities, {key.metric} is {found.value:g} ({trial.name})"
        for trial in analysis.trials
        for key, found in trial.perplexities.items()
        if not found.finite
    ]
    drawn = {id(trial) for series in analysis.series for trial in series.trials}
    others = [trial for trial in analysis.trials if trial.perplexities and not trial.is_dense and id(trial) not in drawn]
    if others:
        names = ", ".join(dict.fromkeys(trial.name for trial in others))
        gaps.append(f"not in the figure of perplexities, which is over sparsities, and in its table: {names}")
    return gaps


def perplexity_figure(analysis: Analysis, folder: Path) -> Drawn | None:
    """One panel for each text, one line for each method; None where no pruned model has a finite perplexity."""
    lines: dict[Key, dict[str, dict[float, float]]] = {}
    for series in analysis.series:
        for key in dict.fromkeys(key for trial in series.trials for key in trial.perplexities):
            points = _line(series, key)
            if any(math.isfinite(value) for sparsity, value in points.items() if sparsity > 0):
                lines.setdefault(key, {})[series.label] = points
    if not lines:
        return None
    order = [series.label for series in analysis.series]
    texts = {key: found.text for trial in analysis.trials for key, found in trial.perplexities.items()}

    def make(hover: Hover) -> Figure:
        figure, axes = panels(len(lines), columns=2, width=4.6 if len(lines) > 1 else 6.4, height=3.4)
        for panel, (key, by_label) in zip(axes, lines.items(), strict=True):
            for label, points in by_label.items():
                panel.plot(list(points), list(points.values()), label=label, **style(order.index(label)))
                shown = {at: value for at, value in points.items() if math.isfinite(value)}
                hover.points(panel, list(shown), list(shown.values()), [f"{label} at {at:g}: {value:.1f}" for at, value in shown.items()])
            panel.set_yscale("log")
            same_name = [other for other in lines if texts[other] == texts[key]]
            number = f" ({same_name.index(key) + 1} of {len(same_name)})" if len(same_name) > 1 else ""
            panel.set_title(f"{texts[key][-60:]}{number}", fontsize=9, parse_math=False)
            panel.set_xlabel("sparsity")
            panel.set_ylabel(key.metric.replace("_", " "))
        legend(figure, axes)
        return figure

    summary = "; ".join(f"{label}, {texts[key]}: {_ends(points)}" for key, by_label in lines.items() for label, points in by_label.items())
    return draw(
        folder, NAME, TITLE,
        "The perplexity of a text, on a logarithmic scale: how many tokens (or words) the model hesitates between, on average. Means over "
        "calibration seeds, without intervals; a line ends where one of them is infinite. It is no ability: models of one perplexity may "
        "differ in what they recall.",
        f"Line charts of perplexity against sparsity. {summary}.", make,
    )  # fmt: skip


def _line(series: Series, key: Key) -> dict[float, float]:
    """The perplexities by sparsity, with the dense model at 0: the mean over calibration seeds, NaN where one is not finite."""
    by_sparsity: Mapping[float, list[LoadedTrial]] = ({0.0: [series.dense]} if series.dense else {}) | {
        sparsity: list(by_seed.values()) for sparsity, by_seed in sorted(series.points.items())
    }
    found = {
        sparsity: [trial.perplexities[key] for trial in trials if key in trial.perplexities] for sparsity, trials in by_sparsity.items()
    }
    return {sparsity: fmean(one.value for one in of) if all(one.finite for one in of) else math.nan for sparsity, of in found.items() if of}


def _ends(points: Mapping[float, float]) -> str:
    finite = {at: value for at, value in points.items() if math.isfinite(value)}
    (first, before), (last, after) = min(finite.items()), max(finite.items())
    return f"{before:.1f} at {first:g} to {after:.1f} at {last:g}"
