"""Each page whose trials are kept is what its script writes from them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import fine_grid
import kept_trials
import memory_load
import paper_family
from paper_scores import read

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
    notes = archive.with_name("notes.md")
    takes_archives = script is fine_grid  # of 440 trials, which take minutes to put back
    if not takes_archives:
        CliRunner().invoke(kept_trials.app, ["put", str(archive), str(tmp_path)], catch_exceptions=False)
    sweeps = archive if takes_archives else tmp_path
    writing = ["page", sweeps, "--page", tmp_path / page, *(["--notes", notes] if notes.exists() else [])]
    CliRunner().invoke(script.app, [str(word) for word in writing], catch_exceptions=False)
    assert (tmp_path / page).read_text(encoding="utf-8") == (ROOT / "docs" / page).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_notes_on_the_load_of_the_memory_have_the_figures_of_the_kept_trials(tmp_path):
    CliRunner().invoke(kept_trials.app, ["put", str(SCRIPTS / "memory_load" / "trials.jsonl.xz"), str(tmp_path)], catch_exceptions=False)
    rows = []
    for people in (215, 3072):
        for words, prefix in (("to the end", "to-the-end-"), ("cut off", "")):
            context = f"{prefix}context-{people}" if prefix else "context"
            recall, in_context = read([tmp_path / f"{prefix}recall-{people}"]), read([tmp_path / context])
            name = memory_load.models(recall)[people][0]
            found = []
            for drop in paper_family.DROPS:
                for scores, ability in ((recall, "recall"), (in_context, "in-context")):
                    draws = [
                        paper_family.critical(
                            [paper_family.curve(scores, name, task, seed) for task in memory_load.ABILITIES[ability]], drop
                        )[0]
                        for seed in range(3)
                    ]
                    found.append(f"{np.mean(draws):.2f}")
            rows.append(f"| {people:,} | {words} | {' | '.join(found)} |")
    notes = (SCRIPTS / "memory_load" / "notes.md").read_text(encoding="utf-8")
    assert [line for line in notes.splitlines() if line.startswith(("| 215", "| 3,072"))] == rows
