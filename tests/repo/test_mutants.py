"""The list of mutants fits the code: the text of each is in one place, and its tests exist."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import mutants

ROOT = Path(__file__).parents[2]
MUTANTS = mutants.read_mutants()


def test_the_text_of_each_mutant_is_in_the_code_once():
    absent = [mutant.name for mutant in MUTANTS if mutants.find(ROOT, mutant) is None]
    assert absent == []


def test_each_mutant_has_tests():
    assert [mutant.name for mutant in MUTANTS if not mutants.test_files(ROOT, mutant.tests)] == []


def test_a_text_that_is_there_twice_is_refused():
    with pytest.raises(SystemExit, match="is there"):
        mutants.find(ROOT, mutants.Mutant("twice", "", (("import numpy as np", ""),), ()))
