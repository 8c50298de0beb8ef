"""The command ``harness-ext``."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Pruned-model experiments with lm-evaluation-harness.")


@app.callback()
def main() -> None:
    """Pruned-model experiments with lm-evaluation-harness: lm_eval --model pruned-hf --model_args sparsity=0.7 --tasks icl_linear"""


@app.command()
def plugins(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every plugin, what it registers, its version, and what failed to load and why."""
    from harness_ext.plugins import Plugins

    found = Plugins()
    rows = [
        {
            "plugin": origin.entry_point,
            "distribution": origin.distribution,
            "version": origin.version,
            "pruners": [name for name, (_, of) in found.pruners.items.items() if of == origin],
            "calibrations": [name for name, (_, of) in found.calibrations.items.items() if of == origin],
            "models": [name for name, (_, of) in found.models.items.items() if of == origin],
            "tasks": [str(folder) for folder, of in found.task_folders if of == origin],
            "hooks": sorted(caller.name for caller in found.manager.get_hookcallers(found.manager.get_plugin(name)) or []),
        }
        for name, origin in found.origins.items()
    ]
    broken = [
        {"plugin": b.origin.entry_point, "distribution": b.origin.distribution, "version": b.origin.version, "reason": b.reason}
        for b in found.broken
    ]
    console = Console(markup=False, emoji=False)
    if json:
        console.print_json(data={"plugins": rows, "not loaded": broken})
        return
    table = Table(title="Plugins")
    for column in ("plugin", "distribution", "registers"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(str(row["plugin"]), f"{row['distribution']} {row['version']}", _registers(row))
    console.print(table)
    if broken:
        table = Table(title="Not loaded")
        for column in ("plugin", "distribution", "why"):
            table.add_column(column, overflow="fold")
        for entry in broken:
            table.add_row(entry["plugin"], f"{entry['distribution']} {entry['version']}", entry["reason"])
        console.print(table)


@app.command()
def models() -> None:
    """List the short names that pretrained= takes, and their folders."""
    from harness_ext.plugins import Plugins

    for name, (path, origin) in Plugins().models.items.items():
        typer.echo(f"{name}\t{path}\t({origin})")


def _registers(row: dict[str, Any]) -> str:
    parts = [f"{kind}: {', '.join(row[kind])}" for kind in ("pruners", "calibrations", "models", "tasks") if row[kind]]
    others = [hook for hook in row["hooks"] if not hook.startswith("register_")]
    return "\n".join(parts + ([f"hooks: {', '.join(others)}"] if others else [])) or "nothing"
