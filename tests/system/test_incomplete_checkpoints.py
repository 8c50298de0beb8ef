"""A checkpoint whose weights are not all there is refused in one line, in memory and streamed: nothing is drawn at random."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import architectures
import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from harness_ext import UnsupportedModelError
from harness_ext.commands.cli import app
from harness_ext.host.model import PrunedHFLM
from harness_ext.weights.loading import load
from harness_ext.weights.weight_files import INDEX, SINGLE

Change = Callable[[dict[str, torch.Tensor]], Any]
UP = "model.layers.1.mlp.up_proj.weight"


def checkpoint(folder: Path, name: str = "llama", *, change: Change = lambda tensors: None, size: str | None = None, **options: Any) -> str:
    """A checkpoint, of one file whose tensors are changed, or of shards of at most ``size``."""
    tiny.model(name, **options).save_pretrained(folder, **({"max_shard_size": size} if size else {}))
    tiny.tokenizer().save_pretrained(folder)
    if not size:
        tensors = load_file(folder / SINGLE)
        change(tensors)
        save_file(tensors, folder / SINGLE, {"format": "pt"})
    return str(folder)


def prune(folder: str, out: Path, *flags: str) -> Any:
    return CliRunner().invoke(
        app, ["prune", "--pretrained", folder, "--pruner", "magnitude", "--sparsity", "0.5", "--out", str(out), *flags]
    )


def refused(folder: str, tmp_path: Path, *said: str) -> None:
    """The same in pruned-hf, with and without pruning, and in both ways of ``harness-ext prune``."""
    for sparsity in (0, 0.5):
        with pytest.raises(UnsupportedModelError) as error:
            PrunedHFLM(pretrained=folder, pruner="magnitude", sparsity=sparsity, device="cpu")
        assert "\n" not in str(error.value)
        assert all(text in str(error.value) for text in said), error.value
    for flags in ((), ("--stream",)):
        done = prune(folder, tmp_path / "out", *flags)
        assert done.exit_code == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("UnsupportedModelError: ")
        assert all(text in line for text in said), line
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("llama", lambda t: t.pop(UP), [UP]),
        ("llama", lambda t: t.pop("lm_head.weight"), ["lm_head.weight"]),  # which is not tied
        ("llama", lambda t: t.pop("model.norm.weight"), ["model.norm.weight"]),
        ("llama", lambda t: t.clear(), ["and 18 others"]),
        ("llama-gqa-tied", lambda t: t.pop("model.embed_tokens.weight"), ["embed_tokens.weight"]),
        ("gpt2", lambda t: t.pop("transformer.h.0.attn.c_attn.bias"), ["transformer.h.0.attn.c_attn.bias"]),
        ("qwen3", lambda t: t.pop("model.layers.0.self_attn.q_norm.weight"), ["model.layers.0.self_attn.q_norm.weight"]),
    ],
    ids=["a layer", "the head", "the last norm", "everything", "both of two tied", "a bias", "a norm in a block"],
)
def test_missing_weights(tmp_path: Path, name: str, change: Change, said: list[str]) -> None:
    refused(checkpoint(tmp_path / "in", name, change=change), tmp_path, "do not hold", *said)


def test_a_missing_buffer_that_was_trained(tmp_path: Path) -> None:
    """The correction of a router: a buffer in the files, not a parameter."""
    model = architectures.model("deepseek_v3")
    model.save_pretrained(tmp_path / "in")
    tiny.tokenizer().save_pretrained(tmp_path / "in")
    tensors = load_file(tmp_path / "in" / SINGLE)
    buffer = next(name for name in tensors if name.endswith("e_score_correction_bias"))
    del tensors[buffer]
    save_file(tensors, tmp_path / "in" / SINGLE, {"format": "pt"})
    with pytest.raises(UnsupportedModelError, match=buffer):
        PrunedHFLM(pretrained=str(tmp_path / "in"), sparsity=0, device="cpu")


@pytest.fixture(params=[logging.WARNING, logging.ERROR], ids=["warnings", "errors"])
def verbosity(request: pytest.FixtureRequest) -> Iterator[int]:
    """From which level on transformers logs."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(request.param)
    yield request.param
    transformers.logging.set_verbosity(before)


