"""GGUF files: their weights are unpacked and pruned, and the record says where they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf_files
import pytest
import tiny
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from harness_ext import HarnessExtError, PrunedHFLM, UnsupportedModelError
from harness_ext.commands.cli import app

HOW = {"pruner": "wanda", "calibration.samples": 4, "calibration.length": 16}
WORDS = ("--pruner", "wanda", "-o", "calibration.samples=4", "-o", "calibration.length=16", "--device", "cpu")


def prune(folder: Path, out: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["prune", "--pretrained", str(folder), "--out", str(out), *WORDS, *words])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


every_architecture = pytest.mark.parametrize("architecture", ["llama", "lfm2"])


@every_architecture
@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "F32"])
def test_a_dense_run_has_the_unpacked_weights(folder: Path, kind: str, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = gguf_files.write(folder / "tiny.gguf", kind, architecture)
    asked, load = [], AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *args, **kwargs: asked.append(kwargs) or load(*args, **kwargs))
    lm = PrunedHFLM(pretrained=str(folder), gguf_file="tiny.gguf", device="cpu")
    assert all(arguments["quantization_config"].dequantize for arguments in asked)  # else they stay packed where there is a kernel
    modules, compared = dict(lm.model.named_modules()), 0
    for stored, module in gguf_files.NAMES[architecture].items():
        for layer in range(gguf_files.LAYERS):
            if f"blk.{layer}.{stored}" in unpacked:
                found = modules[f"model.layers.{layer}.{module}"]
                assert type(found) is nn.Linear
                assert found.weight.equal(unpacked[f"blk.{layer}.{stored}"]), stored
                compared += 1
    assert compared >= 10


@every_architecture
@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_pruned_hf_and_the_command_prune_them_and_say_where_they_come_from(
    folder: Path, tmp_path: Path, kind: str, architecture: str
) -> None:
    gguf_files.write(folder / "tiny.gguf", kind, architecture)
    lm = PrunedHFLM(pretrained=str(folder), gguf_file="tiny.gguf", sparsity=0.5, device="cpu", **HOW)
    source = lm.pruning_record["source"]
    assert (source["gguf_file"], source["quantisation"]) == ("tiny.gguf", kind)
    assert source["tensor_types"] == ({"F32": 5, kind: 16} if architecture == "llama" else {"F32": 8, kind: 14})
    done = prune(folder, tmp_path / "out", "--sparsity", "0.5", "--gguf-file", "tiny.gguf")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / "pruning.json").read_text())
    assert {name: record["source"][name] for name in ("gguf_file", "quantisation", "tensor_types")} == {
        name: source[name] for name in ("gguf_file", "quantisation", "tensor_types")
    }
    assert record["fingerprint"] == lm.pruning_record["fingerprint"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert tiny.same(tiny.weights(model), tiny.weights(lm.model))
    assert not hasattr(model.config, "quantization_config")
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("a b c")["input_ids"] == lm.tokenizer("a b c")["input_ids"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"dequantised from tiny.gguf ({kind})" in card
    assert "--gguf-file tiny.gguf" in card


def test_a_checkpoint_in_the_same_folder_is_another_model(folder: Path, tmp_path: Path) -> None:
    tiny.checkpoint(folder)
    gguf_files.write(folder / "tiny.gguf")
    assert prune(folder, tmp_path / "a", "--sparsity", "0.5").exit_code == 0
    assert prune(folder, tmp_path / "b", "--sparsity", "0.5", "--gguf-file", "tiny.gguf").exit_code == 0
    widths = [AutoModelForCausalLM.from_pretrained(tmp_path / name).config.hidden_size for name in "ab"]
    assert widths == [tiny.WIDTH, gguf_files.WIDTH]


class TestRefused:
    def refused(self, folder: Path, tmp_path: Path, name: str, *said: str) -> None:
        with pytest.raises(HarnessExtError) as error:
            PrunedHFLM(pretrained=str(folder), gguf_file=name, sparsity=0.5, device="cpu", **HOW)
        done = prune(folder, tmp_path / "out", "--sparsity", "0.5", "--gguf-file", name)
        assert done.exit_code == 1
        line = done.stderr.splitlines()[-1]  # behind a bar of transformers
        for text in (line, str(error.value)):
            assert "\n" not in text
            assert all(part in text for part in said), text
        assert not (tmp_path / "out").exists()

    def test_a_file_that_is_not_there(self, folder: Path, tmp_path: Path) -> None:
        gguf_files.write(folder / "tiny.gguf")
        self.refused(folder, tmp_path, "tny.gguf", "gguf_file='tny.gguf'", "no such file", "it has tiny.gguf")

    @pytest.mark.parametrize("bytes_left", [0, 3, 300, 20_000])
    def test_a_file_that_is_cut_off(self, folder: Path, tmp_path: Path, bytes_left: int) -> None:
        gguf_files.write(folder / "tiny.gguf")
        (folder / "tiny.gguf").write_bytes((folder / "tiny.gguf").read_bytes()[:bytes_left])
        self.refused(folder, tmp_path, "tiny.gguf", "tiny.gguf: no GGUF file, or one that is cut off")

    def test_a_file_of_something_else(self, folder: Path, tmp_path: Path) -> None:
        (folder / "tiny.gguf").write_text("no such thing " * 100)
        self.refused(folder, tmp_path, "tiny.gguf", "no GGUF file")

    def test_missing_weights(self, folder: Path, tmp_path: Path) -> None:
        gguf_files.write(folder / "tiny.gguf", without=("blk.1.ffn_up",))
        self.refused(folder, tmp_path, "tiny.gguf", "do not hold", "model.layers.1.mlp.up_proj.weight")

    def test_a_stream_of_it(self, folder: Path, tmp_path: Path) -> None:
        gguf_files.write(folder / "tiny.gguf")
        done = prune(folder, tmp_path / "out", "--sparsity", "0.5", "--gguf-file", "tiny.gguf", "--stream")
        assert "--stream does not go with --gguf-file" in done.stderr

    def test_a_folder_without_a_configuration_says_how(self, folder: Path, tmp_path: Path) -> None:
        gguf_files.write(folder / "tiny.gguf")
        done = prune(folder, tmp_path / "out", "--sparsity", "0.5")
        assert "there is no config.json in this folder; for tiny.gguf give --gguf-file" in done.stderr


def test_what_does_not_fit_the_model_is_refused_before_its_weights_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf_files.write(folder / "tiny.gguf")
    monkeypatch.setattr(PrunedHFLM, "_create_model", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(HarnessExtError, match=r"sparsity=2:5: .* has 64 inputs, which 5 does not divide"):
        PrunedHFLM(pretrained=str(folder), gguf_file="tiny.gguf", sparsity="2:5", pruner="magnitude", device="cpu")


def test_weights_that_stay_packed_cannot_be_pruned() -> None:
    """A model that somebody else loaded, and did not unpack."""
    model = tiny.model()
    packed = nn.Parameter(torch.zeros(tiny.INNER, 10, dtype=torch.uint8), requires_grad=False)
    model.model.layers[0].mlp.up_proj.weight = packed
    with pytest.raises(UnsupportedModelError, match="load the model in bf16, fp16 or fp32"):
        PrunedHFLM(pretrained=model, tokenizer=tiny.tokenizer(), sparsity=0.5, pruner="magnitude")
