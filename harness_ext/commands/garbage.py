"""Commands that end after seconds leave their garbage to the end of the process."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_garbage() -> Iterator[None]:
    """Around what a quick command imports and does.

    torch, transformers and lm-eval make a million objects as they are imported, and these stay. Python would look for garbage among them
    again and again, and once more as it ends.
    """
    before = gc.isenabled()
    gc.disable()
    atexit.unregister(gc.freeze)  # of an earlier command in this process
    atexit.register(gc.freeze)  # what is frozen is not searched
    try:
        yield
    finally:
        if before:
            gc.enable()
