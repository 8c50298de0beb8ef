"""Puts small faults into a copy of the tree, one at a time, and says whether the tests notice.

    python scripts/mutants.py                       # all mutants, this tree
    python scripts/mutants.py --only walk,sparsity  # the mutants of some files
    python scripts/mutants.py --tree DIR --python ENV/bin/python --table before.md

``mutants.yaml`` lists them: a text of the package, a plausible mistake in its place, and the test files that should fail. A mutant is
found by its text, so that it still applies when the file moves.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

SOURCES = ("harness_ext", "plugins")
LEFT_OUT = (".git", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", "docs/site")
PASSED = "0"  # exit code of pytest
FORKS = """
import json, os, sys
import pytest, torch, transformers.models.llama.modeling_llama

for line in sys.stdin:
    output, words = json.loads(line)
    if not (process := os.fork()):
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1), os.dup2(file, 2)
        for name in [name for name in sys.modules if name.split(".")[0].startswith("harness_ext")]:
            del sys.modules[name]  # may have been imported from the tree without the mutant
        code = pytest.main(words)
        sys.stdout.flush(), sys.stderr.flush(), os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Mutant:
    """A small fault, as ``mutants.yaml`` describes it."""

    name: str
    breaks: str
    forms: tuple[tuple[str, str], ...]
    """The text and its replacement; several where the same fault can be put into different versions of the code."""
    tests: tuple[str, ...]
    """Test modules, without ``test_``."""


def read_mutants() -> list[Mutant]:
    """All mutants, in the order of the file."""
    entries = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    forms = [tuple((form["old"], form["new"]) for form in [entry, *entry.get("or", [])]) for entry in entries]
    return [
        Mutant(entry["name"], entry["breaks"], replacements, tuple(entry["tests"].split()))
        for entry, replacements in zip(entries, forms, strict=True)
    ]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: ``caught``, ``survived``, or ``absent`` where the tree has no such text."""

    mutant: Mutant
    file: str
    result: str
    seconds: float
    by: str = ""


def copy_tree(tree: Path, folder: Path) -> Path:
    """A copy of the tree that may be changed."""
    return Path(shutil.copytree(tree, folder / "copy", ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True))


def environment(copy: Path) -> dict[str, str]:
    """The environment in which Python imports the packages of the copy, and leaves no bytecode of a mutant behind."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(copy), str(copy / "plugins")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


def check_import(copy: Path, python: str) -> None:
    """Stops unless the packages that are imported are those of the copy."""
    code = "import harness_ext, harness_ext_pruners; print(harness_ext.__file__); print(harness_ext_pruners.__file__)"
    run = subprocess.run([python, "-c", code], cwd=copy, env=environment(copy), capture_output=True, text=True, check=True)
    if others := [line for line in run.stdout.split() if not Path(line).resolve().is_relative_to(copy.resolve())]:
        raise SystemExit(f"{others[0]} is imported, not the copy in {copy}")


def find(copy: Path, mutant: Mutant) -> tuple[Path, str, str] | None:
    """The file that holds the text of a mutant, the text and its replacement; None if no file does.

    Raises:
        SystemExit: the text is there more than once.
    """
    files = [path for source in SOURCES for path in sorted((copy / source).rglob("*.py"))]
    for old, new in mutant.forms:
        holders = [path for path in files if old in path.read_text(encoding="utf-8")]
        counts = sum(path.read_text(encoding="utf-8").count(old) for path in holders)
        if counts > 1:
            raise SystemExit(f"{mutant.name}: the text {old!r} is there {counts} times, in {', '.join(str(path) for path in holders)}")
        if holders:
            return holders[0], old, new
    return None


def test_files(copy: Path, names: Iterable[str]) -> list[str]:
    """The paths of the test modules of these names, without those that the tree has not."""
    wanted = {f"test_{name}.py" for name in names}
    return sorted(str(path.relative_to(copy)) for path in (copy / "tests").rglob("test_*.py") if path.name in wanted)


