"""Figures that compare: critical sparsities, models of other sizes, attention with FFN layers, and answers that flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_ext.report.abilities import ABILITIES
from harness_ext.report.analysis import Analysis
from harness_ext.report.axis import SPARSITY, Axis
from harness_ext.report.drawing import COLOURS, HATCHES, Drawn, Hover, band, draw, legend, panels, style
from harness_ext.report.equal_size import BITS, PARAMETERS, UNITS, EqualSize, SizedScore
from harness_ext.report.hero import ends
from harness_ext.report.series import Series
from harness_ext.report.words import name_of, of_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from harness_ext.statistics import AbilityCurve

# The mark of dense models.
STAR: dict[str, Any] = {"color": "black", "marker": "*", "markersize": 10, "linestyle": "none"}


def comparisons(analysis: Analysis, axis: Axis, drops: Sequence[float], folder: Path) -> tuple[list[Drawn], list[str]]:
    """Draws all figures that the results allow.

    Returns:
        The figures, and the reason for each figure that cannot be drawn.
    """
    drawn, gaps = [], []
    if analysis.critical:
        drawn.append(_critical(analysis, drops, folder))
    else:
        gaps.append("no figure of critical sparsities: there is none")
    if analysis.equal_parameters.scores and axis is SPARSITY:  # with another axis, the first figure shows the same
        title = "Smaller dense models beside pruned ones"
        drawn.append(_equal_size(analysis.equal_parameters, PARAMETERS, "ladder", title, "", STAR | {"linestyle": "-"}, folder))
    if analysis.equal_bits.scores:
        caption = (
            "Quantised layers count codes, scales and zero points, pruned layers the weights that are left and a mask of one bit "
            "for each weight. "
        )
        title = "Pruned, quantised and dense models at equal bits"
        drawn.append(_equal_size(analysis.equal_bits, BITS, "bits", title, caption, STAR, folder))
    if pairs := module_pairs(analysis):
        drawn.append(_modules(analysis, pairs, folder))
    else:
        gaps.append(
            "no figure of attention against FFN: no method was applied to both alone (modules attention and ffn) with a curve of each"
        )
    if flipped := flip_counts(analysis):
        drawn.append(_flips(flipped, {series.label for series in analysis.quantised}, folder))
    else:
        gaps.append("no figure of flips: there is no pair of per-sample records of 0/1 scores")
    return drawn, gaps


def _curve(axes: Axes, curve: AbilityCurve, index: int, label: str) -> None:
    look = style(index)
    band(axes, curve, curve.sparsities, look["color"])
    axes.plot(curve.sparsities, [score.value for score in curve.scores], label=label, **look)


def beside(index: int, count: int) -> float:
    """The offset of bar number ``index`` of ``count`` bars that share one place."""
    return 0.8 * ((index + 0.5) / count - 0.5)


def _named_axes(axes: Axes) -> None:
    axes.set_xlabel("sparsity of the pruned layers")
    axes.set_ylabel("score above chance")
    axes.tick_params(labelbottom=True, labelleft=True)
    axes.axhline(0, color="#555555", linewidth=0.8)


def _critical(analysis: Analysis, drops: Sequence[float], folder: Path) -> Drawn:
    labels = [series.label for series in analysis.series if any(key[0] == series.label for key in analysis.critical)]
    last = max(found.last for found in analysis.critical.values())
    abilities = of_curves(analysis)

    def make(hover: Hover) -> Figure:
        figure, axes = panels(len(drops), sharey=True, height=1.0 + 0.55 * len(labels))
        for panel, drop in zip(axes, drops, strict=True):
            panel.set_title(f"{100 * drop:g} % drop", fontsize=10)
            for place, label in enumerate(labels):
                for index, ability in enumerate(abilities):
                    found = analysis.critical.get((label, ability, drop, True))
                    if found is None:
                        continue
                    y = place + beside(index, len(abilities))
                    censored = found.sparsity is None
                    value = found.last if found.sparsity is None else found.sparsity
                    panel.barh(
                        y, value, height=0.76 / len(abilities), color=COLOURS[index], alpha=0.75, edgecolor="none" if censored else "black",
                        linewidth=0.8, hatch=HATCHES[index], label=name_of(ability),
                    )  # fmt: skip
                    high = last * 1.12 if found.high is None else found.high
                    panel.plot([found.low, high], [y, y], color="black", linewidth=1.4)
                    panel.plot([found.low], [y], color="black", marker="|", markersize=8)
                    open_end = found.high is None
                    panel.plot([high], [y], color="black", marker=">" if open_end else "|", markersize=6 if open_end else 8)
            panel.set_yticks(range(len(labels)), labels)
            panel.set_ylim(len(labels) - 0.5, -0.5)
            panel.set_xlim(0, last * 1.16)
            panel.axvline(last, color="#555555", linewidth=0.8, linestyle=":")
            panel.set_xlabel("critical sparsity")
            panel.grid(visible=False, axis="y")
        legend(figure, axes)
        return figure

    summary = "; ".join(
        f"{label}, {name_of(ability)}: {found.phrase()}" for (label, ability, drop, corrected), found in analysis.critical.items()
        if corrected and drop == drops[len(drops) // 2]
    )  # fmt: skip
    return draw(
        folder, "critical", "Critical sparsity",
        "Where the monotone fit of the chance-corrected score has fallen by the given share of the dense score, straight between "
        "the measured sparsities. Lines are 95 % intervals, which end at measured sparsities: between them any falling curve is possible. "
        "An arrow means that the interval goes on beyond the largest sparsity measured (dotted); a bar without an outline ends there "
        "because the score never falls so far: the critical sparsity is larger.",
        f"Bars of the critical sparsity with intervals. At a {100 * drops[len(drops) // 2]:g} % drop, {summary}.", make,
    )  # fmt: skip


def _equal_size(found: EqualSize, axis: Axis, name: str, title: str, caption: str, dense: Mapping[str, Any], folder: Path) -> Drawn:
    """Scores against sizes, each with its interval; a score without one has no vertical line.

    Args:
        dense: the look of dense models.
    """
    shown = list(dict.fromkeys(entry.ability for entry in found.scores))
    labels = list(dict.fromkeys(entry.series for entry in found.scores if entry.series))

    def line(panel: Axes, entries: Sequence[SizedScore], label: str, look: Mapping[str, Any], hover: Hover) -> None:
        entries = sorted(entries, key=lambda entry: entry.size)
        x, y = [entry.size for entry in entries], [entry.score for entry in entries]
        panel.plot(x, y, label=label, **look)
        low = [entry.score if entry.low is None else entry.low for entry in entries]
        high = [entry.score if entry.high is None else entry.high for entry in entries]
        panel.vlines(x, low, high, color=look["color"], linewidth=1)
        hover.points(panel, x, y, [f"{_point(entry)}: {entry.score:.4g} at {entry.size:.4g} {UNITS[axis.name]}" for entry in entries])

    def make(hover: Hover) -> Figure:
        figure, axes = panels(len(shown), width=4.4, height=3.4, sharey=True)
        for panel, ability in zip(axes, shown, strict=True):
            entries = [entry for entry in found.scores if entry.ability == ability]
            line(panel, [entry for entry in entries if entry.series is None], "nothing removed", dense, hover)
            for index, label in enumerate(labels):
                line(panel, [entry for entry in entries if entry.series == label], label, style(index), hover)
            axis.scale(panel)
            panel.set_title(name_of(ability), fontsize=10)
            panel.set_xlabel(axis.label)
            panel.set_ylabel("score above chance")
            panel.tick_params(labelleft=True)
        legend(figure, axes)
        return figure

    summary = "; ".join(
        f"{name_of(entry.ability)} of {_point(entry)} with {entry.size:.3g} {UNITS[axis.name]}: {entry.score:.2f}" for entry in found.scores
    )
    return draw(
        folder, name, title,
        f"Mean chance-corrected score against the {axis.label}, on the tasks that all dense models have. {caption}Vertical lines are "
        "95 % intervals over items and calibration seeds.",
        f"Line charts of the score against {UNITS[axis.name]}, one panel for each ability. {summary}.", make,
    )  # fmt: skip


def _point(entry: SizedScore) -> str:
    return f"{entry.series}, {entry.amount}" if entry.series else entry.pretrained


def module_pairs(analysis: Analysis) -> list[dict[str, Series]]:
    """Groups of series that differ in ``modules`` only. Each group has attention and ffn, and each series a curve."""
    groups: dict[tuple[str, str], dict[str, Series]] = {}
    for series in analysis.series:
        other_settings = sorted((name, value) for name, value in series.settings.items() if name != "modules")
        if any((series.label, ability) in analysis.curves for ability in of_curves(analysis)):
            groups.setdefault((series.model, repr(other_settings)), {})[series.settings.get("modules", "")] = series
    return [group for group in groups.values() if {"attention", "ffn"} <= group.keys()]


def _modules(analysis: Analysis, pairs: Sequence[dict[str, Series]], folder: Path) -> Drawn:
    several = len({group["ffn"].model for group in pairs}) > 1
    shown = [
        (group, ability)
        for group in pairs
        for ability in of_curves(analysis)
        if any((one.label, ability) in analysis.curves for one in group.values())
    ]

    def make(hover: Hover) -> Figure:
        figure, axes = panels(len(shown), columns=2, width=4.2, sharex=True, sharey=True)
        for one, (group, ability) in zip(axes, shown, strict=True):
            series = group["ffn"]
            one.set_title(f"{series.pretrained + ', ' if several else ''}{series.settings['pruner']}: {name_of(ability)}", fontsize=10)
            for index, modules in enumerate(("attention", "ffn", "all")):
                if modules in group and (group[modules].label, ability) in analysis.curves:
                    _curve(one, analysis.curves[group[modules].label, ability], index, {"ffn": "FFN"}.get(modules, modules))
            _named_axes(one)
        legend(figure, axes)
        return figure

    summary = "; ".join(
        f"{group[modules].label}, {name_of(ability)}: from {ends(curve)}"
        for group, ability in shown for modules in ("attention", "ffn")
        if (curve := analysis.curves.get((group[modules].label, ability)))
    )  # fmt: skip
    return draw(
        folder, "modules", "Attention against FFN",
        "The same method applied to the attention layers alone, to the FFN layers alone and, where it was done, to all. The sparsity is "
        "that of the layers that were pruned: FFN layers usually hold more weights.",
        f"Line charts of the chance-corrected score against the sparsity of attention and FFN layers. {summary}.", make,
    )  # fmt: skip


def flip_counts(analysis: Analysis) -> dict[str, dict[str, list[tuple[float, float, float]]]]:
    """Points (sparsity or bits, share of items lost, share of items won) over all tasks and seeds, by series label and ability."""
    by_trial: dict[tuple[int, str | None], list[tuple[int, int, int]]] = {}
    for row in analysis.rows:
        if row.found and row.found.flips:
            flips = row.found.flips
            by_trial.setdefault((id(row.trial), row.ability), []).append((flips.right_to_wrong, flips.wrong_to_right, row.found.items))
    points: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for series in [*analysis.series, *analysis.quantised]:
        for ability in dict.fromkeys(analysis.abilities.values()):
            for sparsity, by_seed in sorted(series.points.items()):
                counts = [count for trial in by_seed.values() for count in by_trial.get((id(trial), ability), [])]
                if counts:
                    lost, won, items = (sum(column) for column in zip(*counts, strict=True))
                    points.setdefault(series.label, {}).setdefault(ability, []).append((sparsity, lost / items, won / items))
    return points


def _flips(flipped: dict[str, dict[str, list[tuple[float, float, float]]]], quantised: set[str], folder: Path) -> Drawn:
    """Draws one panel for each series.

    Args:
        quantised: labels of the series whose points are by bits.
    """
    present = {ability for by_ability in flipped.values() for ability in by_ability}
    abilities = [ability for ability in ABILITIES if ability in present] + sorted(present - set(ABILITIES))

    def make(hover: Hover) -> Figure:
        figure, axes = panels(len(flipped), sharey=True)
        for panel, (label, by_ability) in zip(axes, flipped.items(), strict=True):
            for index, ability in enumerate(abilities):
                points = by_ability.get(ability, [])
                places, look = [sparsity for sparsity, _, _ in points], style(index) | {"markersize": 3.5, "linewidth": 1.2}
                panel.plot(places, [-100 * lost for _, lost, _ in points], label=name_of(ability), **look)
                panel.plot(places, [100 * won for _, _, won in points], **look)
                of_bits = " bits" if label in quantised else ""
                texts = [f"{name_of(ability)} at {sparsity:g}{of_bits}: {lost:.1%} lost, {won:.1%} won" for sparsity, lost, won in points]
                hover.points(panel, places, [-100 * lost for _, lost, _ in points], texts)
            panel.axhline(0, color="black", linewidth=0.8)
            panel.set_title(label, fontsize=10)
            panel.set_xlabel("bits of a quantised weight" if label in quantised else "sparsity")
            panel.set_ylabel("% of items\nlost (below 0), won (above)")
            panel.tick_params(labelleft=True)
        legend(figure, axes)
        return figure

    summary = "; ".join(
        f"{label}, {name_of(ability)} at {place:g}{' bits' if label in quantised else ''}: {lost:.1%} lost, {won:.1%} won"
        for label, by_ability in flipped.items() for ability, points in by_ability.items()
        for place, lost, won in [points[0 if label in quantised else -1]]
    )  # fmt: skip
    return draw(
        folder, "flips", "Answers that flipped",
        "Items that the dense model gets right and the pruned or quantised one wrong (below zero), and the reverse (above), as a share of "
        "all items of the tasks of the ability, all calibration seeds together.",
        f"Lines of the share of items lost and won at each sparsity or number of bits. {summary}.", make,
    )  # fmt: skip
