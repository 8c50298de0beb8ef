"""The files of results: which there are in a folder, and what is in them. Errors are one line with the name of the file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness_ext.errors import one_line, shortened
from harness_ext.report.trials import ReportError

DATE = re.compile(r"(?:^|_)(?P<date>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.json$")  # at the end of the names that lm-eval gives


def results_files(folder: Path) -> list[Path]:
    """The results below a folder: ``results_DATE.json``, and ``x_DATE.json``, which lm-eval writes for ``--output_path x.json``."""
    return sorted(
        file
        for file in folder.rglob("*.json")
        if file.name.startswith("results_") or (DATE.search(file.name) and isinstance(json_object(file).get("results"), dict))
    )


def date_of(file: Path) -> str:
    """What the names of the samples of a results file end with: its date, or what stands after ``results_``."""
    written = DATE.search(file.name)
    return written["date"] if written else file.name.removeprefix("results_").removesuffix(".json")


def json_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file. ReportError: there is none."""
    text = text_of(file)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{file}: cannot be read: {one_line(error, whole=True)}") from error
    if not isinstance(content, dict):
        raise ReportError(f"{file}: not a results file of lm_eval")
    return content


def json_lines(file: Path) -> list[Mapping[str, Any]]:
    """The objects of a file of JSON lines.

    Raises:
        ReportError: a line is not a JSON object; the message has its number.
    """
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(text_of(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ReportError(f"{file}: line {number} is not JSON, the file may be cut off: {one_line(error, whole=True)}") from error
        if not isinstance(row, dict):
            raise ReportError(f"{file}: line {number} is {shortened(line)} and not a JSON object")
        rows.append(row)
    return rows


def text_of(file: Path) -> str:
    """The text of a file. ReportError: it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ReportError(f"{file}: cannot be read: {one_line(error, whole=True)}") from error
