"""What SmolLM2 keeps at equal bits of the whole model: pruned, quantised, and both."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
from real_order import DROP, order_rows
from real_scores import OVERRIDE, READING, RECALL, WORDS, Results, Way

from harness_ext.extras import require_extra
from harness_ext.report.drawing import STYLE, legend, panels, style
from harness_ext.statistics import Critical, Estimate, ability_curve

SHOWN = (RECALL, READING, OVERRIDE, WORDS)


@dataclass(frozen=True)
class Point:
    """The chance-corrected scores of one model, dense or changed in one way, by ability."""

    line: str
    amount: str
    bits: float
    scores: dict[str, Estimate]


def line_of(way: Way, ratio: float) -> str:
    """What points of one line of the figure share."""
    if way.bits is None:
        return f"pruned, {way.pruner}"
    return f"pruned and {way.bits} bits, {way.pruner}" if ratio else f"quantised, {way.pruner}"


def points(results: Results) -> list[Point]:
    """All models whose linear layers were changed everywhere and whose bits are known; bits falling within a line."""
    found: dict[tuple[Way, float], dict[str, Estimate]] = {}
    for ability in (name for name in SHOWN if name in results.abilities and results.abilities[name].above_chance):
        scores = results.abilities[ability]
        for way in (way for way in scores.pruned if way.modules == "all"):
            curve = scores.curve(way, ability)
            if curve is None:
                continue
            summary = ability_curve([curve], corrected=True)
            at = dict(zip(summary.sparsities, summary.scores, strict=True))
            for ratio in scores.pruned[way]:
                if way.place(ratio) in at:  # not where a calibration seed is missing
                    found.setdefault((way, ratio), {})[ability] = at[way.place(ratio)]
    made = []
    for (way, ratio), of_way in found.items():
        bits = results.bits[way, ratio]
        amount = f"{ratio:g}" if way.bits is None else f"{way.bits} bits{f', {ratio:g}' if ratio else ''}"
        if bits is not None:
            made.append(Point(line_of(way, ratio), amount, bits, of_way))
    return sorted(made, key=lambda point: (point.line, -point.bits))


def fewest_rows(results: Results) -> list[list[str]]:
    """For each line and ability: the fewest bits down to which every measured model keeps 1 - ``DROP`` of the dense score.

    Empty where nothing was quantised.
    """
    if all(way.bits is None for way, _ in results.bits if way):
        return []
    made = points(results)
    rows = []
    for line in dict.fromkeys(point.line for point in made):
        cells = []
        for ability in SHOWN:
            least = (1 - DROP) * (dense_score(results, ability) or 0.0)
            measured = [point for point in made if point.line == line and ability in point.scores]
            kept = list(takewhile(lambda point, ability=ability, least=least: point.scores[ability].value >= least, measured))
            cells.append(f"{kept[-1].bits / 1e6:,.0f} M ({kept[-1].amount})" if kept else "none")
        rows.append([line, *cells])
    return rows


def quantised_rows(results: Results) -> list[list[str]]:
    """For each quantizer and ability in context: at how many bits recall and the ability fail, and what is shown."""
    quantizers = sorted({way.pruner for way, ratio in results.bits if way and way.bits is not None and not ratio})
    measured = {name: scores for name, scores in results.abilities.items() if scores.above_chance}
    curves = [
        (quantizer, {name: curve for name, scores in measured.items() if (curve := scores.quantised_curve(quantizer, name)) is not None})
        for quantizer in quantizers
    ]
    return order_rows(curves, SHOWN[1:], lambda finding: [bits_words(finding.recall), bits_words(finding.in_context)])


def bits_words(critical: Critical) -> str:
    """The interval of a critical position in bits a weight: ``8 to 4``, or ``below 2`` where all measured bits keep the ability."""
    low, last = (f"{16 * (1 - place):g}" for place in (critical.low, critical.last))
    if critical.high is not None:
        return f"{low} to {16 * (1 - critical.high):g}"
    return f"below {last}" if critical.low >= critical.last else f"{low} to below {last}"


def dense_score(results: Results, ability: str) -> float | None:
    """The chance-corrected score of the dense model; None where it was not measured."""
    scores = results.abilities.get(ability)
    return None if scores is None else (sum(scores.dense.values()) / len(scores.dense) - scores.chance) / (1 - scores.chance)


def draw(results: Results, path: Path) -> None:
    """Scores against bits, a panel for each ability, a line for each way; a star for the dense model, whose bits must be known."""
    require_extra("report", "the figures")
    import matplotlib

    made = points(results)
    lines = list(dict.fromkeys(point.line for point in made))
    shown = [ability for ability in SHOWN if any(ability in point.scores for point in made)]
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(len(shown), columns=2, width=4.8, sharey=True)
        for panel, ability in zip(axes, shown, strict=True):
            dense = {"color": "black", "marker": "*", "markersize": 10, "linestyle": "none", "label": "dense"}
            panel.plot([(results.bits[None, 0.0] or 0.0) / 1e6], [dense_score(results, ability)], **dense)
            for index, line in enumerate(lines):
                of_line = [point for point in made if point.line == line and ability in point.scores]
                if not of_line:
                    continue
                scores = [point.scores[ability] for point in of_line]
                low = [s.value if s.low is None else min(s.low, s.value) for s in scores]
                high = [s.value if s.high is None else max(s.high, s.value) for s in scores]
                x, y = [point.bits / 1e6 for point in of_line], [s.value for s in scores]
                errors = [np.subtract(y, low), np.subtract(high, y)]
                panel.errorbar(x, y, errors, label=line, capsize=2, **style(index))
            panel.set(title=ability, xlabel="millions of bits of the whole model", ylim=(-0.1, 1.05))
            panel.axhline(0, color="#555555", linewidth=0.8)
        for panel in axes[::2]:
            panel.set_ylabel("score corrected for chance")
        legend(figure, axes)
        figure.savefig(path, dpi=110, metadata={"Software": None})
