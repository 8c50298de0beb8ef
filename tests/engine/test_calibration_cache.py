"""Calibration tokens that are kept on disk: the same bits, and another entry for whatever decides them."""

from __future__ import annotations

import logging
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from harness_ext_calibrations.self_generated import SelfGenerated
from refusals import raises_line

from harness_ext import BadOptionError, Calibration, prune
from harness_ext.engine import calibration_cache
from harness_ext.engine.calibration_cache import VARIABLE, entries, folder

SMALL = {"samples": 3, "length": 8}


def run(model: Any = None, *, tokenizer: Any = None, options: dict[str, Any] | None = None, **changes: Any) -> tuple[dict[str, Any], Any]:
    """The record of a pruned model, and its weights."""
    model = model or tiny.model()
    given = SMALL | (options or {}) if isinstance(changes.get("calibration", "self"), str) else None
    record = prune(model, pruner="wanda", sparsity=0.5, tokenizer=tokenizer or tiny.tokenizer(), calibration_options=given, **changes)
    return record, tiny.weights(model)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("a b c d e f g h i j k l m n o p " * 9)
    return path


class TestSameBits:
    @pytest.mark.parametrize("source", ["self", "file"])
    def test_with_and_without(self, text: Path, source: str) -> None:
        calibration = "self" if source == "self" else str(text)
        without, plain = run(calibration=calibration, calibration_cache=False)
        assert not entries()
        first, written = run(calibration=calibration)
        second, read = run(calibration=calibration)
        assert [record["calibration_from_cache"] for record in (without, first, second)] == [False, False, True]
        assert tiny.same(plain, written)
        assert tiny.same(plain, read)
        assert without["fingerprint"] == first["fingerprint"] == second["fingerprint"]
        assert without["calibration"] == second["calibration"]

    def test_the_model_writes_nothing_the_second_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run()
        monkeypatch.setattr(SelfGenerated, "input_ids", lambda *_: pytest.fail("it was asked again"))
        assert run()[0]["calibration_from_cache"]

    def test_global_generators_are_as_without(self) -> None:
        states = []
        for _ in range(2):
            torch.manual_seed(3)
            run()
            states.append(torch.get_rng_state())
        assert torch.equal(*states)


class TestWhatDecides:
    @pytest.mark.parametrize(
        "options",
        [{"seed": 1}, {"samples": 4}, {"length": 9}, {"temperature": 0.5}, {"bos": False}],
        ids=lambda options: next(iter(options)),
    )
    def test_options(self, options: dict[str, Any]) -> None:
        run()
        assert not run(options=options)[0]["calibration_from_cache"]
        assert len(entries()) == 2

    def test_the_weights_the_configuration_and_the_kind_of_a_model_that_writes(self) -> None:
        run()
        for model in (tiny.model(seed=1), tiny.model(dtype=torch.bfloat16), tiny.model(rms_norm_eps=0.1), tiny.model("mistral")):
            assert not run(model)[0]["calibration_from_cache"]

    def test_the_weights_do_not_decide_on_the_tokens_of_a_file(self, text: Path) -> None:
        run(calibration=str(text))
        assert run(tiny.model(seed=1), calibration=str(text))[0]["calibration_from_cache"]

    def test_the_content_of_a_file(self, text: Path) -> None:
        run(calibration=str(text))
        text.write_text(text.read_text() + "z")
        assert not run(calibration=str(text))[0]["calibration_from_cache"]

    def test_the_tokenizer(self, text: Path) -> None:
        from tokenizers.normalizers import Lowercase

        other = tiny.tokenizer()
        other.backend_tokenizer.normalizer = Lowercase()
        run(calibration=str(text))
        assert not run(tokenizer=other, calibration=str(text))[0]["calibration_from_cache"]

    def test_the_number_of_threads(self) -> None:
        run()
        before = torch.get_num_threads()
        torch.set_num_threads(before + 1)
        try:
            assert not run()[0]["calibration_from_cache"]
        finally:
            torch.set_num_threads(before)


