"""What a check of a task definition found, or why it could not look."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a task definition.

    Attributes:
        check: The name of the check that found it.
        file: The YAML file.
        key: The key in it, with dots for the levels (``metric_list.0.metric``); empty where the file as a whole is meant.
        message: What was found, and what is wanted.
        document: The number of the document, from 0, where one is meant.
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
    """A check has nothing to go by, which is no finding; ``str()`` says why in one line."""
