"""The page of a report, read as a browser would: whole, nothing loaded, headings in order, text for figures, headers for tables."""

from __future__ import annotations

import base64
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness_ext.report.abilities import ABILITIES
from harness_ext.report.drawing import COLOURS, HATCHES, style

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Reader(HTMLParser):
    """Checks that tags are closed in order, and collects them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read_page(folder: Path) -> tuple[str, Reader]:
    text = (folder / "index.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return text, reader


def test_the_page_is_whole_and_loads_nothing(made: Path) -> None:
    text, reader = read_page(made)
    for tag, attributes in reader.tags:
        assert tag not in ("script", "link", "iframe", "img", "object", "embed")
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,") if tag == "image" else "#")
    assert not re.search(r"url\((?!#)|@import", text)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert set(linked) <= set(ids)


def test_every_figure_has_a_text_in_its_place_and_every_table_headers(made: Path) -> None:
    text, reader = read_page(made)
    figures = [attributes for tag, attributes in reader.tags if tag == "svg"]
    assert len(figures) == text.count("<figure>") == len(list(made.glob("*.png"))) == 6
    for attributes in figures:
        assert attributes["role"] == "img"
        said = re.search(f'<title id="{attributes["aria-labelledby"]}">([^<]{{40,}})</title>', text)
        assert said
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in reader.tags if tag == "th")
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_picture_of_a_page_is_in_it(made: Path) -> None:
    for name in made.glob("*.svg"):
        for element in ElementTree.parse(name).iter():
            for attribute, value in element.attrib.items():
                if attribute.endswith("href") and not value.startswith("#"):
                    kind, _, content = value.partition(";base64,")
                    assert kind == "data:image/png"
                    assert base64.b64decode(content).startswith(b"\x89PNG")


def test_every_column_of_a_table_has_a_header(made: Path) -> None:
    text, _ = read_page(made)
    tables = re.findall(r"<table>(.*?)</table>", text, flags=re.DOTALL)
    assert len(tables) == 4
    for table in tables:
        assert re.search(r"<caption>.*\w.*</caption>", table)
        head, body = table.split("</thead>")
        columns = re.findall(r"<th\b[^>]*>([^<]*)</th>", head)
        assert all(name.strip() for name in columns)
        assert {len(re.findall(r"<t[hd]\b", row)) for row in re.findall(r"<tr>(.*?)</tr>", body, flags=re.DOTALL)} == {len(columns)}


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast_with_white(colour: str) -> float:
    return 1.05 / (luminance(colour) + 0.05)


def test_text_stands_out_from_the_page(made: Path) -> None:
    text, _ = read_page(made)
    styles = text[text.index("<style>") : text.index("</style>")]
    colours = re.findall(r"(?<![-\w])color: (#[0-9a-f]{3,6})", styles)
    assert len(colours) >= 3
    for colour in colours:
        assert contrast_with_white("#" + "".join(2 * digit for digit in colour[1:]) if len(colour) == 4 else colour) >= 7


def test_the_colours_of_the_two_abilities_stand_out_from_the_page() -> None:
    assert min(contrast_with_white(COLOURS[index]) for index in range(len(ABILITIES))) >= 3


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(range(len(COLOURS)), 2)))
def test_two_curves_are_told_apart_without_colour(one: int, other: int) -> None:
    first, second = style(one), style(other)
    assert first["marker"] != second["marker"]
    assert first["linestyle"] != second["linestyle"]
    assert HATCHES[one] != HATCHES[other]


def test_the_curves_and_bars_of_the_two_abilities_are_drawn_apart_without_colour(made: Path) -> None:
    recall, context = (COLOURS[index].lower() for index in (0, 1))
    curves = (made / "abilities.svg").read_text(encoding="utf-8")
    strokes = {colour: re.findall(rf'style="(fill: none;[^"]*stroke: {colour}[^"]*)"', curves) for colour in (recall, context)}
    assert all(strokes.values())
    assert not any("stroke-dasharray" in one for one in strokes[recall])
    assert all("stroke-dasharray" in one for one in strokes[context])
    for name in ("critical", "flips"):
        bars = (made / f"{name}.svg").read_text(encoding="utf-8")
        assert re.search(rf'style="fill: {recall}', bars)
        assert not re.search(rf'style="fill: {context}', bars), "bars of this ability are to be hatched"
        assert len(re.findall(r'style="fill: url\(#', bars)) > 0
