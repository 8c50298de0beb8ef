"""The pruner ``width``: which heads and channels go, against a computation of its own in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from refusals import raises_line
from widths import (
    IDS,
    READER,
    WITH_FFN_BIAS,
    WRITERS,
    attributes,
    blocks,
    build,
    every_architecture,
    every_one_with_ffn_bias,
    every_one_with_heads,
    gone,
    inputs_of,
    matrix,
    prune,
    reloaded,
    scores,
)

from harness_ext import BadOptionError


class TestScores:
    @every_architecture
    @pytest.mark.parametrize("metric", ["fluctuation", "energy"])
    def test_of_channels_are_those_of_the_formula_and_the_lowest_go(self, name, metric):
        model = build(name)
        layers = [block.get_submodule(READER[name]) for block in blocks(model)]
        wanted = [scores(inputs, layer, metric) for inputs, layer in zip(inputs_of(model, READER[name]), layers, strict=True)]
        dense = [matrix(layer).clone() for layer in layers]
        notes = prune(model, 0.25, modules="ffn", metric=metric)
        assert gone(notes, "channels", 24) == [sorted(np.argsort(score)[:6].tolist()) for score in wanted]
        for entry, score in zip(notes["channels"]["blocks"].values(), wanted, strict=True):
            assert entry["highest_removed"] == pytest.approx(np.sort(score)[5], rel=1e-6)
            assert entry["lowest_kept"] == pytest.approx(np.sort(score)[6], rel=1e-6)
        for layer, old, places in zip(layers, dense, gone(notes, "channels", 24), strict=True):
            assert matrix(layer).equal(old[:, [place for place in range(24) if place not in places]])

    @every_one_with_heads
    @pytest.mark.parametrize("metric", ["fluctuation", "energy"])
    def test_of_heads_add_up_over_all_that_share_a_key_and_value(self, name, metric):
        model = build(name)
        layers = [block.self_attn.o_proj for block in blocks(model)]
        dense = [tiny.weights(block.self_attn) for block in blocks(model)]
        wanted = [
            scores(inputs, layer, metric).reshape(4, 8).sum(1)
            for inputs, layer in zip(inputs_of(model, "self_attn.o_proj"), layers, strict=True)
        ]
        notes = prune(model, 0.5, modules="attention", metric=metric)
        assert gone(notes, "heads", 4) == [sorted(np.argsort(score)[:2].tolist()) for score in wanted]
        for block, old, places in zip(blocks(model), dense, gone(notes, "heads", 4), strict=True):
            kept = [place for place in range(4) if place not in places]
            new = tiny.weights(block.self_attn)
            for projection, size in (("q", 8), ("k", 4), ("v", 4)):
                for kind in ("weight", "bias"):
                    if (key := f"{projection}_proj.{kind}") in old:
                        assert new[key].equal(old[key].unflatten(0, (4, size))[kept].flatten(0, 1))
            assert new["o_proj.weight"].equal(old["o_proj.weight"].unflatten(1, (4, 8))[:, kept].flatten(1, 2))

    @every_architecture
    def test_are_by_default_the_fluctuation_where_there_is_a_bias_to_make_up_for_the_mean(self, name):
        one, other = build(name), build(name)
        by_default = prune(one, 0.3, modules="ffn")
        assert by_default == prune(other, 0.3, modules="ffn", metric="fluctuation" if name in WITH_FFN_BIAS else "energy")

    @every_architecture
    def test_do_not_depend_on_how_the_tokens_are_batched(self, name, monkeypatch):
        whole = prune(build(name), 0.3)
        monkeypatch.setattr("harness_ext_pruners.backbone.BATCH_TOKENS", 24)
        parts = prune(build(name), 0.3)
        assert gone(parts, "channels", 24) == gone(whole, "channels", 24)

    @every_architecture
    def test_are_the_same_bit_for_bit_twice(self, name):
        one, other = build(name), build(name)
        assert prune(one, 0.4) == prune(other, 0.4)
        assert tiny.same(tiny.weights(one), tiny.weights(other))

    def test_break_ties_by_position(self):
        model = build("llama")
        for block in blocks(model):
            block.mlp.down_proj.weight.data.zero_()
        assert gone(prune(model, 0.25, modules="ffn"), "channels", 24) == [list(range(6))] * 2


class TestLosingWhatDoesNothing:
    @pytest.mark.parametrize(
        ("name", "metric"), [*((name, "auto") for name in tiny.ARCHITECTURES), ("llama", "fluctuation"), ("gpt2", "energy")]
    )
    def test_channels_without_outgoing_weights_go_first_and_change_no_logits(self, name, metric):
        model = build(name)
        places = [[1, 2, 5, 17, 20, 23], [0, 3, 4, 11, 12, 22]]
        for block, dead in zip(blocks(model), places, strict=True):
            matrix(block.get_submodule(READER[name]))[:, dead] = 0
        before = model(IDS).logits
        assert gone(prune(model, 0.25, modules="ffn", metric=metric), "channels", 24) == places
        torch.testing.assert_close(model(IDS).logits, before)

    @every_one_with_heads
    def test_heads_without_outgoing_weights_go_first_and_change_no_logits(self, name):
        model = build(name)
        places = [[0, 2], [1, 3]]
        for block, dead in zip(blocks(model), places, strict=True):
            block.self_attn.o_proj.weight.data.unflatten(1, (4, 8))[:, dead] = 0
        before = model(IDS).logits
        assert gone(prune(model, 0.5, modules="attention"), "heads", 4) == places
        torch.testing.assert_close(model(IDS).logits, before)

    @every_architecture
    def test_channels_that_are_always_zero_change_no_logits(self, name):
        model = build(name)
        dead = [1, 2, 5, 17, 20, 23]
        for block in blocks(model):
            for writer in WRITERS[name]:
                layer = block.get_submodule(writer)
                matrix(layer)[dead] = 0
                if layer.bias is not None:
                    layer.bias.data[dead] = 0
        before = model(IDS).logits
        assert gone(prune(model, 0.25, modules="ffn"), "channels", 24) == [dead] * 2
        torch.testing.assert_close(model(IDS).logits, before)

    @every_one_with_ffn_bias
    def test_channels_that_are_always_the_same_go_into_the_bias(self, name):
        model = build(name)
        dead = [1, 2, 5, 17, 20, 23]
        for block in blocks(model):
            layer = block.get_submodule(WRITERS[name][0])
            matrix(layer)[dead] = 0
            layer.bias.data[dead] = torch.tensor([1.0, 2.0, 0.5, 0.1, 3.0, 0.7])
        before = model(IDS).logits
        assert gone(prune(model, 0.25, modules="ffn"), "channels", 24) == [dead] * 2
        torch.testing.assert_close(model(IDS).logits, before)


class TestBias:
    @every_one_with_ffn_bias
    def test_keeps_the_mean_output_of_the_projection(self, name):
        model = build(name)
        before = [inputs @ matrix(b.get_submodule(READER[name])).double().numpy().T for inputs, b in
                  zip(inputs_of(model, READER[name]), blocks(model), strict=True)]  # fmt: skip
        dense_inputs = inputs_of(model, READER[name])
        old = [block.get_submodule(READER[name]).bias.detach().double().numpy() for block in blocks(model)]
        notes = prune(model, 0.5, modules="ffn")
        for block, inputs, output, bias, places in zip(blocks(model), dense_inputs, before, old, gone(notes, "channels", 24), strict=True):
            layer = block.get_submodule(READER[name])
            now = np.delete(inputs, places, 1) @ matrix(layer).double().numpy().T + layer.bias.detach().double().numpy()
            np.testing.assert_allclose(now.mean(0), (output + bias).mean(0), atol=1e-6)
            assert np.abs(now - output - bias).max() > 0.01

    @pytest.mark.parametrize(("name", "modules"), [("llama", "all"), ("llama", "attention"), ("llama", "ffn"), ("qwen3", "attention")])
    def test_is_added_where_the_config_can_say_so(self, name, modules, tmp_path):
        model = build(name)
        reader = "mlp.down_proj" if modules == "ffn" else "self_attn.o_proj"  # the first that is cut: it reads the same as before
        before = inputs_of(model, reader)[0] @ matrix(blocks(model)[0].get_submodule(reader)).double().numpy().T
        prune(model, 0.5, modules=modules, add_bias=True)
        assert getattr(model.config, "attention_bias", False) is (modules != "ffn")
        assert getattr(model.config, "mlp_bias", False) is (modules != "attention")
        layer = blocks(model)[0].get_submodule(reader)
        now = inputs_of(model, reader)[0] @ matrix(layer).double().numpy().T + layer.bias.detach().double().numpy()
        np.testing.assert_allclose(now.mean(0), before.mean(0), atol=1e-6)
        again = reloaded(model, tmp_path)
        assert attributes(again) == attributes(model)
        assert again(IDS).logits.equal(model(IDS).logits)

    @pytest.mark.parametrize(("name", "modules"), [("qwen2", "all"), ("mistral", "ffn"), ("qwen3", "all")])
    def test_cannot_be_added_elsewhere(self, name, modules):
        model = build(name)
        before = tiny.weights(model)
        with raises_line(BadOptionError, "pruner.add_bias=True", name, "llama attention, llama ffn, qwen3 attention"):
            prune(model, 0.5, modules=modules, add_bias=True)
        assert tiny.same(tiny.weights(model), before)

    @every_one_with_ffn_bias
    def test_that_is_there_already_needs_not_be_added(self, name):
        one, other = build(name), build(name)
        prune(one, 0.3)
        prune(other, 0.3, add_bias=True)
        assert tiny.same(tiny.weights(one), tiny.weights(other))
