"""Writes docs/cli.md, the commands and options of ``harness-ext``, from the program itself.

python scripts/write_cli_reference.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from typer.main import get_command

from harness_ext.commands.cli import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD = """# Command line

What `harness-ext COMMAND --help` says. `lm_eval` is lm-eval's own command; [model arguments](model-args.md) are what `pruned-hf` adds.
What is wrong is said in one line on standard error, and the exit code is 1; it is 2 for an option that does not exist.
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
    table = "\n".join(["| | | default |", "|---|---|---|", *rows]) if rows else "No options."
    return f"## {name}\n\n{command.help}\n\n```text\n{usage}\n```\n\n{table}\n"


def _usage(argument: Any) -> str:
    return argument.name.upper() + ("..." if argument.nargs == -1 else "")


def _row(name: str, parameter: Any) -> str:
    default = parameter.default
    shown = "required" if parameter.required else "" if default in (None, False, "") else f"`{default}`"
    said = re.sub(r"([|*])", r"\\\1", parameter.help or "")  # would be the end of a cell, and emphasis
    return f"| {name} | {said} | {shown} |"


if __name__ == "__main__":
    main()
