"""Runs tests with the newest transformers, in a throw-away environment on top of this one, and says how many pass. It fails nothing.

    python scripts/newest_transformers.py [tests/engine]

The environment holds the newest transformers and what that needs newer; all else is found where this interpreter has it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import xml.etree.ElementTree as ET
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 900  # for all tests
SHOWN = 20  # tests that fail


def main(tests: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        print(report(tests or ["tests/engine"], Path(scratch)))


def report(tests: list[str], scratch: Path) -> str:
    """What there is to say: one line, and one for each test that fails."""
    python = overlay(scratch / "venv")
    log = scratch / "log.txt"
    if run(log, python, "-m", "pip", "install", "--quiet", "--upgrade", "transformers"):
        return f"newest transformers: cannot be installed: {last_line(log)}"
    asked = subprocess.run(
        [str(python), "-c", "import transformers; print(transformers.__version__)"], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        return f"newest transformers: cannot be imported: {asked.stderr.strip().splitlines()[-1]}"
    version = asked.stdout.strip()
    if version == metadata.version("transformers"):
        return f"newest transformers: {version}, with which the tests have run"
    results = scratch / "results.xml"
    status = run(log, python, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", f"--junitxml={results}", *tests)
    if not results.is_file():
        return f"newest transformers: {version}, {' '.join(tests)}: no results (exit status {status}): {last_line(log)}"
    return f"newest transformers: {version}, {' '.join(tests)}: {summary(results)}"


def overlay(folder: Path) -> Path:
    """A virtual environment in which everything of this one can be imported, and pip installs newer versions before it.

    Returns:
        its interpreter.
    """
    venv.create(folder, symlinks=os.name != "nt", with_pip=False)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    line = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"  # reads .pth files too, such as ours
    (site / "below.pth").write_text(line, encoding="utf-8")
    return python


def run(log: Path, *command: str | Path) -> int:
    """Runs a program with its output in a file; returns its exit status."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("w", encoding="utf-8") as file:
        try:
            done = subprocess.run(
                [*map(str, command)], cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            file.write(f"stopped after {SECONDS} s\n")
            return -1
    return done.returncode


def last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def summary(results: Path) -> str:
    """The counts of a JUnit XML file, and the tests that failed."""
    cases = list(ET.parse(results).iter("testcase"))
    failed = [(case, child) for case in cases for child in case if child.tag in ("failure", "error")]
    skipped = sum(child.tag == "skipped" for case in cases for child in case)
    names = {f"{case.get('classname')}.{case.get('name')}" for case, _ in failed}
    lines = [f"{len(cases) - len(names) - skipped} of {len(cases)} tests pass, {len(names)} fail, {skipped} are skipped"]
    for case, child in failed[:SHOWN]:
        said = (child.get("message") or "").strip().splitlines() or [child.tag]
        lines.append(f"    {case.get('classname')}.{case.get('name')}: {said[0][:200]}")
    if len(failed) > SHOWN:
        lines.append(f"    and {len(failed) - SHOWN} more")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
