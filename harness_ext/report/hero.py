"""The first figure of a page: the curves of all abilities and methods, and the critical sparsities below."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_ext.report.analysis import Analysis
from harness_ext.report.axis import SPARSITY, Axis
from harness_ext.report.drawing import COLOURS, LINES, MARKERS, Drawn, Hover, band, draw, marker
from harness_ext.report.series import Series
from harness_ext.report.words import critical_of, name_of, of_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from harness_ext.statistics import AbilityCurve

NARROW, WIDE = 4.2, 7.4  # inches


def hero(analysis: Analysis, axis: Axis, drop: float, label: str | None, folder: Path) -> list[Drawn]:
    """The figure for a wide window, which is also written to files, and for a narrow window.

    Args:
        drop: the share of the dense score that counts as lost.
        label: label of the method in the headline. Its curves are drawn thickest.
    """
    drawn = [one for one in analysis.series if any(key[0] == one.label for key in analysis.curves)]
    axis_name = "sparsity" if axis is SPARSITY else "size"
    summary = "; ".join(f"{label}: {name_of(ability)} goes from {ends(curve)}" for (label, ability), curve in analysis.curves.items())
    caption = (
        f"Mean score above chance of the tasks of each ability: 1 is every item right, 0 is a guess. Below: where {100 * drop:g} % of the "
        "dense score is lost. Marks lie on a straight line between measured points, bars are 95 % intervals, and an arrow goes on beyond "
        f"what was measured. Bands are pointwise 95 % intervals.{_others(analysis, axis)}"
    )
    alt = f"Line chart of the score above chance against {axis_name}, with intervals of the critical sparsity below. {summary}."
    title = f"Abilities against {axis_name}"
    return [
        draw(folder, "abilities", title, caption, alt, lambda hover: _figure(analysis, axis, drop, label, drawn, WIDE, hover)),
        draw(None, "abilities-narrow", title, caption, alt, lambda _: _figure(analysis, axis, drop, label, drawn, NARROW, Hover(off=True))),
    ]


def _others(analysis: Analysis, axis: Axis) -> str:
    if axis is SPARSITY or not analysis.equal_parameters.dense:
        return ""
    return " Stars are models from which nothing was removed, on the tasks that all of them have."


def ends(curve: AbilityCurve) -> str:
    """The first and the last score of a curve, in words."""
    first, last = curve.scores[0].value, curve.scores[-1].value
    return f"{first:.2f} dense to {last:.2f} at a sparsity of {curve.sparsities[-1]:.2f}"


def _figure(analysis: Analysis, axis: Axis, drop: float, label: str | None, drawn: list[Series], width: float, hover: Hover) -> Figure:
    from matplotlib.figure import Figure

    narrow = width < WIDE
    rows = [one for one in drawn if critical_of(analysis, one, drop)]
    strip = 0.35 + (0.3 if len(rows) < 5 else 0.22) * len(rows)
    figure = Figure(figsize=(width, 3.3 + strip + (0.5 if narrow else 0)), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.0, strip])
    for one in drawn:
        for ability in of_curves(analysis):
            if (one.label, ability) in analysis.curves:
                _curve(upper, analysis, axis, one, ability, one.label == label, len(drawn), hover)
    if axis is not SPARSITY:
        _points(upper, analysis, axis, hover)
        axis.scale(upper)
    upper.set_ylabel("score above chance")
    upper.set_ylim(bottom=min(-0.02, upper.get_ylim()[0]), top=1.04)
    upper.axhline(0, color="#555555", linewidth=0.8)
    _strip(lower, analysis, axis, rows, drop, hover)
    for one in [one for one in rows if one.label == label]:
        for critical in critical_of(analysis, one, drop).values():
            for at in axis.places(one, [critical.sparsity] if critical.sparsity is not None else []):
                for panel in (upper, lower):
                    panel.axvline(at, color="#555555", linewidth=1, linestyle=":")
    lower.set_xlabel(axis.label)
    _keys(figure, analysis, drawn, label, axis, 1 if narrow else 3)
    return figure


def _colour(analysis: Analysis, ability: str) -> str:
    return COLOURS[of_curves(analysis).index(ability) % len(COLOURS)]


def _look(analysis: Analysis, ability: str, number: int) -> dict[str, Any]:
    """Colour and line style show the ability, and the marker shows the method."""
    place = of_curves(analysis).index(ability) % len(COLOURS)
    return {"color": COLOURS[place], "linestyle": LINES[place], "marker": MARKERS[marker(number)]}


def _curve(axes: Axes, analysis: Analysis, axis: Axis, series: Series, ability: str, first: bool, methods: int, hover: Hover) -> None:
    curve = analysis.curves[series.label, ability]
    x, y = axis.places(series, curve.sparsities), [score.value for score in curve.scores]
    look = _look(analysis, ability, analysis.series.index(series))
    if first or methods == 1:
        band(axes, curve, x, look["color"])
    axes.plot(x, y, **look, linewidth=2.2 if first else 1.0, markersize=5.5 if first else 4.0, alpha=1.0 if first or methods < 4 else 0.55)
    texts = [
        f"{series.label}, {name_of(ability)}: {score.value:.4g}"
        f"{'' if score.low is None or score.high is None else f' ({score.low:.4g} to {score.high:.4g})'} at sparsity {sparsity:g}"
        for sparsity, score in zip(curve.sparsities, curve.scores, strict=True)
    ]
    hover.points(axes, x, y, texts)


def _points(axes: Axes, analysis: Analysis, axis: Axis, hover: Hover) -> None:
    """Draws the dense models as stars, with their names."""
    trials = {trial.pretrained: trial for trial in analysis.trials if trial.is_dense}
    for ability in of_curves(analysis):
        sized_scores = [entry for entry in analysis.equal_parameters.dense if entry.ability == ability]
        if not sized_scores:
            continue
        x, y = [axis.of(trials[entry.pretrained]) for entry in sized_scores], [entry.score for entry in sized_scores]
        axes.plot(x, y, linestyle="none", marker="*", markersize=12, color=_colour(analysis, ability), markeredgecolor="#000000", zorder=4)
        texts = [
            f"{entry.pretrained}, nothing removed, {name_of(ability)}: {entry.score:.4g} at {at:.4g}"
            for entry, at in zip(sized_scores, x, strict=True)
        ]
        hover.points(axes, x, y, texts)
    dense_scores = analysis.equal_parameters.dense
    names = {entry.pretrained for entry in dense_scores}
    before, line = 0.0, 0
    for name in sorted(names, key=lambda name: axis.of(trials[name])):
        at, low = axis.of(trials[name]), min(entry.score for entry in dense_scores if entry.pretrained == name)
        short = textwrap.shorten(name.rsplit("/", 1)[-1], 28, placeholder=" ...")
        line, before = (line + 1 if at < 1.3 * before else 0), at  # stack the names of models of similar size
        place: dict[str, Any] = {"xytext": (0, -9 - 9 * line), "textcoords": "offset points", "ha": "center", "va": "top"}
        axes.annotate(short, (at, low), fontsize=7, color="#555555", **place).set_in_layout(False)


def _strip(axes: Axes, analysis: Analysis, axis: Axis, rows: list[Series], drop: float, hover: Hover) -> None:
    for place, series in enumerate(rows):
        criticals = critical_of(analysis, series, drop)
        for index, (ability, critical) in enumerate(criticals.items()):
            y = place + 0.5 * ((index + 0.5) / len(criticals) - 0.5)
            value = critical.last if critical.sparsity is None else critical.sparsity
            end = critical.last if critical.high is None else critical.high
            low, at, high = axis.places(series, [critical.low, value, end])
            colour = _colour(analysis, ability)
            line = _look(analysis, ability, 0)["linestyle"]
            axes.plot(
                [low, high], [y, y], color=colour, linestyle=line, linewidth=3.2, alpha=0.5, solid_capstyle="butt", dash_capstyle="butt"
            )
            axes.plot([low, high], [y, y], color=colour, linestyle="none", marker="|", markersize=7)
            if critical.high is None:
                axes.plot([high], [y], color=colour, marker=">" if axis is SPARSITY else "<", markersize=6, linestyle="none")
            if critical.sparsity is not None:
                axes.plot([at], [y], color=colour, marker=MARKERS[marker(analysis.series.index(series))], markersize=5, linestyle="none")
            hover.points(axes, [at], [y], [f"{series.label}: {name_of(ability)} {critical.phrase()}"])
    axes.set_yticks(range(len(rows)), [textwrap.shorten(series.label, 32, placeholder=" ...") for series in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_title(f"{100 * drop:g} % lost at", fontsize=9, loc="left")
    axes.grid(visible=False, axis="y")


def _keys(figure: Figure, analysis: Analysis, drawn: list[Series], label: str | None, axis: Axis, columns: int) -> None:
    """Adds the legend of colours, lines and markers."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linewidth=2.2, label=name_of(ability), **{**_look(analysis, ability, 0), "marker": None})
        for ability in of_curves(analysis)
    ]
    if len(drawn) > 1:
        handles += [
            Line2D([], [], color="#555555", marker=MARKERS[marker(analysis.series.index(series))], linestyle="none", label=series.label)
            for series in drawn
        ]
    if axis is not SPARSITY and analysis.equal_parameters.dense:
        handles.append(Line2D([], [], color="#555555", marker="*", markersize=10, linestyle="none", label="nothing removed"))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, fontsize=9)
