"""A local file of text."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness_ext import BadOptionError, CalibrationError, Documents, shortened, shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class File(Documents):
    """A text file (one document), or a ``.jsonl`` file with one document a line; ``calibration=PATH`` is short for it."""

    name: ClassVar[str] = "file"
    path: str = ""

    def check(self) -> None:
        if not self.path:
            raise BadOptionError("calibration=file wants calibration.path=FILE")
        if not os.path.isfile(self._file):
            raise BadOptionError(f"calibration.path={shown(self.path)}: no such file")
        if self.chat_template and not self._in_lines:
            raise BadOptionError(f"calibration.path={shown(self.path)}: calibration.chat_template=True wants a .jsonl file with messages")
        if not self.check_rows():
            raise BadOptionError(f"calibration.path={shown(self.path)}: the file is empty")

    @property
    def _file(self) -> Path:
        return Path(self.path).expanduser()

    @property
    def _in_lines(self) -> bool:
        return Path(self.path).suffix == ".jsonl"

    def cache_key(self, model: PreTrainedModel, model_digest: str) -> Mapping[str, Any] | None:
        return {"length": self.length_for(model), "content": hashlib.sha256(self._file.read_bytes()).hexdigest()}

    def rows(self) -> Iterator[tuple[str, Any]]:
        path = self._file
        try:
            if not self._in_lines:
                if text := path.read_text(encoding="utf-8"):
                    yield shortened(self.path), text
                return
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield f"{shortened(self.path)}:{number}", self._row(line, number)
        except UnicodeDecodeError as error:
            raise CalibrationError(f"calibration.path={shown(self.path)}: not UTF-8 text ({error.reason} at byte {error.start})") from error

    def _row(self, line: str, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep"
            raise CalibrationError(f"{shortened(self.path)}:{number}: not JSON ({reason})") from error
        if not isinstance(row, dict):
            name = self.field or ("messages" if self.chat_template else "text")
            raise CalibrationError(
                f"{shortened(self.path)}:{number}: want an object with the text field {shown(name)}, found: {type(row).__name__}"
            )
        return row
