"""Results of checks of a task definition."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One fault in a task definition.

    Attributes:
        check: Name of the check.
        file: The YAML file.
        key: Path of the key with dots, such as ``metric_list.0.metric``. Empty for the whole file.
        message: The fault, and what is wanted.
        document: Number of the document from 0, if the fault is in a document.
    """

    check: str
    file: Path
    key: str
    message: str
    document: int | None = None

    def __str__(self) -> str:
        place = [str(self.file), *filter(None, [self.key]), *([f"document {self.document}"] if self.document is not None else [])]
        return f"{': '.join(place)}: {self.message} [{self.check}]"


class NotCheckedError(Exception):
    """A check does not apply to a task. The message says why, in one line."""
