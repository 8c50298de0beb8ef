"""Tiny models, and what the tests of the pruner ``width`` ask of them."""

from __future__ import annotations

import pytest
import tiny
import torch
from harness_ext_pruners.width import Width
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from harness_ext import Sparsity, find_blocks

IDS = tiny.token_ids()
WITH_HEADS = ("llama", "llama-gqa-tied", "qwen2", "qwen3", "mistral")
WITH_FFN_BIAS = ("opt", "gpt2", "gpt-neox")
READER = dict.fromkeys(WITH_HEADS, "mlp.down_proj") | {"opt": "fc2", "gpt2": "mlp.c_proj", "gpt-neox": "mlp.dense_4h_to_h"}
WRITERS = dict.fromkeys(WITH_HEADS, ("mlp.gate_proj", "mlp.up_proj")) | {
    "opt": ("fc1",),
    "gpt2": ("mlp.c_fc",),
    "gpt-neox": ("mlp.dense_h_to_4h",),
}
CHANNELS = dict.fromkeys(tiny.ARCHITECTURES, "intermediate_size") | {"opt": "ffn_dim", "gpt2": "n_inner"}
SIXTEEN = {"num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 4}
MOST = dict.fromkeys(WITH_HEADS, 0.5) | dict.fromkeys(WITH_FFN_BIAS, 0.3)  # all of the small FFN is 3/7 of the weights of a block
EIGHT = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4}  # four key/value heads with two query heads each

every_architecture = pytest.mark.parametrize("name", tiny.ARCHITECTURES)
every_one_with_heads = pytest.mark.parametrize("name", WITH_HEADS)
every_one_with_ffn_bias = pytest.mark.parametrize("name", WITH_FFN_BIAS)


def build(name, **changes):
    """With four key/value heads where heads can go, and without channels that a ReLU makes all zero by itself."""
    own = EIGHT if name in WITH_HEADS else {"activation_function": "gelu"} if name == "opt" else {}
    return tiny.model(name, **own, **changes)


def prune(model, ratio, *, ids=IDS, modules="all", **options):
    return Width(**options).prune_model(model, Sparsity.parse(ratio), ids, modules)


def blocks(model):
    return [block.module for block in find_blocks(model)]


def matrix(layer):
    """[out, in]"""
    return layer.weight.data.T if isinstance(layer, Conv1D) else layer.weight.data


def inputs_of(model, name, ids=IDS):
    """float64 [tokens, in] for the layer of that name in each block."""
    found = []
    layers = [block.get_submodule(name) for block in blocks(model)]
    handles = [layer.register_forward_pre_hook(lambda _, args: found.append(args[0].flatten(0, -2).double().numpy())) for layer in layers]
    with torch.no_grad():
        model(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def scores(inputs, layer, metric):
    weight = matrix(layer).double().numpy()
    return (inputs.var(0) if metric == "fluctuation" else (inputs**2).mean(0)) * (weight**2).sum(0)


def gone(notes, title, before):
    """For each block, which of ``before`` units went."""
    if title == "heads":
        return [sorted(entry["removed"]) for entry in notes["heads"]["blocks"].values()]
    found = []
    for entry in notes["channels"]["blocks"].values():
        bits = "".join(f"{int(digit, 16):04b}" for digit in entry["removed"])
        found.append([place for place in range(before) if bits[place] == "1"])
        assert "1" not in bits[before:]
    return found


def linear_weights(model, modules="all"):
    return sum(layer.weight.numel() for block in find_blocks(model, modules) for layer in block.layers)


def reloaded(model, folder, **options):
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, **options)


def attributes(model):
    """All plain attributes of all modules, and all shapes."""
    found = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for name, module in model.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, (bool, int, float, str)) and key[0] != "_"}
        found |= {f"{name}.{key}": value for key, value in plain.items() if key != "name_or_path"}
    return found
