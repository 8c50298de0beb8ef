"""The page of a report, read as a browser would: whole, nothing loaded, headings in order, text for figures, headers for tables."""

from __future__ import annotations

import base64
import html
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from report_folders import CONTEXT, RECALL, rows, sweep, write_trial

from harness_ext.report import report
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


def read_page(folder: Path, page: str = "index.html") -> tuple[str, Reader]:
    text = (folder / page).read_text(encoding="utf-8")
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
            to = attributes.get(name) or "#"
            inside = to.startswith(("#", "data:image/png;base64,") if tag == "image" else "#")
            assert inside or (tag == "a" and (made / unquote(to)).is_file())
    assert not re.search(r"url\((?!#)|@import", text)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert set(linked) <= set(ids)


def test_every_figure_has_a_text_in_its_place_and_every_table_headers(made: Path) -> None:
    text, reader = read_page(made)
    drawings = [attributes for tag, attributes in reader.tags if tag == "svg"]
    assert len(drawings) == text.count("<figure") + 1, "one figure for a window of each width, and one of each other"
    assert {f"{path.stem}-alt" for path in made.glob("*.png")} <= {attributes["aria-labelledby"] for attributes in drawings}
    for attributes in drawings:
        assert attributes["role"] == "img"
        said = re.search(f'<title id="{attributes["aria-labelledby"]}">([^<]{{40,}})</title>', text)
        assert said
    scopes = {"col", "row", "colgroup", "rowgroup"}
    assert all(attributes.get("scope") in scopes for tag, attributes in reader.tags if tag == "th")
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_headline_comes_first_and_what_is_missing_last(made: Path) -> None:
    text, reader = read_page(made)
    parts = [
        "<h1>",
        "<svg",
        "Sparsity at which",
        'class="matrix"',
        'id="task-',
        'id="comparisons"',
        'id="details"',
        'id="limits"',
        'id="missing"',
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    contents = text[text.index("<nav") : text.index("</nav>")]
    linked = re.findall(r'href="#([^"]+)"', contents)
    assert linked == [attributes["id"] for tag, attributes in reader.tags if tag == "h2" and "id" in attributes]
    assert text.count("<details>") >= 3
    assert "<details open" not in text


@pytest.mark.usefixtures("quick_figures")
def test_the_headline_says_where_the_abilities_are_lost_in_the_table_of_critical_sparsities(tmp_path: Path) -> None:
    folder = report([sweep(tmp_path / "run")], resamples=200).page.parent
    text, _ = read_page(folder)
    headline = html.unescape(text[text.index("<h1>") + 4 : text.index("</h1>")]).replace("\u2011", "-")
    found = {row["ability"]: row for row in rows(folder, "critical") if row["drop"] == "0.05" and row["corrected"] == "True"}
    assert f"Recall of this model is lost from {float(found['recall']['cell_high']):g} on" in headline
    assert found["in-context"]["censored"] == "True"
    assert f"in-context ability is kept up to {float(found['in-context']['low']):g} at least" in headline
    assert headline.endswith(": magnitude, tiny.")
    assert "<title>What tiny loses when it is pruned</title>" in text


@pytest.mark.usefixtures("quick_figures")
@pytest.mark.parametrize("right", [(27, 27, 25), (27, 26, 26), (27, 15, 27), (27, 27, 27)], ids=["drop", "slight", "dip", "level"])
def test_a_loss_that_is_not_shown_is_not_in_the_headline(tmp_path: Path, right: tuple[int, ...]) -> None:
    """An interval without an upper end holds models that lose nothing."""
    for sparsity, count in zip(("0", "0.3", "0.6"), right, strict=True):
        write_trial(tmp_path, {"lab_facts_closed": [1] * count + [0] * (30 - count)}, sparsity)
    folder = report([tmp_path], resamples=200).page.parent
    text, _ = read_page(folder)
    headline = html.unescape(text[text.index("<h1>") + 4 : text.index("</h1>")]).replace("\u2011", "-")
    [found] = [row for row in rows(folder, "critical") if row["drop"] == "0.05" and row["corrected"] == "True"]
    assert found["high"] == ""
    assert "is lost" not in headline
    low = float(found["low"])
    wanted = f"is kept up to {low:g}" if low else "is not shown to be lost up to 0.6"
    assert headline.startswith(f"Recall of this model {wanted}")


@pytest.mark.usefixtures("quick_figures")
def test_a_report_without_a_curve_has_a_headline_that_leads_to_what_is_missing(tmp_path: Path) -> None:
    write_trial(tmp_path, {"lab_facts_closed": RECALL[0.3]}, "0.3")
    text, _ = read_page(report([tmp_path], resamples=200).page.parent)
    assert "none of them is on a curve over sparsities" in text[text.index("<h1>") : text.index("</h1>")]
    assert text.index("there is no dense trial") > text.index('id="missing"')


def test_every_score_is_in_the_matrix_with_the_share_that_is_lost(made: Path) -> None:
    text, _ = read_page(made)
    matrix = text[text.index('<table class="matrix">') :]
    matrix = matrix[: matrix.index("</table>")]
    heads = re.findall(r'<th scope="col">([^<]+)</th>', matrix)
    table = rows(made, "scores")
    assert sorted(heads) == sorted({row["task"] for row in table})
    cells = {}
    for group in re.findall(r"<tbody>(.*?)</tbody>", matrix, flags=re.DOTALL):
        title = re.search(r"<th scope=\"rowgroup\"[^>]*>([^<]+)<", group)[1]
        for name, row in re.findall(r'<tr><th scope="row">([^<]+)</th>(.*?)</tr>', group):
            for task, (lost, shown) in zip(heads, re.findall(r'<td style="--k:(\d+)"[^>]*>([^<]+)</td>', row), strict=True):
                cells[title, name, task] = int(lost), float(shown)
    assert len(cells) == len(table)
    for row in table:
        title, name = (row["series"], f"{float(row['sparsity']):g}") if row["series"] else ("nothing removed", row["model"])
        lost, score = cells[title, name, row["task"]]
        assert score == pytest.approx(float(row["score"]), abs=0.0051)
        retained = min(max(float(row["retained"] or 1), 0), 1)
        assert lost == pytest.approx(100 * (1 - retained), abs=0.51)


def points(made: Path, name: str) -> list[str]:
    """The texts of the points of a figure in the page."""
    text, _ = read_page(made)
    drawing = text[text.index(f'aria-labelledby="{name}-alt"') :]
    return [html.unescape(said) for said in re.findall(r"<title>([^<]*)</title>", drawing[: drawing.index("</svg>")])]


def test_the_texts_of_points_are_the_values_of_the_tables(made: Path) -> None:
    said = points(made, "abilities")
    for row in rows(made, "curves"):
        start = f"{row['series']}, {'recall' if row['ability'] == 'recall' else 'in-context ability'}: {float(row['corrected_score']):.4g} "
        assert any(one.startswith(start) and one.endswith(f"at sparsity {float(row['sparsity']):g}") for one in said)
    scores = [row for row in rows(made, "scores") if row["series"] and row["task"] == "icl_linear"]
    assert scores
    for row in scores:
        wanted = f"{row['series']}, icl_linear: {float(row['score']):.4g} at sparsity {float(row['sparsity']):g}"
        assert wanted in points(made, "task-icl_linear")


@pytest.mark.usefixtures("quick_figures")
def test_tasks_of_no_ability_stand_by_themselves(tmp_path: Path) -> None:
    for sparsity in (0.0, 0.3, 0.6):
        tasks = {"lab_facts_closed": RECALL, "icl_linear": CONTEXT, "own_task": CONTEXT}
        write_trial(tmp_path, {task: scores[sparsity] for task, scores in tasks.items()}, f"{sparsity:g}")
    done = report([tmp_path], recall=["lab_facts_closed"], in_context=["icl_linear"], resamples=200)
    text, _ = read_page(done.page.parent)
    assert text.index('id="task-icl_linear-alt"') < text.index("To class them") < text.index('id="task-own_task-alt"')
    assert "own_task" not in {task for row in rows(done.page.parent, "curves") for task in row["tasks"].split()}
    assert '<th scope="col">own_task</th>' in text


def test_layers_of_one_sparsity_have_no_figure(made: Path) -> None:
    text, _ = read_page(made)
    assert not (made / "layers.svg").exists()
    assert "Sparsity per layer" not in text


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
    assert len(tables) >= 4
    for table in tables:
        assert re.search(r"<caption>.*\w.*</caption>", table)
        head, body = table.split("</thead>")
        columns = re.findall(r"<th\b[^>]*>([^<]*)</th>", head)
        assert all(name.strip() for name in columns)
        assert {len(re.findall(r"<t[hd]\b", row)) for row in re.findall(r"<tr>(.*?)</tr>", body, flags=re.DOTALL)} == {len(columns)}


@pytest.mark.usefixtures("quick_figures")
def test_a_page_of_its_own_name_links_the_files_in_the_folder_of_that_name(tmp_path: Path) -> None:
    done = report([sweep(tmp_path / "run")], tmp_path / "my report.html", resamples=200)
    assert done.page == tmp_path / "my report.html"
    _, reader = read_page(tmp_path, "my report.html")
    linked = [unquote(attributes["href"]) for tag, attributes in reader.tags if tag == "a" and not attributes["href"].startswith("#")]
    assert linked
    assert {tmp_path / name for name in linked} == {path for path in done.files if path != done.page}
    assert all((tmp_path / name).is_file() for name in linked)


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_from_the_page_by_day_by_night_and_on_paper(made: Path) -> None:
    text, _ = read_page(made)
    styles = text[text.index("<style>") : text.index("</style>")]
    palettes = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root {([^}]*)}", styles)]
    assert len(palettes) == 3
    for colours in palettes:
        for ink, ground in itertools.product(("ink", "soft", "link"), ("paper", "card")):
            assert contrast(colours[ink], colours[ground]) >= 7
        assert contrast(colours["ink"], colours["lost"]) >= 5.5
        for index in range(len(ABILITIES)):
            assert contrast(COLOURS[index], colours["paper"]) >= 3


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
    bars = (made / "critical.svg").read_text(encoding="utf-8")
    assert re.search(rf'style="fill: {recall}', bars)
    assert not re.search(rf'style="fill: {context}', bars), "bars of this ability are to be hatched"
    assert len(re.findall(r'style="fill: url\(#', bars)) > 0
