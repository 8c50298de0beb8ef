"""``.ci/run`` runs what the README says."""

from __future__ import annotations

import os
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
from environment import ROOT

# In the place of python3: makes a virtual environment whose programs only say that they were called.
PYTHON = """#!/bin/sh
[ "$1 $2" = "-m venv" ] || exit 9
mkdir -p "$3/bin"
for tool in pip pytest ruff mypy mkdocs python; do
    printf '#!/bin/sh\\necho %s "$@" >> "$LOG"\\ncase "%s $*" in $FAILING*) exit 1 ;; esac\\n' $tool $tool > "$3/bin/$tool"
    chmod +x "$3/bin/$tool"
done
"""


def extract(readme: Path, name: str = "test") -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "scripts" / "readme_block.sh"), name, str(readme)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def run(tmp_path: Path, readme: str, failing: str = "nothing") -> tuple[int, list[str]]:
    """Runs ``.ci/run`` with a doctored README and stand-ins for the tools; returns its exit status and what was called.

    ``failing`` is how the command begins that fails.
    """
    root = tmp_path / "clone"
    for name in (".ci/run", "scripts/readme_block.sh"):
        (root / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, root / name)
    (root / "README.md").write_text(readme, encoding="utf-8")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python3").write_text(PYTHON, encoding="utf-8")
    (programs / "python3").chmod(0o755)
    log = tmp_path / "log"
    variables = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "LOG": str(log), "FAILING": failing}
    ran = subprocess.run([str(root / ".ci" / "run")], cwd=tmp_path, env=variables, check=False, timeout=60, capture_output=True)
    return ran.returncode, log.read_text(encoding="utf-8").splitlines() if log.exists() else []


DOCTORED = """# Title

```bash
pip install nothing
```

<!-- ci: test -->

```bash
pip install this &&
  pytest --that
```
"""
SLOW = ["pytest -n 2 --dist loadfile -m slow"]
LINTERS = ["ruff check", "ruff format --check", "mypy"]
SITE = ["pip install --quiet -c constraints.txt -e .[docs]", "mkdocs build --strict --config-file scripts/mkdocs.yml"]
REAL = ["pip install --quiet -c constraints.txt -e .[gguf]", "python -m harness_ext_smollm2", "pytest -m real tests/real"]
NEWEST = ["python scripts/newest_transformers.py"]
APART = {
    name: [
        f"pip install --quiet -c plugins/harness_ext_{name}/constraints.txt -e .[{name}] pytest",
        f"pytest tests/with_{name}",
    ]
    for name in ("sparseml", "llmcompressor")
}
CHECKS = ["pip install this", "pytest --that", *SLOW, *LINTERS, *SITE, *REAL, *NEWEST]
PEERS = [*APART["sparseml"], *APART["llmcompressor"]]  # beside the checks that come after the slow tests


def in_order(log: list[str]) -> tuple[list[str], list[str]]:
    """What was called of the checks, and of the peers."""
    return [line for line in log if line not in PEERS], [line for line in log if line in PEERS]


def test_the_readme_has_the_blocks_that_ci_and_users_run() -> None:
    assert extract(ROOT / "README.md", "run").stdout.strip().splitlines()[-1].startswith("lm_eval ")
    assert extract(ROOT / "README.md").stdout == "pip install -c constraints.txt -e '.[test]' && pytest -n 2 --dist loadfile\n"


def test_ci_runs_the_line_of_the_readme_and_then_the_linters_and_builds_the_site(tmp_path: Path) -> None:
    status, log = run(tmp_path, DOCTORED)
    assert (status, in_order(log)) == (0, (CHECKS, PEERS))
    assert log.index(PEERS[0]) > log.index(SLOW[0])


def test_ci_fails_where_a_peer_does_after_the_checks(tmp_path: Path) -> None:
    status, log = run(tmp_path, DOCTORED, "pytest\\ tests/with_sparseml")
    assert (status, in_order(log)) == (1, (CHECKS, APART["sparseml"]))


@pytest.mark.parametrize("name", APART)
def test_tests_that_need_other_versions_are_left_to_the_environment_that_ci_makes_for_them(name: str, pytestconfig: pytest.Config) -> None:
    folder = ROOT / "tests" / f"with_{name}"
    assert any(fnmatch(folder.name, pattern) for pattern in pytestconfig.getini("norecursedirs"))
    assert list(folder.glob("test_*.py"))
    assert (ROOT / "plugins" / f"harness_ext_{name}" / "constraints.txt").is_file()
    assert APART[name][-1] == f"pytest {folder.relative_to(ROOT)}"


def test_ci_goes_on_where_the_newest_transformers_fail(tmp_path: Path) -> None:
    status, log = run(tmp_path, DOCTORED, NEWEST[0].replace(" ", "\\ "))
    assert (status, in_order(log)) == (0, (CHECKS, PEERS))


@pytest.mark.parametrize(
    ("failing", "called"),
    [("pip", ["pip install this"]), ("pytest", ["pip install this", "pytest --that"]), ("mypy", None), ("ruff", None), ("mkdocs", None)],
)
def test_ci_fails_where_a_command_does_and_goes_no_further(tmp_path: Path, failing: str, called: list[str] | None) -> None:
    status, log = run(tmp_path, DOCTORED, failing)
    assert status == 1
    assert in_order(log)[0][-1].startswith(failing)
    assert called is None or log == called


@pytest.mark.parametrize(
    "readme",
    [
        "no block",
        "<!-- ci: run -->\n```bash\npytest\n```\n",
        "<!-- ci: test -->\n```python\npytest\n```\n",
        "<!-- ci: test -->\ntext\n```bash\npytest\n```\n",
        "<!-- ci: test -->\n```bash\npytest\n",
        "<!-- ci: test -->\n```bash\n```\n",
    ],
)
def test_ci_fails_where_the_readme_has_no_such_block(tmp_path: Path, readme: str) -> None:
    status, log = run(tmp_path, readme)
    assert status == 1
    assert log == []
