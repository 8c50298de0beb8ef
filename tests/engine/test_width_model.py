"""The pruner ``width``: what is left of a model, and what it refuses."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from pairwise import all_pairs
from refusals import raises_line
from transformers import Starcoder2Config, Starcoder2ForCausalLM
from widths import (
    CHANNELS,
    IDS,
    MOST,
    SIXTEEN,
    WITH_FFN_BIAS,
    WITH_HEADS,
    WRITERS,
    attributes,
    blocks,
    build,
    every_architecture,
    linear_weights,
    prune,
    reloaded,
)

from harness_ext import BadOptionError, CalibrationError, NumericalError, UnsupportedModelError


class TestModel:
    @all_pairs(name=tiny.ARCHITECTURES, modules=["all", "ffn"], ratio=[0.1, 0.25, 0.6])
    def test_loses_the_weights_that_were_asked_for_to_half_a_channel(self, name, modules, ratio):
        model = build(name)
        ratio = min(ratio, MOST[name] if modules == "all" else 1)
        before, parameters = linear_weights(model, modules), sum(p.numel() for p in model.parameters())
        a_channel = (len(WRITERS[name]) + 1) * tiny.WIDTH
        notes = prune(model, ratio, modules=modules)
        after = linear_weights(model, modules)
        assert abs(before - after - ratio * before) <= a_channel * 2 / 2 + 1e-6
        heads, channels = (notes[t]["before"] - notes[t]["after"] if t in notes else 0 for t in ("heads", "channels"))
        head = 4 * 2 * (2 + 1) * tiny.WIDTH  # size 4; query and output of two heads, and one key and value
        biases = 4 * (2 + 1 + 1) * (name == "qwen2"), len(WRITERS[name]) * (name in WITH_FFN_BIAS)
        assert before - after == 2 * (heads * head + channels * a_channel)
        assert parameters - sum(p.numel() for p in model.parameters()) == before - after + 2 * (heads * biases[0] + channels * biases[1])
        assert json.loads(json.dumps(notes)) == notes

    @every_architecture
    def test_is_what_its_config_says(self, name):
        model = build(name)
        notes = prune(model, MOST[name])
        fresh = type(model)(type(model.config).from_dict(model.config.to_dict())).eval()
        assert attributes(fresh) == attributes(model)
        assert getattr(model.config, CHANNELS[name]) == notes["channels"]["after"] < 24
        if name in WITH_HEADS:
            assert (model.config.num_key_value_heads, model.config.num_attention_heads, model.config.head_dim) == (2, 4, 4)
        else:
            assert "heads" not in notes

    @pytest.mark.parametrize(("name", "modules"), [(n, "all") for n in tiny.ARCHITECTURES] + [("llama", "ffn"), ("qwen3", "attention")])
    def test_is_the_same_bit_for_bit_after_saving_and_loading(self, name, modules, tmp_path):
        dtype = torch.bfloat16
        model = reloaded(build(name), tmp_path / "dense", dtype=dtype)
        prune(model, MOST[name], modules=modules)
        again = reloaded(model, tmp_path / "pruned", dtype=dtype)
        assert again.dtype == dtype
        assert tiny.same(tiny.weights(again), tiny.weights(model))
        assert again(IDS).logits.equal(model(IDS).logits)

    @every_architecture
    def test_generates_the_same_with_a_cache_and_without(self, name):
        model = build(name)
        prune(model, MOST[name])
        how = {"max_new_tokens": 9, "do_sample": False, "eos_token_id": None}
        made = [model.generate(IDS[:, :7], use_cache=cache, **how) for cache in (True, False)]
        assert made[0].shape == (5, 16)
        assert made[0].equal(made[1])

    @pytest.mark.parametrize("name", ["llama", "qwen2", "mistral"])
    def test_keeps_the_size_of_a_head_that_was_the_width_over_the_heads(self, name, tmp_path):
        model = tiny.model(name, hidden_size=512, num_key_value_heads=4, layers=1)  # heads of 128, the default of Llama's config
        prune(model, 0.5, modules="attention")
        again = reloaded(model, tmp_path)
        assert again.config.head_dim == model.config.head_dim == 128
        assert again.config.num_attention_heads == 2
        assert again(IDS).logits.equal(model(IDS).logits)

    @pytest.mark.parametrize("bias", [False, True])
    def test_of_starcoder2_loses_heads_and_channels_with_and_without_biases(self, bias, tmp_path):
        """The form of the embedded models: an FFN without a gate, and heads whose size the config has."""
        sizes = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4}
        config = Starcoder2Config(vocab_size=tiny.VOCABULARY, use_bias=bias, residual_dropout=0.0, embedding_dropout=0.0, **sizes)
        model = tiny.randomise(Starcoder2ForCausalLM(config)).eval()
        before = linear_weights(model)
        notes = prune(model, 0.5)
        assert (notes["heads"]["after"], notes["channels"]["after"]) == (2, 12)
        assert linear_weights(model) == before / 2
        again = reloaded(model, tmp_path)
        assert again.config.head_dim == 4
        assert again(IDS).logits.equal(model(IDS).logits)

    @pytest.mark.parametrize("name", ["llama-gqa-tied", "gpt2", "opt"])
    def test_keeps_its_embeddings_tied(self, name, tmp_path):
        model = build(name)
        prune(model, MOST[name])
        for one in (model, reloaded(model, tmp_path)):
            assert one.get_output_embeddings().weight is one.get_input_embeddings().weight

    def test_of_gpt2_may_leave_the_number_of_channels_to_the_config(self, tmp_path):
        model = tiny.model("gpt2", n_inner=None)
        prune(model, 0.25, modules="ffn")
        assert model.config.n_inner == 48
        assert reloaded(model, tmp_path)(IDS).logits.equal(model(IDS).logits)

    def test_of_llama_keeps_a_number_of_heads_that_divides_its_width(self):
        model = tiny.model("llama", intermediate_size=256, **SIXTEEN)
        before = linear_weights(model)
        notes = prune(model, 0.35)
        assert (notes["heads"]["before"], notes["heads"]["after"]) == (16, 8)  # 10 or 11 would be nearer
        assert abs(before - linear_weights(model) - 0.35 * before) <= 3 * tiny.WIDTH

    def test_of_another_architecture_may_keep_any_number_of_heads(self):
        notes = prune(tiny.model("qwen3", intermediate_size=256, **SIXTEEN), 0.35)
        assert (notes["heads"]["before"], notes["heads"]["after"]) == (16, 10)

    def test_leaves_attention_alone_if_asked_to(self):
        model = build("llama")
        attention = [tiny.weights(block.self_attn) for block in blocks(model)]
        assert set(prune(model, 0.5, modules="ffn")) == {"channels"}
        assert all(tiny.same(tiny.weights(b.self_attn), old) for b, old in zip(blocks(model), attention, strict=True))

    def test_leaves_the_ffn_alone_if_asked_to(self):
        model = build("llama")
        ffn = [tiny.weights(block.mlp) for block in blocks(model)]
        assert set(prune(model, 0.5, modules="attention")) == {"heads"}
        assert all(tiny.same(tiny.weights(b.mlp), old) for b, old in zip(blocks(model), ffn, strict=True))

    def test_leaves_no_hook_behind(self):
        model = build("llama")
        prune(model, 0.5)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    def test_can_be_pruned_again(self):
        model = build("llama")
        prune(model, 0.5)
        prune(model, 0.5)
        assert model.config.num_key_value_heads == 1
        assert model(IDS).logits.isfinite().all()


class TestRefuses:
    @pytest.mark.parametrize(
        ("name", "modules", "ratio", "parts"),
        [
            ("llama", "all", "2:4", ["sparsity=2:4", "'width'", "0.25"]),
            ("llama", "all", 0.99, ["sparsity=0.99", "3 of 4 heads and 23 of 24 channels"]),
            ("llama", "ffn", 0.01, ["sparsity=0.01", "0.0416667", "1 of 24 channels"]),
            ("llama", "ffn", 0.99, ["sparsity=0.99", "0.958333", "23 of 24 channels"]),
            ("opt", "all", 0.9, ["sparsity=0.9", "23 of 24 channels"]),
            ("gpt2", "attention", 0.5, ["modules='attention'", "gpt2", "ffn", "llama, mistral, qwen2, qwen3, starcoder2"]),
            ("gpt-neox", "attention", 0.5, ["modules='attention'", "gpt_neox"]),
            ("llama", "*.q_proj", 0.5, ["modules='*.q_proj'", "all, attention or ffn"]),
        ],
    )
    def test_what_it_cannot_do_in_one_line_and_leaves_the_model_alone(self, name, modules, ratio, parts):
        model = build(name)
        before, config = tiny.weights(model), model.config.to_dict()
        with raises_line(BadOptionError, *parts):
            prune(model, ratio, modules=modules)
        assert tiny.same(tiny.weights(model), before)
        assert model.config.to_dict() == config

    def test_ratios_of_heads_that_are_not_near_what_can_go(self):
        model = tiny.model("llama", layers=8, num_attention_heads=8, num_key_value_heads=8, head_dim=4)
        with raises_line(BadOptionError, "sparsity=0.2", "0.5", "4 of 8 heads"):
            prune(model, 0.2, modules="attention")

    def test_to_take_the_only_key_and_value_head(self):
        with raises_line(BadOptionError, "sparsity=0.5", "1 heads"):
            prune(tiny.model("llama", num_key_value_heads=1), 0.5, modules="attention")

    def test_architectures_that_it_does_not_know(self):
        model = build("llama")
        model.config.model_type = "strange"
        with raises_line(UnsupportedModelError, "'strange'", "llama, mistral, qwen2, qwen3, starcoder2, opt, gpt2, gpt_neox"):
            prune(model, 0.5)

    def test_blocks_of_different_widths(self):
        model = build("llama")
        model.model.layers[1].mlp = tiny.model("llama", intermediate_size=20).model.layers[1].mlp
        with raises_line(UnsupportedModelError, "layers.1.mlp.gate_proj"):
            prune(model, 0.5)

    def test_to_work_without_calibration_tokens(self):
        with raises_line(CalibrationError, "'width'", "calibration"):
            prune(build("llama"), 0.5, ids=None)

    def test_activations_that_are_not_finite(self):
        model = build("llama")
        model.model.layers[0].mlp.gate_proj.weight.data[0, 0] = float("nan")
        with raises_line(NumericalError, "model.layers.0.mlp.down_proj", "NaN or infinite"):
            prune(model, 0.5)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
