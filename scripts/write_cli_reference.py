"""Writes docs/cli.md from the help texts of ``harness-ext``.

python scripts/write_cli_reference.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from typer.main import get_command

from harness_ext.commands.cli import app
from harness_ext.commands.examples import EXAMPLES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD = """# Command line

The commands and options of `harness-ext`, as in `harness-ext COMMAND --help`. For `lm_eval --model pruned-hf`, see
[model arguments](model-args.md).

An error is one line on standard error, with exit code 1. The exit code is 2 if an option does not exist.
"""


def main() -> None:
    PAGE.write_text(text(), encoding="utf-8")


def text() -> str:
    """The page."""
    command: Any = get_command(app)
    return HEAD + "".join(f"\n{_section(name, command.commands[name])}" for name in sorted(command.commands))


def _section(name: str, command: Any) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option" and "--help" not in parameter.opts]
    usage = " ".join([f"harness-ext {name}", *(["[OPTIONS]"] if options else []), *map(_usage, arguments)])
    rows = [_row(f"`{_usage(argument)}`", argument) for argument in arguments]
    rows += [_row(", ".join(f"`{spelling}`" for spelling in option.opts), option) for option in options]
    table = "\n".join(["| option | meaning | default |", "|---|---|---|", *rows]) if rows else "No options."
    examples = "\n".join(EXAMPLES[name])
    return f"## {name}\n\n{command.help}\n\n```text\n{usage}\n```\n\n{table}\n\nExamples:\n\n```text\n{examples}\n```\n"


def _usage(argument: Any) -> str:
    return (argument.metavar or argument.name.upper()) + ("..." if argument.nargs == -1 else "")


def _row(name: str, parameter: Any) -> str:
    default = parameter.default
    shown = "required" if parameter.required else "" if default in (None, False, "") else f"`{default}`"
    said = re.sub(r"([|*])", r"\\\1", parameter.help or "")  # a bar would end the cell, an asterisk begin emphasis
    return f"| {name} | {said} | {shown} |"


if __name__ == "__main__":
    main()