def test_the_report_is_logged_at_the_callers_level(tmp_path: Path, verbosity: int, caplog: pytest.LogCaptureFixture) -> None:
    tiny.checkpoint(tmp_path)
    save_file(load_file(tmp_path / SINGLE) | {"other.weight": torch.ones(2)}, tmp_path / SINGLE, {"format": "pt"})
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addHandler(caplog.handler)
    try:
        load(AutoModelForCausalLM, str(tmp_path))
        logger.warning("after it")
    finally:
        logger.removeHandler(caplog.handler)
    assert ("LOAD REPORT" in caplog.text) == ("after it" in caplog.text) == (verbosity == logging.WARNING)


@pytest.mark.parametrize("lost", ["missing", "cut"])
@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3"])
@pytest.mark.usefixtures("verbosity")
def test_parts_of_experts(tmp_path: Path, name: str, lost: str) -> None:
    architectures.model(name).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / SINGLE)
    part = [stored for stored, tensor in tensors.items() if ".experts." in stored and tensor.ndim >= 2][1]
    tensors[part] = tensors[part][..., 1:].contiguous()
    if lost == "missing":
        del tensors[part]
    save_file(tensors, tmp_path / SINGLE, {"format": "pt"})
    with pytest.raises(UnsupportedModelError, match=r"experts\.(gate_up|down)_proj") as error:
        PrunedHFLM(pretrained=str(tmp_path), sparsity=0, device="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update({UP: torch.ones(3, 16)}), [UP, "(3, 16)", "(24, 16)"]),
        (lambda t: t.update({"model.norm.weight": torch.ones(16, 1)}), ["model.norm.weight", "(16, 1)", "(16,)"]),
        (lambda t: t.update({name: tensor[1:].clone() for name, tensor in t.items()}), ["20 other tensors do not fit"]),
    ],
    ids=["a layer", "a norm", "everything"],
)
def test_weights_of_another_shape(tmp_path: Path, change: Change, said: list[str]) -> None:
    refused(checkpoint(tmp_path / "in", change=change), tmp_path, "the model wants", *said)


