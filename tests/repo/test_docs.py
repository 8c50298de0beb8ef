"""What the pages in docs/ show works: their code runs, and their commands are ones that the programs take."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from environment import ROOT, SETTINGS
from lm_eval._cli import HarnessCLI
from pages import PAGES, SITE, blocks, known_tasks, name
from report_folders import falling, write_trial
from typer.main import get_command

from harness_ext.commands.cli import app
from harness_ext.engine.plan import take_plan
from harness_ext.errors import BadOptionError
from harness_ext.plugins import Plugins

EXECUTED = [page for page in SITE if any(block.language == "python" or block.mark == "run" for block in blocks(page))]
EXAMPLES = {name for file in (ROOT / "examples").rglob("*.py") for name in re.findall(r'    name\b.*= "(.+)"', file.read_text("utf-8"))}
ELSEWHERE = re.compile(r"my-|first-columns|sparseml|llmcompressor|torch")  # pruners of the README, and of extras that may not be installed
SWEEP = {0.0: "0", 0.5: "0.5"}


def commands() -> list[Any]:
    """Every line of a block that calls one of the two programs, with its continuations."""
    found = []
    for page in PAGES:
        for block in blocks(page):
            if block.language in ("bash", "text", "console", "sh"):
                lines = re.sub(r"\\\n\s*", "", block.code).splitlines()
                found += [
                    pytest.param(line.strip(), id=f"{name(page)}: {line.strip()}"[:120])
                    for line in lines
                    if re.match(r"\s*(harness-ext|lm_eval) ", line) and "[OPTIONS]" not in line
                ]
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a page's code runs: an empty folder but for ``runs/x``, the records of a small sweep."""
    scores = falling(40, 0.9, {0.5: 0.6})
    for ratio, sparsity in SWEEP.items():
        write_trial(tmp_path / "runs" / "x", {"icl_linear": scores[ratio], "lab_facts_closed": scores[ratio]}, sparsity)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


SLOW = ("own-model.md", "offline.md", "quantization.md")  # pages whose code takes seconds


@pytest.mark.parametrize("page", [pytest.param(page, marks=pytest.mark.slow) if page.name in SLOW else page for page in EXECUTED], ids=name)
def test_the_code_of_a_page_runs_in_order(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # where classes look for the names in their annotations
    programs = Path(sys.executable).parent
    variables = os.environ | SETTINGS | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    for block in blocks(page):
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, name(page), "exec"), module.__dict__)
        elif block.mark == "run":
            program = ["bash", "-euo", "pipefail", "-c", block.code]
            ran = subprocess.run(
                program,
                cwd=folder,
                env=variables,
                check=False,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert ran.returncode == 0, f"{name(page)}, line {block.line}: {ran.stderr}"


@pytest.mark.parametrize("page", SITE, ids=name)
def test_a_block_of_bash_in_the_docs_is_one_that_is_run(page: Path) -> None:
    assert [block.line for block in blocks(page) if block.language == "bash" and block.mark != "run"] == []


def test_there_is_code_to_run() -> None:
    assert {"own-model.md", "offline.md", "statistics.md", "sweep.md"} <= {page.name for page in EXECUTED}
    assert len(commands()) > 30


@pytest.mark.parametrize("line", commands())
def test_a_command_that_is_shown_is_one_that_the_program_takes(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *arguments = shlex.split(re.sub(r"\s*(&&|;)$", "", line).replace("$s", "0.5"), comments=True)
    if program == "harness-ext":
        check_ours(arguments)
    else:
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        check_stock(HarnessCLI().parse_args())


def check_ours(arguments: list[str]) -> None:
    group: Any = get_command(app)
    command = group.commands[arguments[0]]
    command.make_context(arguments[0], arguments[1:], resilient_parsing="--help" in arguments)


def check_stock(given: Any) -> None:
    tasks = given.tasks if isinstance(given.tasks, list) else str(getattr(given, "tasks", None) or "").split(",")
    assert [task for task in tasks if task and "*" not in task and task not in known_tasks() | {"my_task"}] == []
    if getattr(given, "model", None) != "pruned-hf":
        return
    plan = {key: value for key, value in (given.model_args or {}).items() if key != "pretrained"}
    if ELSEWHERE.match(str(plan.get("pruner", ""))) or plan.get("pruner") in EXAMPLES:
        return
    for file in (value for key, value in plan.items() if key in ("calibration", "allocation", "pruner.path") and "." in str(value)):
        Path(file).write_text('{"text": "any"}', encoding="utf-8")
    take_plan(Plugins(), plan)


def test_a_command_that_no_program_takes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="No such option"):
        check_ours(["prune", "--out", "x", "--sparsity", "0.5", "--prunner", "wanda"])
    monkeypatch.setattr(sys, "argv", ["lm_eval", "--model", "pruned-hf", "--model_args", "pruner=wnada", "--tasks", "icl"])
    with pytest.raises(BadOptionError, match="wanda"):
        check_stock(HarnessCLI().parse_args())
