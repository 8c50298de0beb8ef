"""Each page whose trials are kept is what its script writes from them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import kept_trials

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
KEPT = sorted(SCRIPTS.glob("*/trials.jsonl.xz"))


def test_there_are_kept_trials():
    assert KEPT


@pytest.mark.slow
@pytest.mark.parametrize("archive", KEPT, ids=lambda path: path.parent.name)
def test_a_page_is_what_its_kept_trials_say(archive, tmp_path):
    pytest.importorskip("matplotlib")
    script, page = importlib.import_module(archive.parent.name), f"{archive.parent.name.replace('_', '-')}.md"
    for app, words in ((kept_trials.app, ["put", archive, tmp_path]), (script.app, ["page", tmp_path, "--page", tmp_path / page])):
        CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert (tmp_path / page).read_text(encoding="utf-8") == (ROOT / "docs" / page).read_text(encoding="utf-8")
