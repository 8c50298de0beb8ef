"""What a run says to plugins that write where they must not."""

from __future__ import annotations

from typing import ClassVar

import pytest
import tiny
import torch
from broken_allocations import Even, WritesWeights
from broken_calibrations import Fixed
from broken_pruners import Embeddings, Good, Whole, WritesStatistic, WritesTokens
from refusals import raises_line

import harness_ext
from harness_ext import ChannelNorms, PluginError


class Scales(ChannelNorms):
    """Scales the inputs in place."""

    def update(self, inputs):
        super().update(inputs.mul_(2))


class MeasuresScaled(Good):
    """Measures what writes into its inputs."""

    statistic: ClassVar[type] = Scales


class Replaces(Whole):
    """Puts a module in the place of another."""

    def prune_model(self, model, sparsity, calibration, modules="all"):
        super().prune_model(model, sparsity, calibration)
        old = model.model.layers[0].mlp.up_proj
        model.model.layers[0].mlp.up_proj = torch.nn.Linear(old.in_features, old.out_features, bias=False)


class Trained(Fixed):
    """Writes into the model that it samples from."""

    def input_ids(self, model, tokenizer):
        with torch.no_grad():
            model.lm_head.weight.mul_(2)
        return super().input_ids(model, tokenizer)


IDS = {"calibration": tiny.token_ids()}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (IDS | {"pruner": MeasuresScaled()}, ["statistic Scales", "model.layers.0.self_attn.q_proj", "inputs"]),
        (IDS | {"pruner": WritesStatistic()}, ["pruner 'good'", "model.layers.0.self_attn.q_proj", "statistic"]),
        (IDS | {"pruner": Embeddings()}, ["pruner 'whole'", "model.embed_tokens.weight"]),
        (IDS | {"pruner": WritesTokens()}, ["pruner 'whole'", "calibration tokens"]),
        (IDS | {"pruner": Replaces()}, ["pruner 'whole'", "model.layers.0.mlp.up_proj"]),
        (IDS | {"pruner": "magnitude", "allocation": WritesWeights()}, ["allocation 'even'", "model.layers.0", "weight"]),
        ({"pruner": "wanda", "calibration": Trained(samples=2, length=4)}, ["calibration 'fixed'", "weights"]),
    ],
)
def test_a_plugin_that_writes_where_it_must_not_is_named_with_the_layer_and_the_rule(arguments, parts):
    with raises_line(PluginError, *parts):
        harness_ext.prune(tiny.model(), sparsity=0.5, **arguments)


@pytest.mark.parametrize(
    "arguments", [{"pruner": Good()}, {"pruner": Whole()}, {"pruner": "sparsegpt", "allocation": Even()}], ids=["layer", "model", "spread"]
)
def test_plugins_that_write_nowhere_are_left_in_peace(arguments):
    assert harness_ext.prune(tiny.model(), sparsity=0.5, **IDS, **arguments)["achieved_sparsity"] == pytest.approx(0.5, abs=0.01)
