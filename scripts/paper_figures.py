"""The figures of docs/results.md. Markers, lines and hatches say the same as the colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lab_settings import SIZES
from paper_family import decoder_weights
from paper_scores import ABILITIES, Cell, MissingError, Scores, measure, of

from harness_ext.extras import require_extra
from harness_ext.report.drawing import COLOURS, HATCHES, STYLE, legend, panels, style
from harness_ext.statistics import StatisticsError, ability_critical, ability_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = ("recall", "reading", "override", "lookup", "functions")


def curve(axes: Axes, scores: Scores, cell: Cell, ability: str, look: dict[str, Any], label: str) -> None:
    """The chance-corrected score against the sparsity, with its band."""
    try:
        found = ability_curve(scores.curves(cell, ABILITIES[ability]), corrected=True)
    except (MissingError, StatisticsError):
        return
    low = [np.nan if score.low is None else score.low for score in found.scores]
    high = [np.nan if score.high is None else score.high for score in found.scores]
    axes.fill_between(found.sparsities, low, high, color=look["color"], alpha=0.15, linewidth=0)
    axes.plot(found.sparsities, [score.value for score in found.scores], label=label, **look)


def named(axes: Axes, title: str) -> None:
    axes.set(title=title, xlabel="sparsity of the pruned layers", ylim=(-0.08, 1.05))
    axes.axhline(0, color="#555555", linewidth=0.8)


def abilities(scores: Scores) -> Figure:
    figure, axes = panels(3, sharey=True)
    for one, pruner in zip(axes, ("sparsegpt", "wanda", "magnitude"), strict=True):
        for index, name in enumerate(SHOWN):
            curve(one, scores, Cell(pruner=pruner), name, style(index), name)
        named(one, pruner)
    axes[0].set_ylabel("score corrected for chance")
    legend(figure, axes, 5)
    return figure


def critical(scores: Scores) -> Figure:
    figure, axes = panels(3, sharey=True)
    for one, pruner in zip(axes, ("sparsegpt", "wanda", "magnitude"), strict=True):
        for place, name in enumerate(SHOWN):
            try:
                found = ability_critical(scores.curves(Cell(pruner=pruner), ABILITIES[name]), drop=0.05, corrected=True)
            except (MissingError, StatisticsError):
                continue
            value = found.last if found.sparsity is None else found.sparsity
            high = 1.0 if found.high is None else found.high
            one.barh(place, value, color=COLOURS[place], hatch=HATCHES[place], edgecolor="black", linewidth=0.8, alpha=0.75)
            one.plot([found.low, high], [place, place], color="black", marker="|", markersize=9)
        one.set(title=pruner, xlabel="critical sparsity, 5 % drop", xlim=(0, 1), yticks=range(len(SHOWN)), yticklabels=SHOWN)
        one.invert_yaxis()
    return figure


def modules(scores: Scores) -> Figure:
    """Against the sparsity within the kind, and against the share of all the decoder's weights (attention a third, FFN two)."""
    figure, axes = panels(2, columns=2, sharey=True)
    share = {"attention": 1 / 3, "ffn": 2 / 3}
    for index, (kind, ability) in enumerate((k, a) for k in share for a in ("recall", "in-context")):
        cell = Cell(pruner="sparsegpt", modules=kind)
        ratios = [0.0, *scores.ratios(cell)]
        try:
            found = [measure(scores, [of(ability, cell.at(ratio))], lambda m: m[:, 0], corrected=True) for ratio in ratios]
        except MissingError:
            continue
        values = [one.value for one in found]
        errors = np.array([[max(one.value - (one.low or 0.0), 0.0), max((one.high or 0.0) - one.value, 0.0)] for one in found]).T
        for one, scale in zip(axes, (1.0, share[kind]), strict=True):
            one.errorbar([scale * ratio for ratio in ratios], values, errors, capsize=2, label=f"{kind} pruned: {ability}", **style(index))
    named(axes[0], "as sparse")
    named(axes[1], "as many weights removed")
    axes[1].set_xlabel("share of the decoder's weights removed")
    axes[0].set_ylabel("score corrected for chance")
    legend(figure, axes, 2)
    return figure


