"""The page of a report in headless Chromium: it is drawn, asks for nothing, and has no error."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

pytestmark = pytest.mark.browser
BROWSERS = ("chromium", "google-chrome", "chromium-browser", "google-chrome-stable")


def visit(page: Path, folder: Path, width: int = 1200, height: int = 3000) -> tuple[np.ndarray, list[str], list[str]]:
    """A screenshot [height, width, channels] in 0..1, the lines that the page wrote to its console, and the addresses that it asked for.

    The browser's own log of its network tells apart what a page asks for and what the browser asks for by itself, which has no origin.
    Nothing listens at the proxy that it is given, so that nothing is loaded.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser, f"none of {', '.join(BROWSERS)} is on the PATH"
    image, log = folder / "page.png", folder / "network.json"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--proxy-server=127.0.0.1:9"]
    command += ["--proxy-bypass-list=<-loopback>", f"--log-net-log={log}", "--enable-logging=stderr", "--v=0"]
    command += [f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}", f"--screenshot={image}", page.as_uri()]
    done = subprocess.run(command, check=True, capture_output=True, text=True, errors="replace", timeout=120)
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


def test_a_page_that_loads_something_or_has_an_error_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<img src="http://192.0.2.1/picture.png"><script>console.error("oh no"); none()</script>', encoding="utf-8")
    image, console, asked = visit(page, tmp_path, 300, 200)
    assert image.shape[:2] == (200, 300)
    assert any("oh no" in line for line in console)
    assert any("none is not defined" in line for line in console)
    assert any("192.0.2.1/picture.png" in line for line in asked)