def test_a_configuration_of_more_layers_than_the_files(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "in")
    config = json.loads((tmp_path / "in" / "config.json").read_text())
    (tmp_path / "in" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    refused(folder, tmp_path, "do not hold model.layers.2.", "and 6 others")


class TestShards:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return Path(checkpoint(tmp_path / "in", size="8KB", layers=3))

    def test_a_file_that_is_not_there(self, folder: Path, tmp_path: Path) -> None:
        file = sorted(folder.glob("model-*"))[1]
        file.unlink()
        refused(str(folder), tmp_path, file.name, "no such file", INDEX)

    def test_several_files_that_are_not_there(self, folder: Path, tmp_path: Path) -> None:
        files = sorted(folder.glob("model-*"))
        for file in files[1:]:
            file.unlink()
        refused(str(folder), tmp_path, files[1].name, f"{len(files) - 2} other files")

    def test_a_file_that_the_index_does_not_name(self, folder: Path, tmp_path: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        last = max(index["weight_map"].values())
        index["weight_map"] = {name: file for name, file in index["weight_map"].items() if file != last}
        (folder / INDEX).write_text(json.dumps(index))
        refused(str(folder), tmp_path, "do not hold")

    def test_a_tensor_that_only_the_index_has(self, folder: Path, tmp_path: Path) -> None:
        file = folder / json.loads((folder / INDEX).read_text())["weight_map"][UP]
        tensors = load_file(file)
        del tensors[UP]
        save_file(tensors, file, {"format": "pt"})
        refused(str(folder), tmp_path, "do not hold", UP)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', '{"weight_map": {"x": null}}'])
    def test_an_index_that_is_none(self, folder: Path, tmp_path: Path, text: str) -> None:
        (folder / INDEX).write_text(text)
        refused(str(folder), tmp_path, INDEX)

    @pytest.mark.parametrize("bytes_left", [0, 4, 100, 3000])
    def test_a_file_that_is_cut_off(self, folder: Path, tmp_path: Path, bytes_left: int) -> None:
        file = sorted(folder.glob("model-*"))[1]
        file.write_bytes(file.read_bytes()[:bytes_left])
        refused(str(folder), tmp_path, file.name, "cannot be read")


@pytest.mark.parametrize("bytes_left", [0, 4, 100, 20_000])
def test_a_single_file_that_is_cut_off(tmp_path: Path, bytes_left: int) -> None:
    folder = checkpoint(tmp_path / "in")
    file = tmp_path / "in" / SINGLE
    file.write_bytes(file.read_bytes()[:bytes_left])
    refused(folder, tmp_path, SINGLE, "cannot be read")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", "cut"], ids=["empty", "text", "cut off"])
def test_a_file_of_torch_that_is_cut_off(tmp_path: Path, content: Any) -> None:
    folder = checkpoint(tmp_path / "in")
    tensors = load_file(tmp_path / "in" / SINGLE)
    (tmp_path / "in" / SINGLE).unlink()
    file = tmp_path / "in" / "pytorch_model.bin"
    torch.save(tensors, file)
    file.write_bytes(file.read_bytes()[:3000] if content == "cut" else content)
    with pytest.raises(UnsupportedModelError, match="cannot be loaded") as error:
        PrunedHFLM(pretrained=folder, sparsity=0.5, pruner="magnitude", device="cpu")
    assert "\n" not in str(error.value)
    done = prune(folder, tmp_path / "out")
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1


class TestWhatMayBeMissing:
    """What from_pretrained computes or ignores on its own is no fault of the checkpoint."""

    @staticmethod
    def loads(folder: Path, tmp_path: Path) -> None:
        expected = AutoModelForCausalLM.from_pretrained(folder).state_dict()
        assert tiny.same(PrunedHFLM(pretrained=str(folder), device="cpu").model.state_dict(), expected)
        outs = []
        for flags in ((), ("--stream",)):
            out = tmp_path / f"out{len(outs)}"
            done = prune(str(folder), out, *flags)
            assert done.exit_code == 0, done.stderr
            outs.append(AutoModelForCausalLM.from_pretrained(out).state_dict())
        assert tiny.same(*outs)

    def test_one_of_two_tied(self, tmp_path: Path) -> None:
        self.loads(Path(checkpoint(tmp_path / "in", "llama-gqa-tied")), tmp_path)

    def test_the_other_of_two_tied(self, tmp_path: Path) -> None:
        def move(tensors: dict[str, torch.Tensor]) -> None:
            tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")

        self.loads(Path(checkpoint(tmp_path / "in", "llama-gqa-tied", change=move)), tmp_path)

    def test_tables_that_older_versions_stored(self, tmp_path: Path) -> None:
        def add(tensors: dict[str, torch.Tensor]) -> None:
            tensors |= {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(2) for layer in range(2)}
            tensors |= {"model.rotary_emb.inv_freq": torch.ones(2)}

        self.loads(Path(checkpoint(tmp_path / "in", change=add)), tmp_path)

    def test_masks_that_older_versions_stored(self, tmp_path: Path) -> None:
        def add(tensors: dict[str, torch.Tensor]) -> None:
            for layer in range(2):
                attention = f"gpt_neox.layers.{layer}.attention"
                tensors[f"{attention}.bias"] = torch.ones(1, 1, 32, 32)
                tensors[f"{attention}.masked_bias"] = torch.tensor(-1e9)
                tensors[f"{attention}.rotary_emb.inv_freq"] = torch.ones(2)

        self.loads(Path(checkpoint(tmp_path / "in", "gpt-neox", change=add)), tmp_path)

    @pytest.mark.parametrize("name", ["roberta", "bert", "gpt_neox", "gptj", "codegen", "xglm"])
    def test_buffers_that_are_not_saved(self, tmp_path: Path, name: str) -> None:
        settings = {"is_decoder": True} if name in ("roberta", "bert") else {}
        architectures.model(name, **settings).save_pretrained(tmp_path / "in")
        tiny.tokenizer().save_pretrained(tmp_path / "in")
        stored = set(load_file(tmp_path / "in" / SINGLE))
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "in")
        assert {name for name, _ in model.named_buffers()} - stored
        self.loads(tmp_path / "in", tmp_path)
