"""The page of a report in headless Chromium: it is drawn, asks for nothing, and has no error."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from matplotlib.image import imread

pytestmark = pytest.mark.browser
BROWSERS = ("chromium", "google-chrome", "chromium-browser", "google-chrome-stable")


def browse(page: Path, folder: Path, width: int, height: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Opens a page in a window of that size."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser, f"none of {', '.join(BROWSERS)} is on the PATH"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += [f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace", timeout=240)


def measured(page: Path, folder: Path, width: int, height: int, script: str, *options: str) -> Any:
    """The value of a script in the page, in a frame of that size: a window cannot be as narrow as a telephone."""
    told = f"<script>parent.document.title = encodeURIComponent(JSON.stringify((() => {{ {script} }})()))</script>"
    inside = html.escape(page.read_text(encoding="utf-8") + told)
    frame = folder / "frame.html"
    frame.write_text(f'<title></title><iframe style="width: {width}px; height: {height}px; border: 0" srcdoc="{inside}"></iframe>', "utf-8")
    dumped = browse(frame, folder, width + 100, height + 100, "--dump-dom", *options).stdout
    return json.loads(unquote(dumped[dumped.index("<title>") + 7 : dumped.index("</title>")]))


def visit(page: Path, folder: Path, width: int = 1200, height: int = 3000) -> tuple[np.ndarray, list[str], list[str]]:
    """A screenshot [height, width, channels] in 0..1, the lines that the page wrote to its console, and the addresses that it asked for.

    The browser's own log of its network tells apart what a page asks for and what the browser asks for by itself, which has no origin.
    Nothing listens at the proxy that it is given, so that nothing is loaded.
    """
    image, log = folder / "page.png", folder / "network.json"
    options = ["--proxy-server=127.0.0.1:9", "--proxy-bypass-list=<-loopback>", f"--log-net-log={log}", "--enable-logging=stderr", "--v=0"]
    done = browse(page, folder, width, height, *options, f"--screenshot={image}")
    events = [event.get("params", {}) for event in json.loads(log.read_text(encoding="utf-8"))["events"]]
    asked = [event["url"] for event in events if event.get("initiator", "not an origin") != "not an origin"]
    return imread(image), re.findall(r":CONSOLE[:(].*", done.stderr), asked


def test_shows_figures_and_tables_and_asks_for_nothing(made: Path, tmp_path: Path) -> None:
    image, console, asked = visit(made / "index.html", tmp_path)
    assert image.shape[:2] == (3000, 1200)
    assert console == []
    assert asked == []
    dark = (image[..., :3].max(-1) < 0.5).mean(1)  # of each row of pixels
    assert (dark > 0).mean() > 0.3, "the page is blank, or nearly"
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (np.abs(image[..., :3] - np.array(colour) / 255).max(-1) < 0.02).sum() > 200, "a curve is missing"


def test_one_sentence_one_picture_and_one_table_are_seen_without_scrolling(made: Path, tmp_path: Path) -> None:
    script = """
        const box = selector => { const { left, right, top, bottom } = document.querySelector(selector).getBoundingClientRect();
                                  return [left, top, right, bottom] };
        return ["h1", ".top > figure > svg", ".lost table"].map(box)"""
    for left, top, right, bottom in measured(made / "index.html", tmp_path, 1280, 900, script):
        assert 0 <= left < right <= 1280
        assert 0 <= top < bottom <= 900


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_is_never_wider_than_the_window_and_its_letters_are_not_shrunk(made: Path, tmp_path: Path, width: int) -> None:
    script = """
        const seen = [...document.querySelectorAll("figure svg")].filter(drawing => drawing.getBoundingClientRect().width > 0);
        const letters = seen.flatMap(drawing => [...drawing.querySelectorAll("text")].map(
            text => parseFloat(getComputedStyle(text).fontSize) * drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width));
        return [document.documentElement.clientWidth, document.documentElement.scrollWidth, Math.min(...letters), seen.length]"""
    window, page, letters, count = measured(made / "index.html", tmp_path, width, 844, script)
    assert window == width
    assert page <= width
    assert count >= 5
    assert letters >= 7


def test_the_first_column_and_the_head_of_a_table_stay_where_they_are(made: Path, tmp_path: Path) -> None:
    script = """
        document.querySelectorAll("details").forEach(folded => folded.open = true);
        const box = [...document.querySelectorAll("details .scroll")].find(one => one.scrollWidth > one.clientWidth + 50);
        const place = () => [...box.querySelectorAll("thead th:first-child, tbody tr:first-child th")].map(
            head => Math.round(head.getBoundingClientRect().left - box.getBoundingClientRect().left));
        const before = place(); box.scrollLeft = 50; return [before, place(), box.scrollLeft]"""
    before, after, moved = measured(made / "index.html", tmp_path, 390, 844, script)
    assert moved == 50
    assert after == before


def test_the_page_is_dark_where_the_reader_wants_it_dark(made: Path, tmp_path: Path) -> None:
    script = """
        const brightness = colour => colour.match(/[0-9.]+/g).slice(0, 3).map(Number).reduce((sum, part) => sum + part) / 765;
        const text = document.querySelector("figure svg text");
        return [getComputedStyle(document.body).backgroundColor, getComputedStyle(text).fill].map(brightness)"""
    ground, text = measured(made / "index.html", tmp_path, 1280, 900, script)
    assert ground > 0.9
    assert text < 0.3
    ground, text = measured(made / "index.html", tmp_path, 1280, 900, script, "--blink-settings=preferredColorScheme=0")
    assert ground < 0.2
    assert text > 0.7


def test_the_page_is_printed_without_what_is_folded(made: Path, tmp_path: Path) -> None:
    browse(made / "index.html", tmp_path, 1280, 900, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    pages = len(re.findall(rb"/Type\s*/Page\b(?!s)", (tmp_path / "page.pdf").read_bytes()))
    assert 2 <= pages <= 9


def test_a_page_that_loads_something_or_has_an_error_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<img src="http://192.0.2.1/picture.png"><script>console.error("oh no"); none()</script>', encoding="utf-8")
    image, console, asked = visit(page, tmp_path, 300, 200)
    assert image.shape[:2] == (200, 300)
    assert any("oh no" in line for line in console)
    assert any("none is not defined" in line for line in console)
    assert any("192.0.2.1/picture.png" in line for line in asked)