class TestNotKept:
    def test_of_a_model_with_hooks(self) -> None:
        model = tiny.model()
        model.lm_head.register_forward_hook(lambda module, args, output: output * 2)
        run(model)
        assert not entries()

    def test_of_a_source_that_does_not_say_what_decides(self) -> None:
        class Mine(Calibration):
            """Fixed tokens."""

            name = "mine"

            def input_ids(self, model: Any, tokenizer: Any) -> torch.Tensor:
                return tiny.token_ids(3, 8)

        assert not run(calibration=Mine())[0]["calibration_from_cache"]
        assert not entries()

    def test_of_token_ids(self) -> None:
        assert not run(calibration=tiny.token_ids(3, 8))[0]["calibration_from_cache"]
        assert not entries()


def only_file() -> Path:
    (path,) = folder().iterdir()
    return path


class TestDamage:
    @pytest.mark.parametrize("how", ["empty", "half", "other tokens", "noise", "another entry", "no metadata"])
    def test_is_computed_again_and_replaced(self, how: str, caplog: pytest.LogCaptureFixture) -> None:
        from safetensors.torch import save_file

        _, weights = run()
        path = only_file()
        content = path.read_bytes()
        if how == "another entry":
            run(options={"seed": 1})
            (other,) = set(folder().iterdir()) - {path}
            path.write_bytes(other.read_bytes())
            other.unlink()
        elif how == "no metadata":
            save_file({"input_ids": tiny.token_ids(3, 8)}, path)
        else:
            changed = {"empty": b"", "half": content[: len(content) // 2], "noise": os.urandom(len(content))}
            path.write_bytes(changed.get(how, content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]))
        caplog.set_level(logging.WARNING)
        again, same = run()
        assert not again["calibration_from_cache"]
        assert tiny.same(weights, same)
        (said,) = [record.getMessage() for record in caplog.records if str(path) in record.getMessage()]
        assert "damaged" in said
        assert "\n" not in said
        assert path.read_bytes() == content
        assert run()[0]["calibration_from_cache"]

    def test_a_killed_writer_leaves_nothing_that_is_read(self) -> None:
        run()
        path = only_file()
        path.rename(path.with_name(f".{path.name}.01234567.part"))
        assert not run()[0]["calibration_from_cache"]
        assert calibration_cache.clear() == 1
        assert not list(folder().iterdir())


class TestFolder:
    def test_that_cannot_be_written_is_said_once_and_fails_no_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "cache"))
        caplog.set_level(logging.INFO)
        _, weights = run()
        _, again = run()
        assert tiny.same(weights, again)
        said = [record.getMessage() for record in caplog.records if "not kept" in record.getMessage()]
        assert len(said) == 1
        assert "\n" not in said[0]

    def test_follows_the_variables_of_the_hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(VARIABLE)
        monkeypatch.delenv("HF_HOME", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert folder() == tmp_path / "xdg" / "huggingface" / "harness_ext" / "calibration"
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        assert folder() == tmp_path / "home" / "harness_ext" / "calibration"
        monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
        assert folder() == tmp_path / "mine"

    def test_other_files_in_it_are_left_alone(self) -> None:
        run()
        (folder() / "notes.txt").write_text("mine")
        assert [entry.about["source"] for entry in entries()] == ["self"]
        assert calibration_cache.clear() == 1
        assert [path.name for path in folder().iterdir()] == ["notes.txt"]


def _fill(barrier: Any, results: Any) -> None:
    torch.set_num_threads(1)
    barrier.wait()
    record, _ = run()
    results.put((record["fingerprint"], record["calibration"]["digest"]))


@pytest.mark.slow
def test_several_processes_fill_one_entry() -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_fill, args=(barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = {results.get(timeout=300) for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 1
    assert only_file().suffix == ".safetensors"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run()[0]["calibration_from_cache"]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("wrong", ["yes", 1, None])
def test_the_argument_is_true_or_false(wrong: Any) -> None:
    with raises_line(BadOptionError, f"calibration_cache={wrong!r}", "True or False"):
        run(calibration_cache=wrong)
