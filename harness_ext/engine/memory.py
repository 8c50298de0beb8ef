"""Memory that was freed and is still this process's."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Hands freed memory back to the system. The C library keeps pieces below 32 MB for itself, and what a block's activations leave in
    pieces adds up from block to block."""
    with suppress(OSError, AttributeError, TypeError):  # other systems have no malloc_trim, and no need of it
        ctypes.CDLL(None).malloc_trim(0)
