"""Weights, inputs and outputs that are NaN or infinite are an error, which names where they are."""

from __future__ import annotations

import pytest
import tiny
import torch
from pairwise import all_pairs
from refusals import raises_line
from torch import nn

from harness_ext import NumericalError, prune
from harness_ext.engine import walk


class Blowing(nn.Module):
    def forward(self, states):
        return states * float("nan")


@all_pairs(
    pruner=["magnitude", "sparsegpt"],
    value=[float("nan"), float("inf")],
    where=["model.layers.1.self_attn.o_proj.weight", "model.embed_tokens.weight", "lm_head.weight"],
)
def test_in_a_weight_are_an_error_that_names_it_before_anything_is_done(pruner, value, where):
    model = tiny.model()
    model.get_parameter(where).data[3, 5] = value
    before = tiny.weights(model)
    with raises_line(NumericalError, where, "NaN or infinite"):
        prune(model, pruner=pruner, sparsity=0.5, calibration=tiny.token_ids())
    assert tiny.same(tiny.weights(model), before)


def test_in_an_input_are_an_error_that_names_the_layer():
    model = tiny.model()
    model.model.layers[1].mlp.act_fn = Blowing()
    with raises_line(NumericalError, "model.layers.1.mlp.down_proj", "input", "NaN or infinite"):
        prune(model, pruner="sparsegpt", sparsity=0.5, calibration=tiny.token_ids())


def test_in_an_output_are_an_error_that_names_the_block():
    model = tiny.model(dtype=torch.float16)
    model.model.layers[0].mlp.down_proj.weight.data.fill_(6e4)  # their sum is beyond what float16 can hold
    with raises_line(NumericalError, "model.layers.0", "output", "NaN or infinite"):
        prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_in_the_output_for_one_sequence_alone_are_an_error(value, monkeypatch):
    """Neither the first batch nor the last has it, and the proof looks at the first two sequences only."""
    model, ids = tiny.model(), tiny.token_ids(6).clamp(min=1)
    ids[4] = 0
    monkeypatch.setattr(walk, "BATCH_TOKENS", 2 * ids.shape[1])
    marked = model.model.embed_tokens.weight.data
    marked[0] = 0
    marked[0, 0] = 1e3

    def spoil(_, args, output):
        return torch.where(args[0][..., :1] > 500, value, output)

    model.model.layers[0].register_forward_hook(spoil)
    before = tiny.weights(model.model.layers[1])
    with raises_line(NumericalError, "model.layers.0", "output", "NaN or infinite"):
        prune(model, pruner="sparsegpt", sparsity=0.5, calibration=torch.cat([ids, ids[:1]]))
    assert tiny.same(tiny.weights(model.model.layers[1]), before)
