"""A streamed model has, tensor for tensor and bit for bit, what ``from_pretrained`` gives."""

from __future__ import annotations

import json
from pathlib import Path

import architectures
import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from harness_ext.weights.shards import Shards
from harness_ext.weights.skeleton import build

SAMPLE = (
    # tables of positions, computed in different ways
    "codegen", "gptj", "ctrl", "xglm", "gpt_neox", "persimmon", "llama/llama3", "llama/yarn", "phi3/longrope", "gemma3_text/mixed", "bloom",
    # weights that are kept in float32, or made in it
    "xlnet", "reformer", "zaya", "hy_v4", "inkling_text",
    # weights that are tied, or shared by blocks
    "llama/tied", "opt/350m", "zamba", "zamba2",
    "mamba", "xlstm", "cpmant", "roberta", "mpt", "gemma4_text", "cohere/qknorm",
)  # fmt: skip


def check(folder: Path, out: Path, dtype: torch.dtype | None = None) -> None:
    whole: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or "auto")
    with Shards.open(folder, out, dtype=dtype) as shards:
        stored = dict(shards.tensors())
        for expected, streamed in (
            (whole.named_parameters(remove_duplicate=False), shards.model.named_parameters(remove_duplicate=False)),
            (whole.named_buffers(remove_duplicate=False), shards.model.named_buffers(remove_duplicate=False)),
        ):
            in_place = dict(streamed)
            names = dict(expected)
            assert in_place.keys() == names.keys()
            for name, tensor in names.items():
                assert in_place[name].dtype == tensor.dtype, name
                if not in_place[name].is_meta:
                    assert tiny.same({name: in_place[name]}, {name: tensor}), name
        assert tiny.same(stored, whole.state_dict())


@pytest.mark.parametrize("name", SAMPLE)
def test_in_bfloat16(tmp_path: Path, name: str) -> None:
    architectures.model(name, dtype=torch.bfloat16).save_pretrained(tmp_path)
    check(tmp_path, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["gptj", "xlnet", "zaya", "reformer"])
def test_in_a_dtype_that_is_not_the_one_of_the_files(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    architectures.model(name, dtype=torch.bfloat16).save_pretrained(tmp_path)
    check(tmp_path, tmp_path, dtype)


def test_tables_of_long_sequences(tmp_path: Path) -> None:
    architectures.model("gptj", dtype=torch.bfloat16, n_positions=2048, rotary_dim=16).save_pretrained(tmp_path)
    check(tmp_path, tmp_path)


def test_a_configuration_without_a_dtype_takes_the_one_of_the_files(tmp_path: Path) -> None:
    architectures.model("llama", dtype=torch.bfloat16).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("dtype") == "bfloat16"
    (tmp_path / "config.json").write_text(json.dumps(config))
    check(tmp_path, tmp_path)


def test_no_memory_is_taken_for_weights() -> None:
    model = build(architectures.config("llama"), torch.bfloat16)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())
