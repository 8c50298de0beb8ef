"""What a run says to plugins that write where they must not."""

from __future__ import annotations

from typing import ClassVar

import pytest
import tiny
import torch
from broken_allocations import Even, WritesWeights
from broken_calibrations import Fixed
from broken_pruners import Embeddings, Good, Whole, WritesStatistic, WritesTokens

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
    ("arguments", "message"),
    [
        (
            IDS | {"pruner": MeasuresScaled()},
            r"statistic Scales broke its contract on model\.layers\.0\.self_attn\.q_proj: .*into the inputs",
        ),
        (IDS | {"pruner": WritesStatistic()}, r"pruner 'good' broke its contract on model\.layers\.0\.self_attn\.q_proj: .*the statistic"),
        (IDS | {"pruner": Embeddings()}, r"pruner 'whole' broke its contract: it changed model\.embed_tokens\.weight"),
        (IDS | {"pruner": WritesTokens()}, "pruner 'whole' broke its contract: it wrote into the calibration tokens"),
        (IDS | {"pruner": Replaces()}, r"pruner 'whole' broke its contract: it replaced the module model\.layers\.0\.mlp\.up_proj"),
        (
            IDS | {"pruner": "magnitude", "allocation": WritesWeights()},
            r"allocation 'even' broke its contract on model\.layers\.0: .*a weight",
        ),
        ({"pruner": "wanda", "calibration": Trained(samples=2, length=4)}, "calibration 'fixed' broke its contract: .*the model's weights"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_plugin_that_writes_where_it_must_not_is_named_with_the_layer_and_the_rule(arguments, message):
    with pytest.raises(PluginError, match=message) as raised:
        harness_ext.prune(tiny.model(), sparsity=0.5, **arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "arguments", [{"pruner": Good()}, {"pruner": Whole()}, {"pruner": "sparsegpt", "allocation": Even()}], ids=["layer", "model", "spread"]
)
def test_plugins_that_write_nowhere_are_left_in_peace(arguments):
    assert harness_ext.prune(tiny.model(), sparsity=0.5, **IDS, **arguments)["achieved_sparsity"] == pytest.approx(0.5, abs=0.01)
