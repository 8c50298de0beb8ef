"""What commands share: how an error ends a command, and lists that are given with commas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import typer


def told(error: Exception) -> str:
    """One line on an error; what a file system says is shortened, since it repeats the path."""
    from harness_ext.errors import HarnessExtError, one_line

    return f"{type(error).__name__}: {error if isinstance(error, HarnessExtError) else one_line(error)}"


def fail(error: Exception) -> NoReturn:
    """Ends a command with one line on an error."""
    typer.echo(told(error), err=True)
    raise typer.Exit(1) from error


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Ends the command with one line if an error of this package or of the file system is raised."""
    from harness_ext.errors import HarnessExtError

    try:
        yield
    except (HarnessExtError, OSError) as error:
        fail(error)


def listed(values: Sequence[str] | None) -> list[str]:
    """The values of an option that is repeatable, or takes commas."""
    return [name for value in values or [] for name in value.split(",") if name]
