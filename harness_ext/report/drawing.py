"""Helpers of all figures: colours, line styles, texts under the pointer, files, and SVG for the page."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from harness_ext.statistics import AbilityCurve

# Okabe and Ito, Color Universal Design. Markers and line styles repeat what colours say, for readers who cannot tell the colours apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GLYPHS = ("●", "■", "▲", "◆", "▼", "✚", "✖")  # MARKERS as characters, for the text of a page
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oooo")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "harness-ext", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#dddddd", "axes.axisbelow": True, "legend.frameon": False, "figure.facecolor": "white",
}  # fmt: skip
THEME = {"#000000": "currentColor", "#ffffff": "var(--paper)", "#dddddd": "var(--line)", "#555555": "var(--soft)"}
SVG, LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


@dataclass(frozen=True)
class Drawn:
    """A figure.

    Args:
        name: name of the files, without the ending.
        title, caption: texts on the page.
        alt: description of the figure in words.
        svg: SVG code for the page.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: str


@dataclass
class Hover:
    """Texts that a browser shows when the pointer is on a mark of a figure.

    Args:
        off: whether to add no texts. The figure for telephones has none, because telephones have no pointer.
        texts: the texts of the marks, by the id of their group.
    """

    off: bool = False
    texts: dict[str, list[str]] = field(default_factory=dict)

    def name(self, artist: Artist, texts: Sequence[str]) -> None:
        """Adds one text for each mark of the artist."""
        artist.set_gid(f"hover-{len(self.texts)}")
        self.texts[f"hover-{len(self.texts)}"] = list(texts)

    def points(self, axes: Axes, x: Sequence[float], y: Sequence[float], texts: Sequence[str]) -> None:
        """Adds texts for points. Invisible marks, larger than the drawn ones, make them easy to hit with the pointer."""
        if not self.off:
            self.name(axes.plot(x, y, linestyle="none", marker="o", markersize=13, color="black", alpha=0)[0], texts)


def style(index: int) -> dict[str, Any]:
    """Colour, marker and line style of curve number ``index``. When colours repeat, markers differ."""
    return {
        "color": COLOURS[index % len(COLOURS)], "marker": MARKERS[marker(index)], "linestyle": LINES[index % len(LINES)],
        "markersize": 5,
    }  # fmt: skip


def marker(index: int) -> int:
    """Index in ``MARKERS`` of the marker of curve number ``index``."""
    return (index + index // len(COLOURS)) % len(MARKERS)


def panels(count: int, *, columns: int = 3, width: float = 3.6, height: float = 3.0, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels, and its axes. The legend goes below the panels."""
    from matplotlib.figure import Figure

    across = min(columns, count)
    down = math.ceil(count / across)
    figure = Figure(figsize=(max(width * across, 5.0), height * down + 0.5), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False, **options).flat)
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def legend(figure: Figure, axes: list[Axes], columns: int = 3) -> None:
    """Adds one legend below all panels. Each label occurs once."""
    handles: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns, fontsize=9)


def band(axes: Axes, curve: AbilityCurve, x: Sequence[float], colour: str) -> None:
    """Draws the pointwise intervals of a curve as a band."""
    low = [np.nan if score.low is None else score.low for score in curve.scores]
    high = [np.nan if score.high is None else score.high for score in curve.scores]
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def draw(folder: Path | None, name: str, title: str, caption: str, alt: str, make: Callable[[Hover], Figure]) -> Drawn:
    """Makes a figure for the page. The same figure gives the same bytes.

    Args:
        folder: where ``NAME.svg`` and ``NAME.png`` are written; None for no files.
        make: draws the figure.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        hover, text = Hover(), io.StringIO()
        figure = make(hover)
        if folder is not None:
            figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None, "Title": title, "Description": alt})
            figure.set_layout_engine("none")  # reuses the layout of the PNG; computing it takes longer than drawing
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Title": title, "Description": alt})
    if folder is not None:
        (folder / f"{name}.svg").write_text(text.getvalue(), encoding="utf-8")
    return Drawn(name, title, caption, alt, inline(text.getvalue(), name, alt, hover))


def inline(svg: str, name: str, alt: str, hover: Hover | None = None) -> str:
    """Rewrites SVG for a page: unique ids, a label, texts under the pointer, colours of the page, and a width that the page sets."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<title>.*?</title>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(\d\.\d\d)\d+", r"\1", svg)
    svg = _short(svg, hover or Hover())
    svg = re.sub(r'(<image\b[^>]*)\sid="[^"]*"', r"\1", svg)  # matplotlib gives equal images equal ids; nothing refers to them
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub("|".join(THEME), lambda match: THEME[match[0]], svg)
    svg = re.sub(r">\s+<", "><", svg)
    opening, rest = svg.split(">", 1)
    opening = re.sub(r'\sheight="[^"]*"', "", re.sub(r'width="([\d.]+)pt"', r'style="max-width:\1pt"', opening))
    return f'{opening} role="img" aria-labelledby="{name}-alt"><title id="{name}-alt">{html.escape(alt)}</title>{rest}'


def _short(svg: str, hover: Hover) -> str:
    """Moves the style that all marks of a group share to the group, and adds the texts under the pointer as ``title`` elements."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", LINK)
    root = ElementTree.fromstring(svg)
    for group in root.iter(f"{{{SVG}}}g"):
        marks = [mark for mark in group if mark.tag == f"{{{SVG}}}use"]
        styles = {mark.get("style", "") for mark in marks}
        if len(marks) > 1 and len(styles) == 1 and "style" not in group.attrib:
            group.set("style", styles.pop())
            for mark in marks:
                mark.attrib.pop("style", None)
    for group in root.iter(f"{{{SVG}}}g"):
        if texts := hover.texts.get(group.get("id", "")):
            for mark, text in zip(list(group.iter(f"{{{SVG}}}use")) or [group], texts, strict=True):
                title = ElementTree.Element(f"{{{SVG}}}title")
                title.text = text
                mark.insert(0, title)
    return ElementTree.tostring(root, encoding="unicode")
