"""Checks all of lm-eval's own task definitions with the static part of harness_ext.testing, and prints what it finds as a table.

python scripts/check_stock_tasks.py
"""

from __future__ import annotations

import sys
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import lm_eval.tasks
import typer
from rich.progress import track

from harness_ext.testing import Finding, check_static, names_below
from harness_ext.testing.definition import files_below
from harness_ext.testing.static import STATIC_CHECKS

ROOT = Path(lm_eval.tasks.__file__).parent


def table(findings: list[Finding]) -> str:
    """One row for each check and folder, with the first file."""
    groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.check, finding.file.relative_to(ROOT).parts[0]].append(finding)
    lines = ["| check | folder | files | the first |", "|---|---|---|---|"]
    order = {check: place for place, check in enumerate(STATIC_CHECKS)}
    for (check, folder), found in sorted(groups.items(), key=lambda item: (order[item[0][0]], -len(item[1]), item[0][1])):
        first = found[0]
        name = first.file.relative_to(ROOT).as_posix().removeprefix(f"{folder}/")
        message = first.message.replace("|", "\\|").replace(str(ROOT), "lm_eval/tasks")
        lines.append(f"| {check} | `{folder}` | {len({one.file for one in found})} | `{name}`: `{first.key}`: {message} |")
    return "\n".join(lines)


def main(check: Annotated[list[str] | None, typer.Option(help="Only these checks; may be repeated.")] = None) -> None:
    names = names_below([ROOT])
    files = files_below([ROOT])
    found = [one for file in track(files, "Checking", disable=not sys.stderr.isatty()) for one in check_static(file, names=names)]
    found = [one for one in found if not check or one.check in check]
    sys.stdout.write(f"lm-eval {version('lm_eval')}: {len(files)} files, {len(found)} findings\n\n{table(found)}\n")


if __name__ == "__main__":
    typer.run(main)
