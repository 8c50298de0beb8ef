"""Calibration sequences begin with the BOS token where the tokenizer puts it before a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import tiny
import torch
from harness_ext_calibrations.file import File
from harness_ext_calibrations.hub import Hub
from harness_ext_calibrations.self_generated import SelfGenerated
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from harness_ext import Calibration, CalibrationError, prune
from harness_ext.method.calibration import adds_bos
from harness_ext.method.documents import Texts

BOS = 7  # the digit 5, which no text here has
LETTERS = " ".join("abcdefghijklmnopqrstuvwxyz" * 6)
SMALL: dict[str, Any] = {"samples": 20, "length": 9}


def tokenizer(*, adds: str = "", bos: bool = True) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with 5 as its BOS token, which puts before a text what ``adds`` says."""
    built = tiny.tokenizer()
    built.bos_token = "5" if bos else None
    if adds:
        built.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{adds} $A", special_tokens=[("5", BOS), ("6", BOS + 1)]
        )
    return built


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (tmp_path / "a.txt").write_text(LETTERS)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: iter([{"text": LETTERS}] * 9))
    return {
        "file": lambda **options: File(path=str(tmp_path / "a.txt"), **SMALL | options),
        "hub": lambda **options: Hub(dataset="x", **SMALL | options),
        "texts": lambda **options: Texts.of([LETTERS, LETTERS], SMALL | options),
        "self": lambda **options: SelfGenerated(**SMALL | options),
        "own": lambda **options: Own(**SMALL | options),
    }


class Own(Calibration):
    """A plugin's, with texts of its own."""

    name = "own"

    def texts(self) -> Any:
        yield LETTERS


every_source = pytest.mark.parametrize("which", ["file", "hub", "texts", "self", "own"])
every_text = pytest.mark.parametrize("which", ["file", "hub", "texts", "own"])


@pytest.mark.parametrize(
    ("adds", "bos", "expected"), [("", True, False), ("5", True, True), ("6", True, False), ("5 6", True, True), ("5", False, False)]
)
def test_whether_a_tokenizer_adds_it_is_seen_in_what_it_does(adds: str, bos: bool, expected: bool) -> None:
    assert adds_bos(tokenizer(adds=adds, bos=bos)) is expected


@every_source
@pytest.mark.parametrize(
    ("adds", "option", "expected"),
    [("5", "auto", True), ("", "auto", False), ("6", "auto", False), ("", True, True), ("5", True, True), ("5", False, False)],
)
def test_every_sequence_begins_with_it_or_none(sources: Any, which: str, adds: str, option: Any, expected: bool) -> None:
    ids = sources[which](bos=option).input_ids(tiny.model(), tokenizer(adds=adds))
    assert ids.shape == (20, 9)
    assert ids.dtype == torch.int64
    assert (ids[:, 0] == BOS).all() if expected else not (ids[:, 0] == BOS).all()
    if which != "self":
        assert not (ids[:, 1:] == BOS).any()


@every_text
def test_the_windows_are_the_same_without_their_last_token(sources: Any, which: str) -> None:
    model = tiny.model()
    with_bos, without = (sources[which](bos=option).input_ids(model, tokenizer()) for option in (True, False))
    assert with_bos[:, 1:].equal(without[:, :-1])


@every_text
def test_a_window_that_begins_with_it_anyway_gets_no_second_one(sources: Any, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sources[which](bos=True)
    monkeypatch.setattr(type(source), "tokens", lambda self, tokenizer: iter([[BOS, 12, 13, 14, 15, 16, 17, 18, 19]]))
    assert source.input_ids(tiny.model(), tokenizer()).tolist() == [[BOS, 12, 13, 14, 15, 16, 17, 18, 19]] * 20


@every_source
def test_it_cannot_be_asked_of_a_tokenizer_that_has_none(sources: Any, which: str) -> None:
    with pytest.raises(CalibrationError, match=r"calibration\.bos=True: the tokenizer has no BOS token"):
        sources[which](bos=True).input_ids(tiny.model(), tokenizer(bos=False))


@pytest.mark.parametrize(("option", "bos", "eos", "first"), [("auto", 3, 4, 3), ("auto", None, 4, 4), (True, 3, 4, 3), (False, 3, 4, None)])
def test_a_model_without_a_tokenizer_goes_by_its_configuration(option: Any, bos: Any, eos: Any, first: Any) -> None:
    ids = SelfGenerated(samples=40, length=3, bos=option).input_ids(tiny.model(bos_token_id=bos, eos_token_id=eos), None)
    assert (ids[:, 0] == first).all() if first is not None else len(ids[:, 0].unique()) > 5


def test_and_cannot_be_asked_for_one_that_it_does_not_name() -> None:
    with pytest.raises(CalibrationError, match=r"calibration\.bos=True: the configuration of the model names no BOS token"):
        SelfGenerated(bos=True, **SMALL).input_ids(tiny.model(bos_token_id=None), None)


@every_source
@pytest.mark.parametrize("option", ["auto", False])
def test_the_record_says_which(sources: Any, which: str, option: Any) -> None:
    made = prune(tiny.model(), pruner="wanda", sparsity=0.5, calibration=sources[which](bos=option), tokenizer=tokenizer(adds="5"))
    assert made["calibration"]["bos"] is (option == "auto")
    assert made["plan"]["calibration_options"]["bos"] == option


@pytest.mark.parametrize(("first", "expected"), [(BOS, True), (12, False)])
def test_also_of_token_ids(first: int, expected: bool) -> None:
    ids = tiny.token_ids()
    ids[:, 0] = first
    made = prune(tiny.model(), pruner="wanda", sparsity=0.5, calibration=ids, tokenizer=tokenizer())
    assert made["calibration"]["bos"] is expected
    assert "bos" not in prune(tiny.model(), pruner="wanda", sparsity=0.5, calibration=ids)["calibration"]
