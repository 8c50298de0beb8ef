"""The calibration texts of the reproduction: true, and without an item of the tasks."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import calibration_texts
from lab_text import folder
from transformers import AutoTokenizer

from harness_ext.tasks import icl, lab_facts
from harness_ext.tasks.people import population


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(folder())


class TestTexts:
    @pytest.mark.slow
    def test_facts_are_true_and_none_is_asked(self, tokenizer, monkeypatch):
        monkeypatch.setattr(calibration_texts, "TOKENS", 20_000)
        text = calibration_texts.facts(tokenizer, 1)
        told = dict(re.findall(r"Question: (.*)\nAnswer: (.*)\n\n", text))
        true = {fact.question: fact.answers[0] for fact in lab_facts.facts_of(population(0), "memorised")}
        assert len(told) > 1000
        questions = {re.search(r"Question: (.*)\n", question).group(1): answer for question, answer in true.items()}
        assert all(questions[question] == answer for question, answer in told.items())
        for items in (32, 256, 512, 1024):
            rows = lab_facts.load(condition="closed", people="memorised", facts_items=items)["test"]
            asked = {re.search(r"Question: (.*)\n", row["prompt"]).group(1) for row in rows}
            assert len(asked) == items
            assert not asked & told.keys()

    def test_no_exemplars_of_a_test_item_are_in_the_text_of_functions(self, tokenizer, monkeypatch):
        monkeypatch.setattr(calibration_texts, "TOKENS", 20_000)
        text = calibration_texts.functions(tokenizer, 1)
        blocks = re.findall(r"Input: [\d, ]+\nOutput: \d", text)
        assert len(blocks) > 1000
        windows = {tuple(blocks[at : at + 3]) for at in range(len(blocks) - 2)}
        for family in ("linear", "nn", "tree"):
            for row in icl.load(family=family, icl_items=64)["test"]:
                items = re.findall(r"Input: [\d, ]+\nOutput: \d", row["prompt"])
                assert len(items) == 32
                assert not any(tuple(items[at : at + 3]) in windows for at in range(30))

    @pytest.mark.slow
    def test_the_seed_decides_the_text(self, tokenizer, monkeypatch):
        monkeypatch.setattr(calibration_texts, "TOKENS", 3_000)
        for make in (calibration_texts.facts, calibration_texts.functions):
            assert make(tokenizer, 1) == make(tokenizer, 1) != make(tokenizer, 2)