def ladder(scores: Scores) -> Figure:
    """Dense and pruned models by weights left in the decoder."""
    figure, axes = panels(len(SHOWN), sharey=True)
    for one, name in zip(axes, SHOWN, strict=True):
        points = {"dense": [], "lab-m pruned with sparsegpt": []}  # type: dict[str, list[tuple[float, float]]]
        for model, weights in DECODER.items():
            if (Cell(model), ABILITIES[name][0]) in scores.values:
                points["dense"].append((weights, scores.mean(Cell(model), name)))
        cells = {cell for cell, _ in scores.values if cell == Cell(pruner="sparsegpt").at(cell.ratio)}
        for cell in sorted(cells, key=lambda cell: cell.ratio):
            points["lab-m pruned with sparsegpt"].append((DECODER["lab-m"] * (1 - cell.ratio), scores.mean(cell, name)))
        for index, (label, found) in enumerate(points.items()):
            if found:
                one.plot(*zip(*sorted(found), strict=True), label=label, **style(index))
        named(one, name)
        one.set(xscale="log", xlabel="weights left in the decoder")
        one.set_xticks([1e5, 2e5, 4e5, 8e5], ["0.1 M", "0.2 M", "0.4 M", "0.8 M"])
        one.set_xticks([], minor=True)
    axes[0].set_ylabel("score corrected for chance")
    legend(figure, axes, 2)
    return figure


def calibration(scores: Scores) -> Figure:
    figure, axes = panels(len(SHOWN), sharey=True)
    for one, name in zip(axes, SHOWN, strict=True):
        for index, source in enumerate(("self", "facts", "functions")):
            curve(one, scores, Cell(pruner="sparsegpt", source=source), name, style(index), f"calibrated on {source}")
        named(one, name)
    axes[0].set_ylabel("score corrected for chance")
    legend(figure, axes, 3)
    return figure


def bits(measured: dict[str, Any]) -> Figure:
    """Recall and in-context ability against the bits of the whole model, a line for each way of making it smaller; points have names."""
    from paper_bits import DRAWN

    figure, axes = panels(2, columns=2, width=4.8, height=3.6, sharey=True)
    for one, ability in zip(axes, ("recall", "in-context"), strict=True):
        for index, line in enumerate(DRAWN):
            rows = [row for row in measured["rows"] if row["line"] == line]
            if not rows:
                continue
            look = style(index) | ({"linestyle": "none", "markersize": 7} if line.startswith(("dense", "smaller")) else {})
            scores = [row["scores"][ability] for row in rows]
            errors = [score.half_width or 0.0 for score in scores]
            places = [row["bits"] / 1e6 for row in rows]
            one.errorbar(places, [score.mean for score in scores], errors, capsize=2, label=line, **look)
            if look["linestyle"] == "none":  # no line says which model a point is
                for row, place, score in zip(rows, places, scores, strict=True):
                    at, name = (place, score.mean), row["size"].removeprefix("lab-")
                    one.annotate(name, at, (4, -11), textcoords="offset points", color=look["color"], fontsize=8)
        named(one, ability)
        one.set(xscale="log", xlabel="millions of bits of the whole model")
        ticks = [4, 6, 8, 12, 18]
        one.set_xticks(ticks, [str(tick) for tick in ticks])
        one.set_xticks([], minor=True)
    axes[0].set_ylabel("score corrected for chance")
    legend(figure, axes, 2)
    return figure


DECODER = {size: decoder_weights(size) for size in SIZES}
FIGURES: dict[str, Callable[[Scores], Figure]] = {
    "abilities": abilities,
    "critical": critical,
    "modules": modules,
    "ladder": ladder,
    "calibration": calibration,
}


def save(make: Callable[..., Figure], figures_of: Any, path: Path) -> None:
    """Draws one figure in the style of the reports."""
    require_extra("report", "the figures")
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        make(figures_of).savefig(path, dpi=110, metadata={"Software": None})


def write(scores: Scores, folder: Path) -> list[str]:
    """Writes ``results_NAME.png`` for every figure."""
    for name, make in FIGURES.items():
        save(make, scores, folder / f"results_{name}.png")
    return [f"results_{name}.png" for name in FIGURES]
