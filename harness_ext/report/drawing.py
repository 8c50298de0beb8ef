"""What the figures have in common: colours, line styles, files, and how they go into a page."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, Color Universal Design: told apart with any kind of colour vision. Markers and lines tell the same apart without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oooo")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "harness-ext", "svg.fonttype": "path", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#dddddd", "axes.axisbelow": True, "legend.frameon": False, "figure.facecolor": "white",
}  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """A figure.

    Args:
        name: of its files.
        title, caption: for the page.
        alt: what it shows, in words.
        svg: for inclusion in a page.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: str


def style(index: int) -> dict[str, Any]:
    """The colour, marker and line of the curve of that number."""
    return {
        "color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "linestyle": LINES[index % len(LINES)],
        "markersize": 5,
    }  # fmt: skip


def panels(count: int, *, columns: int = 3, width: float = 3.6, height: float = 3.0, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of that many panels; the legend goes below them."""
    from matplotlib.figure import Figure

    across = min(columns, count)
    down = math.ceil(count / across)
    figure = Figure(figsize=(max(width * across, 5.0), height * down + 0.5), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False, **options).flat)
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def legend(figure: Figure, axes: list[Axes], columns: int = 3) -> None:
    """One legend below all panels, each name once."""
    named: dict[str, Any] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    if named:
        figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=columns, fontsize=9)


def draw(folder: Path, name: str, title: str, caption: str, alt: str, make: Callable[[], Figure]) -> Drawn:
    """Makes a figure, writes it as ``NAME.svg`` and ``NAME.png``, and returns it for the page."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = make()
        figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None, "Title": title, "Description": alt})
        figure.set_layout_engine("none")  # keeps the layout, which takes longer than to draw
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Title": title, "Description": alt})
    (folder / f"{name}.svg").write_text(text.getvalue(), encoding="utf-8")
    return Drawn(name, title, caption, alt, inline(text.getvalue(), name, alt))


def inline(svg: str, name: str, alt: str) -> str:
    """SVG for a page: without prolog and metadata, with ids of its own, a label, and a width that the page decides."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<title>.*?</title>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<image\b[^>]*)\sid="[^"]*"', r"\1", svg)  # equal pictures have equal ids, and nothing refers to them
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    opening, rest = svg.split(">", 1)
    opening = re.sub(r'\sheight="[^"]*"', "", re.sub(r'width="([\d.]+)pt"', r'style="max-width:\1pt"', opening))
    return f'{opening} role="img" aria-labelledby="{name}-alt"><title id="{name}-alt">{html.escape(alt)}</title>{rest}'
