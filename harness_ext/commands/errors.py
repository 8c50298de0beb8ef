"""Helpers of all commands: errors of one line, and lists with commas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Ends the command with one line if an error of this package or of the file system is raised."""
    from harness_ext.errors import HarnessExtError, one_line

    try:
        yield
    except (HarnessExtError, OSError) as error:
        message = error if isinstance(error, HarnessExtError) else one_line(error)  # file systems repeat a long path
        typer.echo(f"{type(error).__name__}: {message}", err=True)
        raise typer.Exit(1) from error


def listed(values: Sequence[str] | None) -> list[str]:
    """The values of an option that is repeatable and takes commas."""
    return [name for value in values or [] for name in value.split(",") if name]
