"""Errors on the command line: one line on standard error, and exit code 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer


def told(error: Exception) -> str:
    """One line on an error; what a file system says is shortened, since it repeats the path."""
    from harness_ext.errors import HarnessExtError, one_line

    return f"{type(error).__name__}: {error if isinstance(error, HarnessExtError) else one_line(error)}"


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Ends the command with one line if an error of this package or of the file system is raised."""
    from harness_ext.errors import HarnessExtError

    try:
        yield
    except (HarnessExtError, OSError) as error:
        typer.echo(told(error), err=True)
        raise typer.Exit(1) from error
