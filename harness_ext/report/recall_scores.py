"""What recall means in a model: whether it writes an answer, recognises it among others, or ranks it high among all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness_ext.report.analysis import Analysis
from harness_ext.report.drawing import Drawn, Hover, draw, legend, panels, style
from harness_ext.report.series import Series
from harness_ext.report.trials import LoadedTrial, TaskScore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME, TITLE = "recall", "What is lost of recall"
LINES = {
    "exact_match": "exact: writes the answer",
    "acc": "recognition among the choices",
    "recall_at_5": "recall@5",
    "recall_at_10": "recall@10",
}
"""The scores of the figure and what they are called."""
Row = dict[str, Any]


def recall_rows(analysis: Analysis) -> list[Row]:
    """One row for each trial and task that has ranks of the right answer."""
    labels = analysis.labels
    return [
        {
            **trial.columns(labels.get(id(trial))), "task": task, "items": score.count,
            "exact": score.recall.get("exact_match"), "recognition": score.recall.get("acc"), "recognition_chance": _guess(score),
            **{name: score.recall.get(name) for name in ("recall_at_1", "recall_at_5", "recall_at_10", "median_rank")},
            "exact_helped": score.recall.get("exact_match_helped"), "recovered": score.recall.get("recovered"),
            "lost": score.recall.get("lost"),
        }
        for trial in analysis.trials
        for task, score in trial.tasks.items()
        if score.recall
    ]  # fmt: skip


def recall_figure(analysis: Analysis, folder: Path) -> Drawn | None:
    """One panel for each method and task; None without such tasks."""
    shown = [
        (series, task)
        for series in analysis.every_series
        for task in dict.fromkeys(task for trial in series.trials for task, score in trial.tasks.items() if score.recall)
    ]
    if not shown:
        return None
    lines = {(series.label, task): _lines(series, task) for series, task in shown}

    def make(hover: Hover) -> Figure:
        figure, axes = panels(len(shown), columns=2, width=4.6 if len(shown) > 1 else 6.4, height=3.4, sharey=True)
        for panel, (series, task) in zip(axes, shown, strict=True):
            for index, (name, points) in enumerate(lines[series.label, task].items()):
                x, y = list(points), list(points.values())
                panel.plot(x, y, label=LINES[name], **style(index))
                hover.points(panel, x, y, [f"{LINES[name]} at {place:g}: {value:.3f}" for place, value in points.items()])
            chances = [chance for trial in series.trials if task in trial.tasks and (chance := _guess(trial.tasks[task]))]
            if chances:
                panel.axhline(chances[0], color="#555555", linewidth=0.8, linestyle=":", label="recognition by guessing")
            panel.set_ylim(-0.02, 1.02)
            panel.set_title(f"{series.label}: {task}", fontsize=10)
            panel.set_xlabel("bits of a quantised weight" if series.quantised else "sparsity")
            panel.set_ylabel("share of facts")
            panel.tick_params(labelbottom=True, labelleft=True)
        legend(figure, axes)
        return figure

    summary = "; ".join(
        f"{label}, {task}: " + ", ".join(f"{LINES[name]} from {_ends(points)}" for name, points in by_name.items())
        for (label, task), by_name in lines.items()
    )
    return draw(
        folder, NAME, TITLE,
        "The same facts, asked in one way and scored in several: whether the model writes the answer, whether the right answer is the "
        "likeliest of the choices, and whether it is among the 5 or 10 likeliest of all answers of its relation. Means over calibration "
        "seeds, not corrected for chance; points have no intervals. Where exact recall falls and the other lines stay up, the model has "
        "lost the access to facts that it still stores. Where recognition falls to the dotted line, the facts themselves are lost.",
        f"Line charts of exact recall, recognition and recall@k. {summary}.", make,
    )  # fmt: skip


def _lines(series: Series, task: str) -> dict[str, dict[float, float]]:
    """Each score by sparsity, or by bits: the mean over seeds. The dense model is at 0; it has no place among bits."""
    dense = [series.dense] if series.dense and not series.quantised else []
    by_place: dict[float, list[LoadedTrial]] = ({0.0: dense} if dense else {}) | {
        place: list(by_seed.values()) for place, by_seed in sorted(series.points.items())
    }
    found: dict[str, dict[float, float]] = {}
    for name in LINES:
        for place, trials in by_place.items():
            if values := [value for trial in trials if (value := _scores(trial, task).get(name)) is not None]:
                found.setdefault(name, {})[place] = float(np.mean(values))
    return found


def _scores(trial: LoadedTrial, task: str) -> Mapping[str, float]:
    return trial.tasks[task].recall if task in trial.tasks else {}


def _guess(score: TaskScore) -> float | None:
    """The chance of recognition among the choices; None if it is unknown."""
    return score.chance if score.metric == "acc" and score.chance_declared else None


def _ends(points: Mapping[float, float]) -> str:
    (first, before), (last, after) = min(points.items()), max(points.items())
    return f"{before:.2f} at {first:g} to {after:.2f} at {last:g}"
