"""Errors that a user reads: their type, and the parts of the message that matter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def raises_line(kind: type[BaseException] | tuple[type[BaseException], ...], *parts: str) -> Iterator[pytest.ExceptionInfo[BaseException]]:
    """``pytest.raises`` for a message of one line that holds all the parts: the offending key, what was given, the suggestion."""
    with pytest.raises(kind) as caught:
        yield caught
    message = str(caught.value)
    assert "\n" not in message
    assert not [part for part in parts if part not in message], message
