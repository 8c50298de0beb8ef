"""What the commands print with: the console, and tables whose cells are folded."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable

from rich.console import Console
from rich.table import Table


def console(width: int | None = None) -> Console:
    """Standard output, on which texts are printed as they are.

    Args:
        width: columns of tables in a file or a pipe. By default as rich chooses.
    """
    return Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else width)


def folded_table(columns: Iterable[str], *, right: Collection[str] = (), title: str | None = None, caption: str | None = None) -> Table:
    """A table without rows, in which a long cell takes several lines.

    Args:
        right: the columns whose cells are at the right.
    """
    table = Table(title=title, caption=caption)
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in right else "left")
    return table
