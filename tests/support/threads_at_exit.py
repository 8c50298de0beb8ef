"""Writes which threads a process has at its very end."""

from __future__ import annotations

import atexit
import json
import time
from contextlib import suppress
from pathlib import Path

TASKS = Path("/proc/self/task")  # Linux
SECONDS = 2.0  # the system lists a thread for a moment after it was waited for


def write_at_exit(file: Path, part: str) -> None:
    """Writes the names of the threads in whose name ``part`` is. To run last, this is to be registered first."""
    atexit.register(_write, file, part)


def _write(file: Path, part: str) -> None:
    end = time.monotonic() + SECONDS
    while (found := [name for name in _names() if part in name]) and time.monotonic() < end:
        time.sleep(0.01)
    file.write_text(json.dumps(found))


def _names() -> list[str]:
    names = []
    for task in TASKS.iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            names.append((task / "comm").read_text().strip())
    return names
