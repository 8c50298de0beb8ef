"""``harness-ext plugins`` and ``models``: what is installed, and what it registers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness_ext.commands.garbage import kept_garbage
from harness_ext.commands.printing import console, folded_table

if TYPE_CHECKING:
    from harness_ext.plugins import Origin, Plugins

KINDS = ("pruners", "calibrations", "allocations")


def plugins(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List all plugins with their versions and what they register, and the plugins that failed to load, with the reason."""
    from harness_ext.plugins import Plugins

    with kept_garbage():
        found = Plugins()
    absent = {kind: getattr(found, kind).not_installed() for kind in KINDS}
    rows = [
        {
            "plugin": origin.entry_point,
            "distribution": origin.distribution,
            "version": origin.version,
            **{kind: [name for name in _names(found, kind, origin) if name not in absent[kind]] for kind in KINDS},
            "models": _names(found, "models", origin),
            "tasks": [str(folder) for folder, of in found.task_folders if of == origin],
            "not installed": {
                name: command
                for kind, commands in absent.items()
                for name, command in commands.items()
                if name in _names(found, kind, origin)
            },
        }
        for origin in found.origins.values()
    ]
    broken = [
        {"plugin": b.origin.entry_point, "distribution": b.origin.distribution, "version": b.origin.version, "reason": b.reason}
        for b in found.broken
    ]
    if json:
        console().print_json(data={"plugins": rows, "not loaded": broken})
        return
    table = folded_table(("plugin", "distribution", "registers"), title="Plugins")
    for row in rows:
        table.add_row(str(row["plugin"]), f"{row['distribution']} {row['version']}", _registers(row))
    console().print(table)
    if broken:
        table = folded_table(("plugin", "distribution", "why"), title="Not loaded")
        for entry in broken:
            table.add_row(entry["plugin"], f"{entry['distribution']} {entry['version']}", entry["reason"])
        console().print(table)


def models() -> None:
    """List the short model names that pretrained= accepts, and their folders."""
    from harness_ext.plugins import Plugins

    plugins = Plugins(hooks=["register_models"])
    typer.echo("model\tfolder\tplugin\tnote")
    for name, (path, origin) in plugins.models.items.items():
        missing = "" if path.is_dir() else f"not here yet: {plugins.how_to_get.get(name) or 'the plugin names no command that brings it'}"
        typer.echo(f"{name}\t{path}\t({origin})\t{missing}")


def _names(plugins: Plugins, kind: str, origin: Origin) -> list[str]:
    """The names of a kind that one plugin registers."""
    return [name for name, (_, owner) in getattr(plugins, kind).items.items() if owner == origin]


def _registers(row: dict[str, Any]) -> str:
    parts = [f"{kind}: {', '.join(row[kind])}" for kind in ("pruners", "calibrations", "allocations", "models", "tasks") if row[kind]]
    commands: dict[str, list[str]] = {}
    for name, command in row["not installed"].items():
        commands.setdefault(command, []).append(name)
    parts += [f"after {command}: {', '.join(names)}" for command, names in commands.items()]
    return "\n".join(parts) or "nothing"
