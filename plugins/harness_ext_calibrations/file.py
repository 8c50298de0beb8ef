"""A local file of text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from harness_ext import BadOptionError, Calibration, CalibrationError


class File(Calibration):
    """A text file (one document), or a ``.jsonl`` file with one document a line in ``field``; ``calibration=PATH`` is short for it."""

    name: ClassVar[str] = "file"
    path: str = ""
    field: str = "text"

    def check(self) -> None:
        if not self.path:
            raise BadOptionError("calibration=file wants calibration.path=FILE")
        if not Path(self.path).is_file():
            raise BadOptionError(f"calibration.path={self.path!r}: no such file")
        if not any(True for _ in self.texts()):
            raise BadOptionError(f"calibration.path={self.path!r}: the file is empty")

    def texts(self) -> Iterator[str]:
        path = Path(self.path)
        try:
            if path.suffix != ".jsonl":
                if text := path.read_text(encoding="utf-8"):
                    yield text
                return
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield self._document(line, number)
        except UnicodeDecodeError as error:
            raise CalibrationError(f"calibration.path={self.path!r}: not UTF-8 text ({error.reason} at byte {error.start})") from error

    def _document(self, line: str, number: int) -> str:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CalibrationError(f"{self.path}:{number}: not JSON ({error.msg})") from error
        if not isinstance(row, dict) or not isinstance(row.get(self.field), str):
            fields = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise CalibrationError(f"{self.path}:{number}: want an object with the text field {self.field!r}, found: {fields}")
        return row[self.field]  # type: ignore[no-any-return]
