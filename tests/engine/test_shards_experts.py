"""Checkpoints that store experts one by one, pruned one decoder block at a time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from harness_ext import UnsupportedModelError, find_blocks, prune
from harness_ext.engine.plan import make_plan
from harness_ext.engine.run import apply
from harness_ext.plugins import Plugins
from harness_ext.weights.shards import Shards
from harness_ext.weights.weight_files import INDEX, SINGLE

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import tiny_architectures

# w1, w2 and w3 of each expert; gate, up and down; one parameter for all, transposed; the mixer of a hybrid in pieces; DBRX
FAMILIES = ("mixtral", "qwen3_moe", "gpt_oss", "minimax_m2", "granitemoe", "dbrx", "llama4_text", "bailing_hybrid")
IDS = tiny_architectures.token_ids(4, 24)


def source(folder: Path, family: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    size = {"n_layers": 2} if family == "dbrx" else {"num_hidden_layers": 2}
    model = tiny_architectures.build(family, dtype=dtype, **(size | changes))
    model.save_pretrained(folder / "in")
    return folder / "in"


def streamed(folder: Path, out: Path, **options: Any) -> dict[str, Any]:
    out.mkdir()
    plan = make_plan(Plugins(), **({"pruner": "wanda", "sparsity": 0.5, "calibration": IDS, "dense_limit": 0.1} | options))
    with Shards.open(folder, out) as shards:
        record = apply(plan, shards.model, None, placement=shards)
        shards.finish()
    return record


def stored(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in the files."""
    return {name: tuple(tensor.shape) for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_streamed_is_whole_in_the_pieces_of_the_source(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    folder, out = source(tmp_path, family, dtype), tmp_path / "out"
    record = streamed(folder, out)
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    expected = prune(whole, pruner="wanda", sparsity=0.5, calibration=IDS, dense_limit=0.1)
    assert record["fingerprint"] == expected["fingerprint"]
    assert record.get("experts") == expected.get("experts")
    again = AutoModelForCausalLM.from_pretrained(out).eval()
    assert tiny.same(tiny.weights(again), tiny.weights(whole))
    with torch.no_grad():
        assert torch.equal(again(IDS, use_cache=False).logits, whole(IDS, use_cache=False).logits)
    assert stored(out) == stored(folder)
    assert json.loads((out / INDEX).read_text())["weight_map"].keys() == stored(folder).keys()


def test_experts_are_stored_one_by_one_in_these_checkpoints(tmp_path: Path) -> None:
    """Or the test above would test less than it says."""
    names = stored(source(tmp_path, "qwen3_moe"))
    assert names["model.layers.1.mlp.experts.3.gate_proj.weight"] == (32, 64)
    assert len([name for name in names if ".experts." in name]) == 2 * 4 * 3


@pytest.mark.parametrize(
    "options",
    [
        {"true_sequential": True},
        {"allocation": "owl"},
        {"pruner": "sparsegpt"},
        {"experts": "all"},
        {"pruner": "gptq", "bits": 3},
        {"pruner": "gptq", "bits": 4, "sparsity": 0, "experts": "all", "pruner_options": {"group_size": 16}},
    ],
    ids=str,
)
def test_the_same_with_other_options(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = source(tmp_path, "mixtral")
    streamed(folder, tmp_path / "out", **options)
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    prune(whole, **({"pruner": "wanda", "sparsity": 0.5, "calibration": IDS, "dense_limit": 0.1} | options))
    assert tiny.same(tiny.weights(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), tiny.weights(whole))


def test_one_block_of_experts_is_in_memory_at_a_time(tmp_path: Path) -> None:
    folder, out = source(tmp_path, "mixtral", num_hidden_layers=4), tmp_path / "out"
    out.mkdir()
    with Shards.open(folder, out) as shards:
        blocks = find_blocks(shards.model)
        for block in blocks:
            with shards.loaded(block, write=True):
                held = [other.name for other in blocks if not any(p.is_meta for p in other.module.parameters())]
                assert held == [block.name]
            assert all(layer.weight.is_meta for layer in block.layers)


def test_names_without_the_prefix_of_the_head(tmp_path: Path) -> None:
    folder = source(tmp_path, "qwen3_moe")
    tensors = {name.removeprefix("model."): tensor for name, tensor in load_file(folder / SINGLE).items()}
    save_file(tensors, folder / SINGLE, {"format": "pt"})
    streamed(folder, tmp_path / "out")
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    prune(whole, pruner="wanda", sparsity=0.5, calibration=IDS, dense_limit=0.1)
    assert tiny.same(tiny.weights(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), tiny.weights(whole))
    assert stored(tmp_path / "out") == stored(folder)


def test_parameters_that_are_stored_as_the_model_has_them(tmp_path: Path) -> None:
    folder = source(tmp_path, "mixtral")
    model = AutoModelForCausalLM.from_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / SINGLE, {"format": "pt"})
    streamed(folder, tmp_path / "out")
    whole = model.eval()
    prune(whole, pruner="wanda", sparsity=0.5, calibration=IDS, dense_limit=0.1)
    assert tiny.same(tiny.weights(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), tiny.weights(whole))
    assert stored(tmp_path / "out") == stored(folder)


@pytest.mark.parametrize("change", ["one is missing", "another shape", "all are missing"])
def test_experts_that_are_not_all_there_are_refused(tmp_path: Path, change: str) -> None:
    folder = source(tmp_path, "qwen3_moe")
    tensors = load_file(folder / SINGLE)
    name = "model.layers.1.mlp.experts.2.up_proj.weight"
    if change == "one is missing":
        del tensors[name]
    elif change == "another shape":
        tensors[name] = tensors[name][:-1].contiguous()
    else:
        tensors = {other: tensor for other, tensor in tensors.items() if "layers.1.mlp.experts" not in other}
    save_file(tensors, folder / SINGLE, {"format": "pt"})
    with pytest.raises(
        UnsupportedModelError, match=r"the files do not hold .*model\.layers\.1\.mlp\.experts\.(gate_up|down)_proj"
    ) as error:
        streamed(folder, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "out").iterdir())
