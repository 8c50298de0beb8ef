"""What commands share: how an error ends a command, and lists that are given with commas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import typer


def fail(error: Exception) -> NoReturn:
    """Ends a command with one line on an error; what a file system says is shortened, since it repeats the path."""
    from harness_ext.errors import HarnessExtError, one_line

    typer.echo(f"{type(error).__name__}: {error if isinstance(error, HarnessExtError) else one_line(error)}", err=True)
    raise typer.Exit(1) from error


def listed(values: Sequence[str] | None) -> list[str]:
    """The values of an option that is repeatable, or takes commas."""
    return [name for value in values or [] for name in value.split(",") if name]
