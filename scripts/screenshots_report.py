"""Takes the pictures of docs/report.md: a report in a wide window, on a telephone, and on paper.

    python scripts/screenshots_report.py runs/first/report/index.html docs

Needs chromium (or google-chrome) and pdftoppm on the PATH.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "google-chrome", "chromium-browser", "google-chrome-stable")
SIZES = {"report_1280": (1280, 900), "report_390": (390, 1700)}


def browse(browser: str, page: Path, *options: str) -> None:
    """Opens the page once."""
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        command += [f"--user-data-dir={profile}", *options, page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=300)


def main() -> None:
    """Writes ``report_1280.png``, ``report_390.png`` and ``report_print.png``, the first sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="index.html of a report")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    given = parser.parse_args()
    programs = [next(filter(None, map(shutil.which, names)), None) for names in (BROWSERS, ("pdftoppm",))]
    if None in programs:
        parser.error(f"needs pdftoppm and one of {', '.join(BROWSERS)} on the PATH")
    browser, pdftoppm = map(str, programs)
    for name, (width, height) in SIZES.items():
        browse(browser, given.page, f"--window-size={width},{height}", f"--screenshot={given.out / name}.png")
    with tempfile.TemporaryDirectory() as folder:
        sheets = Path(folder) / "sheets.pdf"
        browse(browser, given.page, "--no-pdf-header-footer", f"--print-to-pdf={sheets}")
        target = given.out / "report_print"
        subprocess.run([pdftoppm, "-r", "80", "-png", "-f", "1", "-l", "1", "-singlefile", str(sheets), str(target)], check=True)


if __name__ == "__main__":
    main()
