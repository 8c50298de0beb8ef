"""``harness-ext cache``: the calibration tokens that are kept on disk."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from harness_ext.commands.errors import errors_in_one_line


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete the calibration tokens.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the calibration tokens that are kept on disk for later runs, with source, size and date, or delete them."""
    with errors_in_one_line():
        _cache(clear=clear, json=json)


def _cache(*, clear: bool, json: bool) -> None:
    from harness_ext.commands.printing import console, folded_table
    from harness_ext.engine import calibration_cache

    folder = calibration_cache.folder()
    if clear:
        deleted = calibration_cache.clear()
        typer.echo(f"{folder}: {deleted} deleted")
        return
    entries = calibration_cache.entries()
    rows: list[dict[str, Any]] = [
        {
            "source": str(entry.about.get("source", "damaged")),
            "samples": entry.about.get("samples"), "length": entry.about.get("length"), "options": entry.about.get("options", {}),
            "bytes": entry.size, "date": datetime.fromtimestamp(entry.written).isoformat(" ", "seconds"), "file": entry.path.name,
        }
        for entry in entries
    ]  # fmt: skip
    if json:
        console().print_json(data={"folder": str(folder), "entries": rows}, default=str)
        return
    size = sum(entry.size for entry in entries)
    if rows:
        table = folded_table(("source", "samples x length", "options", "kB", "date", "file"), right=("kB",))
        for row in rows:
            options = ", ".join(f"{name}={value}" for name, value in row["options"].items() if name not in ("samples", "length"))
            shape = f"{row['samples']} x {row['length']}" if row["samples"] else ""
            table.add_row(row["source"], shape, options, f"{row['bytes'] / 1000:.0f}", row["date"], row["file"])
        console().print(table)
    typer.echo(f"{folder}: {len(rows)} sets of calibration tokens, {size / 1e6:.1f} MB")
