"""Texts for perplexity: a file, or WikiText-2 and C4 from the hub, prepared as in the pruning papers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from harness_ext.errors import BadOptionError, HarnessExtError, did_you_mean, one_line, shortened, shown

C4_DOCUMENTS = 1100
"""The papers join the first 1,100 documents of a validation file."""
C4_WINDOWS = 256
"""The papers use the first 256 windows."""


class TextError(HarnessExtError):
    """A text that cannot be read."""


@dataclass(frozen=True)
class Corpus:
    """A text to measure perplexity on.

    Args:
        name: the argument of the user: a path, or a name in :data:`FROM_THE_HUB`.
        text: the text, which is not empty.
        most: largest number of windows; None for no limit.
    """

    name: str
    text: str
    most: int | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the text, as 16 hexadecimal digits."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read(name: str) -> Corpus:
    """Reads a text.

    Args:
        name: path of a text file, ``wikitext2`` or ``c4``. If there is a file of that name, the file is read.

    Raises:
        BadOptionError: there is no such file, and the name is not in :data:`FROM_THE_HUB`.
        TextError: the text is empty, not UTF-8, or cannot be read.
    """
    check(name)
    path = os.path.expanduser(name)
    if os.path.isfile(path):
        text, most = _of_file(Path(path)), None
    else:
        try:
            text, most = FROM_THE_HUB[name]()
        except TextError:
            raise
        except Exception as error:  # datasets and its network libraries raise errors of many kinds
            raise TextError(f"cannot read {shown(name)} from the hub: {type(error).__name__}: {one_line(error)}") from error
    if not text.strip():
        raise TextError(f"{shortened(name)}: the text is empty")
    return Corpus(name, text, most)


def check(name: str) -> None:
    """Checks the name without reading the text.

    Raises:
        BadOptionError: there is no such file, and the name is not in :data:`FROM_THE_HUB`.
    """
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        raise BadOptionError(f"text {shown(name)}: a folder: want a text file, {' or '.join(FROM_THE_HUB)}")
    if not os.path.isfile(path) and name not in FROM_THE_HUB:
        hint = did_you_mean(name.lower(), FROM_THE_HUB)
        raise BadOptionError(f"text {shown(name)}: no such file: want a text file, {' or '.join(FROM_THE_HUB)}.{hint}")


def wikitext2(rows: Iterable[Mapping[str, Any]]) -> str:
    """Joins the rows of the test split with two line feeds, as the papers do. Each row is a line of text.

    Args:
        rows: rows with the field ``text``.
    """
    return "\n\n".join(_texts("wikitext2", rows))


def c4(rows: Iterable[Mapping[str, Any]]) -> str:
    """Joins the first documents of the validation split with spaces, as the papers do.

    Args:
        rows: rows with the field ``text``.
    """
    return " ".join(islice(_texts("c4", rows), C4_DOCUMENTS))


def _wikitext2() -> tuple[str, int | None]:
    import datasets

    return wikitext2(datasets.load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1", split="test")), None


def _c4() -> tuple[str, int | None]:
    import datasets

    files = {"validation": "en/c4-validation.00000-of-00008.json.gz"}
    return c4(datasets.load_dataset("allenai/c4", data_files=files, split="validation")), C4_WINDOWS


FROM_THE_HUB: dict[str, Callable[[], tuple[str, int | None]]] = {"wikitext2": _wikitext2, "c4": _c4}
"""Reads a text from the hub, or from the local cache of ``datasets``. Returns it, and the largest number of windows."""


def _texts(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for number, row in enumerate(rows, 1):
        text = row.get("text")
        if not isinstance(text, str):
            raise TextError(f"{name}, row {number}: want the field 'text', found: {shown(', '.join(map(str, row)))}")
        yield text


def _of_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{shortened(path)}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise TextError(f"{shortened(path)}: cannot be read: {error.strerror or error}") from error
