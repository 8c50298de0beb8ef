"""The group of commands, which tells a mistake on the command line in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

UsageError: Any = typer.BadParameter.__base__  # typer may bring its own click, whose classes are not those of the package


class Commands(TyperGroup):
    """As typer's, which draws a box of five lines around a mistake."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs a command. In standalone mode, it exits with 2 after a mistake."""

        def run() -> Any:
            return super(Commands, self).main(
                args, prog_name, complete_var, standalone_mode=False, windows_expand_args=windows_expand_args, **extra
            )

        if not standalone_mode:
            return run()
        try:
            code = run()
        except UsageError as error:
            sys.exit(_tell(error))
        except typer.Abort:
            typer.echo("aborted", err=True)
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def _tell(error: Any) -> int:
    """Prints a mistake, and returns the exit code."""
    message = str(error.format_message())
    if type(error).__name__ == "NoArgsIsHelpError":  # no mistake: its message is the help, unless rich has printed that
        typer.echo(message)
    else:
        command = error.ctx.command_path if error.ctx else "harness-ext"
        typer.echo(f"{command}: {' '.join(message.split()).rstrip('.')}. See {command} --help", err=True)
    return int(error.exit_code)
