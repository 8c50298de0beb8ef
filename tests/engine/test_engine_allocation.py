"""What a run demands of an allocation, and what it gets to see."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from refusals import raises_line

from harness_ext import Allocation, BadOptionError, ChannelNorms, LayerShape, ModelPruner, PluginError, Sparsity, prune

SPREAD = """
from harness_ext import Allocation, Sparsity, hookimpl

SEEN = []

class Spread(Allocation):
    name = "spread"
    def spread(self, sparsity, layers, measured):
        {}

@hookimpl
def register_allocations(register):
    register(Spread)
"""


class TestAllocation:
    """A plugin that spreads the sparsity over the layers."""

    def test_is_used(self, install_plugin):
        install_plugin("spread", SPREAD.format("return {layer.name: 0.25 if layer.block == 0 else 0.75 for layer in layers}"))
        record = prune(tiny.model(), pruner="magnitude", sparsity=0.5, allocation="spread")
        assert {(name.split(".")[2], entry["achieved"], entry["asked"]) for name, entry in record["layers"].items()} == {
            ("0", 0.25, "0.25"),
            ("1", 0.75, "0.75"),
        }
        assert record["achieved_sparsity"] == 0.5
        assert record["plan"]["allocation"] == "spread"
        assert record["allocation_plugin"]["distribution"] == "spread"

    @pytest.mark.parametrize(
        ("body", "parts"),
        [
            ("return {layer.name: 0.5 for layer in layers[1:]}", ["1 of 14", "'model.layers.0.self_attn.q_proj'"]),
            ("return {layer.name: 0.4 for layer in layers}", ["2176"]),
        ],
    )
    def test_that_is_wrong_is_an_error_before_anything_is_done(self, install_plugin, body, parts):
        install_plugin("spread", SPREAD.format(body))
        model = tiny.model()
        before = tiny.weights(model)
        with raises_line(PluginError, "allocation 'spread'", *parts):
            prune(model, pruner="magnitude", sparsity=0.5, allocation="spread")
        assert tiny.same(tiny.weights(model), before)

    def test_gets_the_sparsity_and_the_shapes_of_the_selected_layers(self, install_plugin):
        install_plugin("spread", SPREAD.format("SEEN.append((sparsity, layers)); return {layer.name: sparsity for layer in layers}"))
        prune(tiny.model(), pruner="magnitude", sparsity="2:4", modules="*.v_proj", allocation="spread")
        import spread

        shapes = [LayerShape(f"model.layers.{i}.self_attn.v_proj", i, "attention", 16, 16) for i in range(2)]
        assert [(Sparsity.parse("2:4"), shapes)] == spread.SEEN

    def test_is_not_asked_where_nothing_is_removed(self, install_plugin):
        install_plugin("spread", SPREAD.format("raise ZeroDivisionError"))
        prune(tiny.model(), sparsity=0, allocation="spread")

    def test_is_refused_for_a_pruner_of_whole_models(self, install_plugin):
        install_plugin("spread", SPREAD.format("raise ZeroDivisionError"))
        own = type("Own", (ModelPruner,), {"name": "own", "prune_model": lambda *_: None})()
        with raises_line(BadOptionError, "allocation='spread'", "'own'"):
            prune(tiny.model(), pruner=own, sparsity=0.5, allocation="spread")

    def test_a_pattern_that_does_not_divide_a_layer_is_refused(self, install_plugin):
        install_plugin("spread", SPREAD.format("return {layer.name: Sparsity.parse('8:16') for layer in layers}"))
        with raises_line(BadOptionError, "sparsity=8:16", "down_proj", "24"):
            prune(tiny.model(), pruner="magnitude", sparsity=0.5, allocation="spread")

    def test_sees_the_weights_of_the_dense_model_and_what_reaches_them(self):
        """In one pass: the second block is measured behind a first one that is not pruned yet."""
        seen, dense, ids = [], tiny.model(), tiny.token_ids()

        class Look(Allocation):
            name = "look"
            statistic = ChannelNorms

            def measure(self, block, pruner):
                seen.extend((layer, weight.clone(), norms) for layer, weight, norms in block)
                return len(block)

            def spread(self, sparsity, layers, measured):
                assert measured == {0: 7, 1: 7}
                return {layer.name: sparsity for layer in layers}

        model = copy.deepcopy(dense)
        prune(model, pruner="wanda", sparsity=0.5, calibration=ids, allocation=Look())
        inputs = {}
        for layer, weight, _ in seen:
            module = dense.get_submodule(layer.name)
            assert weight.equal(module.weight)
            module.register_forward_pre_hook(lambda _, args, name=layer.name: inputs.update({name: args[0].detach().flatten(0, 1)}))
        dense(input_ids=ids)
        for layer, _, norms in seen:
            torch.testing.assert_close(norms.norms, inputs[layer.name].norm(dim=0))
