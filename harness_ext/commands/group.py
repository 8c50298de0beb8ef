"""The group of commands, which tells a mistake on the command line in one line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

PROGRAM = "harness-ext"
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
        words = sys.argv[1:] if args is None else list(args)
        try:
            code = run()
            sys.stdout.flush()
        except UsageError as error:
            sys.exit(_tell(error, next((word for word in words if word in self.commands), None)))
        except OSError as error:
            sys.exit(_tell_unwritten(error))
        except typer.Abort:
            typer.echo("aborted", err=True)
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def _tell(error: Any, command: str | None) -> int:
    """Prints a mistake, and returns the exit code.

    Args:
        command: that was asked for, if one was.
    """
    message = str(error.format_message())
    if type(error).__name__ == "NoArgsIsHelpError":  # no mistake: its message is the help, unless rich has printed that
        typer.echo(message)
    else:
        path = error.ctx.command_path if error.ctx else f"{PROGRAM} {command}" if command else PROGRAM
        sentence = " ".join(message.split()).rstrip(".")
        typer.echo(f"{path}: {sentence}{'' if sentence.endswith('?') else '.'} See {path} --help", err=True)
    return int(error.exit_code)


def _tell_unwritten(error: OSError) -> int:
    """Prints why the output could not be written, and returns the exit code. A reader that ends early, such as ``head``, is no mistake.

    Raises:
        OSError: the error is of a file, and not of the output.
    """
    if error.filename is not None or error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO):
        raise error
    if error.errno != errno.EPIPE:
        typer.echo(f"{PROGRAM}: the output cannot be written: {error.strerror}", err=True)
    # What is left in the buffer would fail again when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
