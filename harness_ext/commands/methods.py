"""``harness-ext pruners``, ``allocations`` and ``calibrations``: what there is, one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness_ext.commands.garbage import kept_garbage
from harness_ext.commands.printing import console, folded_table

if TYPE_CHECKING:
    from harness_ext.plugins import Registry

ONE_LINE = 10_000  # columns, in a file or a pipe
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def pruners(json: Json = False) -> None:
    """List the pruning methods: what each does, its options with defaults, its paper, and whether it is installed."""
    _print("Pruners", "pruners", json)


def allocations(json: Json = False) -> None:
    """List the ways to spread the sparsity over the linear layers, with options, papers, and whether they are installed."""
    _print("Allocations", "allocations", json)


def calibrations(json: Json = False) -> None:
    """List the sources of calibration text, with options and whether they are installed."""
    _print("Calibration sources", "calibrations", json)


def _print(title: str, kind: str, json: bool) -> None:
    from harness_ext.plugins import Plugins

    with kept_garbage():
        registry: Registry[Any] = getattr(Plugins(), kind)
    from harness_ext.method.listing import describe

    absent = registry.not_installed()
    rows = [(describe(cls), origin) for _, (cls, origin) in sorted(registry.items.items())]
    if json:
        data = [
            {
                "name": found.name, "summary": found.summary, "papers": list(found.papers), "options": dict(found.options),
                "needs_calibration": found.calibration, "installed": found.name not in absent, "install": absent.get(found.name),
                "distribution": origin.distribution, "version": origin.version,
            }
            for found, origin in rows
        ]  # fmt: skip
        console(ONE_LINE).print_json(data=data, default=str)
        return
    calibrated = any(found.calibration for found, _ in rows)
    columns = ("name", "what it does", "options", *(["calibration"] if calibrated else []), "paper", "installed")
    table = folded_table(columns, title=title)
    for found, _ in rows:
        options = ", ".join(f"{name}={value}" if value != "" else f"{name}=''" for name, value in found.options.items())
        table.add_row(
            found.name, found.summary, options, *([found.calibration or ""] if calibrated else []), ", ".join(found.papers),
            absent.get(found.name, "yes"),
        )  # fmt: skip
    console(ONE_LINE).print(table)