class Server:
    """Runs pytest in forks of a process that has imported the libraries, which takes longer than most tests.

    Args:
        copy: the tree to test.
        python: of an environment with its dependencies.
    """

    def __init__(self, copy: Path, python: str) -> None:
        self._output = copy.parent / "pytest.txt"
        # Bytecode that is checked by the text, since a mutant may have the time and the size of its file
        subprocess.run([python, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", *SOURCES], cwd=copy, check=True)
        self._process = subprocess.Popen(
            [python, "-c", FORKS], cwd=copy, env=environment(copy), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def failures(self, tests: Iterable[str], *options: str) -> list[str]:
        """The names of the tests that fail; an error in a module counts as a failure of all of it.

        Args:
            tests: files, or names of tests.
            options: for pytest.

        Raises:
            SystemExit: pytest could not run.
        """
        words = ["-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", *options, *tests]
        if self._process.stdin is None or self._process.stdout is None:
            raise SystemExit("no pipes to the process that runs pytest")
        self._process.stdin.write(json.dumps([str(self._output), words]) + "\n")
        self._process.stdin.flush()
        code, output = self._process.stdout.readline().strip(), self._output.read_text(encoding="utf-8")
        lines = [line.split(" - ")[0].split(maxsplit=1)[1] for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        if code != PASSED and not lines:
            raise SystemExit(f"pytest {' '.join(words)} ended with {code}: {output[-2000:]}")
        return lines

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def judge(server: Server, copy: Path, mutant: Mutant, broken: set[str]) -> Outcome:
    """Applies a mutant, runs its tests until one fails, and takes it back.

    Args:
        broken: tests to leave out, since they fail without a mutant.
    """
    place = find(copy, mutant)
    if place is None:
        return Outcome(mutant, "", "absent", 0.0)
    path, old, new = place
    text, began = path.read_text(encoding="utf-8"), time.perf_counter()
    path.write_text(text.replace(old, new), encoding="utf-8")
    try:
        failed = server.failures(test_files(copy, mutant.tests), "-x", *(f"--deselect={name}" for name in sorted(broken)))
    finally:
        path.write_text(text, encoding="utf-8")
    result = "caught" if failed else "survived"
    return Outcome(mutant, str(path.relative_to(copy)), result, time.perf_counter() - began, failed[0] if failed else "")


def judge_all(server: Server, copy: Path, mutants: list[Mutant]) -> list[Outcome]:
    """The outcome of each mutant. A test that fails without a mutant as well is left out, and says so."""
    broken: set[str] = set()
    outcomes: dict[str, Outcome] = {}
    while left := [mutant for mutant in mutants if mutant.name not in outcomes]:
        for mutant in left:
            outcome = outcomes[mutant.name] = judge(server, copy, mutant, broken)
            print(f"{outcome.result:9} {outcome.seconds:5.1f} s  {mutant.name}  {outcome.by}", flush=True)
        failed = sorted({outcomes[mutant.name].by for mutant in left} - {""})
        for name in server.failures(failed) if failed else []:
            if name in broken:
                raise SystemExit(f"{name} fails without a mutant, and cannot be left out")
            print(f"left out, since it fails without a mutant: {name}", flush=True)
            broken.add(name)
        outcomes = {name: outcome for name, outcome in outcomes.items() if outcome.by not in broken}
    return [outcomes[mutant.name] for mutant in mutants]


def table(outcomes: list[Outcome]) -> str:
    """The outcomes in Markdown."""
    rows = ["| mutant | file | what breaks | result | first failure |", "|---|---|---|---|---|"]
    rows += [f"| {o.mutant.name} | {o.file} | {o.mutant.breaks} | {o.result} | {o.by.replace('|', '/')} |" for o in outcomes]
    return "\n".join(rows) + "\n"


def main() -> int:
    """Runs the mutants; the exit code is 1 if one survives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1], help="the source tree; default: this one")
    parser.add_argument("--python", default=sys.executable, help="the Python of an environment with the dependencies of that tree")
    parser.add_argument("--only", default="", help="parts of mutants' names, with commas")
    parser.add_argument("--table", type=Path, help="write the table to this file as well")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in read_mutants() if any(part in mutant.name for part in arguments.only.split(","))]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = copy_tree(arguments.tree.resolve(), Path(folder))
        check_import(copy, arguments.python)
        for mutant in chosen:
            find(copy, mutant)  # stops where a text is ambiguous
        server = Server(copy, arguments.python)
        outcomes = judge_all(server, copy, chosen)
        server.close()
    if arguments.table:
        arguments.table.write_text(table(outcomes), encoding="utf-8")
    counts = {result: sum(outcome.result == result for outcome in outcomes) for result in sorted({o.result for o in outcomes})}
    print(", ".join(f"{count} {result}" for result, count in counts.items()))
    return int(any(outcome.result != "caught" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
