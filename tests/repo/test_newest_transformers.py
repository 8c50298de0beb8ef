"""What CI says about the newest transformers, which must be told apart from what pytest says of the tests that count."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from environment import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import newest_transformers as script

TESTS = r"""
import harness_ext, pluggy, pytest, transformers

def test_good(): assert transformers.__version__ == "99.0"
def test_bad(): assert 1 == 2, "one\nand two"
@pytest.mark.skip(reason="so")
def test_skipped(): pass
@pytest.fixture
def broken(): raise OSError("no disk")
def test_error(broken): pass
"""
CLOSING = re.compile(r"\d+ (passed|failed|skipped|errors?)\b|^(=+|FAILED|ERROR) ", re.MULTILINE)  # what judges of a run look for


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What pip does in the place of installing: ``status``, and the ``version`` of transformers that is there afterwards."""
    does: dict[str, object] = {"status": 0, "version": "99.0"}
    original = script.run

    def run(log: Path, *command: str | Path) -> int:
        if "pip" not in command:
            return original(log, *command)
        log.write_text("ERROR: no network\n", encoding="utf-8")
        site = next((Path(command[0]).parents[1] / "lib").glob("*/site-packages"))
        (site / "transformers").mkdir()
        (site / "transformers" / "__init__.py").write_text(f"__version__ = {does['version']!r}", encoding="utf-8")
        return int(str(does["status"]))

    monkeypatch.setattr(script, "run", run)
    return does


def test_the_tests_run_with_what_was_installed_and_look_like_no_result_of_pytest(pip: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "scratch").mkdir()
    said = script.report([str(tmp_path / "test_it.py")], tmp_path / "scratch")
    first, *others = said.splitlines()
    assert first == f"newest transformers: 99.0, {tmp_path}/test_it.py: 1 of 4 tests pass, 2 fail, 1 are skipped"
    assert any("test_it.test_bad: AssertionError: one" in line for line in others)
    assert any("test_it.test_error" in line for line in others)
    assert not CLOSING.search(said)


def test_without_a_network_it_says_so(pip: dict[str, object], tmp_path: Path) -> None:
    pip["status"] = 1
    assert script.report(["tests/engine"], tmp_path) == "newest transformers: cannot be installed: ERROR: no network"


def test_where_the_newest_is_the_one_that_is_pinned_nothing_runs_twice(pip: dict[str, object], tmp_path: Path) -> None:
    pip["version"] = metadata.version("transformers")
    assert script.report(["tests/engine"], tmp_path).endswith("with which the tests have run")


def test_a_run_without_results_says_how_it_ended(pip: dict[str, object], tmp_path: Path) -> None:
    said = script.report(["--no-such-option"], tmp_path)
    assert re.search(r"99\.0, --no-such-option: no results \(exit status 4\): ", said)
