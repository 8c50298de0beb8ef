"""The pruner ``depth``: which blocks go, against a computation of its own in float64, and what is left of the model."""

from __future__ import annotations

import json

import architectures
import numpy as np
import pytest
import tiny
import torch
from harness_ext_pruners.depth import Depth
from refusals import raises_line
from transformers import AutoModelForCausalLM, GPTNeoConfig, GPTNeoForCausalLM

from harness_ext import BadOptionError, CalibrationError, NumericalError, Sparsity, UnsupportedModelError, find_blocks

every_architecture = pytest.mark.parametrize("name", tiny.ARCHITECTURES)
IDS = tiny.token_ids()


def prune(model, ratio, *, ids=IDS, modules="all", **options):
    return Depth(**options).prune_model(model, Sparsity.parse(ratio), ids, modules)


def streams(model, ids=IDS):
    """float64 [blocks + 1, tokens, width]: what enters each block, and what leaves the last one; by hooks on the blocks."""
    found, blocks = [], [block.module for block in find_blocks(model)]

    def before(_, args, kwargs):
        found.append(args[0] if args else kwargs["hidden_states"])

    def after(_, args, output):
        found.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_pre_hook(before, with_kwargs=True) for block in blocks] + [blocks[-1].register_forward_hook(after)]
    with torch.no_grad():
        model(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.stack(found).double().numpy()


def cosines(one, other):
    return (one * other).sum(-1) / np.sqrt((one**2).sum(-1) * (other**2).sum(-1))


def greedy(model, use_cache):
    return model.generate(IDS[:, :7], max_new_tokens=9, do_sample=False, use_cache=use_cache, eos_token_id=None)


def reloaded(model, folder, **options):
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, **options)


class TestScores:
    @every_architecture
    def test_of_blocks_are_one_minus_the_mean_cosine(self, name):
        model = tiny.model(name, layers=5)
        states = streams(model)
        wanted = [1 - cosines(states[i], states[i + 1]).mean() for i in range(5)]
        names = [block.name for block in find_blocks(model)]
        notes = prune(model, 0.4)
        assert list(notes["influence"]) == names
        np.testing.assert_allclose(list(notes["influence"].values()), wanted, rtol=1e-5)
        assert notes["removed"] == [names[i] for i in sorted(np.argsort(wanted)[:2])]

    @every_architecture
    def test_of_runs_of_blocks_are_the_mean_angle_between_their_ends(self, name):
        model = tiny.model(name, layers=5)
        states = streams(model)
        wanted = [(np.arccos(cosines(states[i], states[i + 2])) / np.pi).mean() for i in range(4)]
        names = [block.name for block in find_blocks(model)]
        notes = prune(model, 0.4, influence="angular")
        np.testing.assert_allclose(list(notes["influence"].values()), wanted, rtol=1e-5)
        first = int(np.argmin(wanted))
        assert notes["removed"] == names[first : first + 2]

    @pytest.mark.parametrize("influence", ["block", "angular"])
    def test_may_be_of_the_last_tokens_alone(self, influence):
        model = tiny.model(layers=4)
        states = streams(model)[:, :, -1]
        both = [cosines(states[i], states[i + 1]) for i in range(4)]
        wanted = [1 - cos.mean() if influence == "block" else (np.arccos(cos) / np.pi).mean() for cos in both]
        notes = prune(model, 0.25, influence=influence, tokens="last")
        np.testing.assert_allclose(list(notes["influence"].values()), wanted, rtol=1e-5)

    @pytest.mark.parametrize("influence", ["block", "angular"])
    def test_do_not_depend_on_how_the_tokens_are_batched(self, influence, monkeypatch):
        whole = prune(tiny.model(layers=5), 0.4, influence=influence)
        monkeypatch.setattr("harness_ext_pruners.backbone.BATCH_TOKENS", 24)
        parts = prune(tiny.model(layers=5), 0.4, influence=influence)
        assert parts["removed"] == whole["removed"]
        np.testing.assert_allclose(list(parts["influence"].values()), list(whole["influence"].values()), rtol=1e-5)

    @pytest.mark.parametrize("influence", ["block", "angular"])
    def test_of_blocks_that_add_nothing_are_zero_and_they_go_first(self, influence):
        model = tiny.model(layers=5)
        for index in (1, 2):
            block = model.model.layers[index]
            for layer in (block.self_attn.o_proj, block.mlp.down_proj):
                layer.weight.data.zero_()
        before = model(IDS).logits
        notes = prune(model, 0.4, influence=influence)
        assert notes["removed"] == ["model.layers.1", "model.layers.2"]
        assert notes["influence"]["model.layers.1"] == 0
        assert model(IDS).logits.equal(before)

    def test_break_ties_by_position(self):
        model = tiny.model(layers=4)
        for block in model.model.layers:
            block.self_attn.o_proj.weight.data.zero_()
            block.mlp.down_proj.weight.data.zero_()
        assert prune(model, 0.5)["removed"] == ["model.layers.0", "model.layers.1"]

    def test_are_the_same_bit_for_bit_twice(self):
        assert prune(tiny.model(layers=5), 0.4) == prune(tiny.model(layers=5), 0.4)


class TestModel:
    @every_architecture
    @pytest.mark.parametrize("influence", ["block", "angular"])
    def test_is_the_dense_one_without_some_blocks(self, name, influence):
        model = tiny.model(name, layers=5)
        parameters = sum(p.numel() for p in model.parameters())
        names = [block.name for block in find_blocks(model)]
        a_block = sum(p.numel() for p in find_blocks(model)[0].module.parameters())
        kept_modules = {block.name: block.module for block in find_blocks(model)}
        notes = prune(model, 0.4, influence=influence)
        assert [block.module for block in find_blocks(model)] == [kept_modules[n] for n in names if n not in notes["removed"]]
        assert model.config.num_hidden_layers == 3
        assert sum(p.numel() for p in model.parameters()) == parameters - 2 * a_block
        assert json.loads(json.dumps(notes)) == notes

    @every_architecture
    def test_is_the_same_bit_for_bit_after_saving_and_loading(self, name, tmp_path):
        dtype = torch.bfloat16
        model = reloaded(tiny.model(name, layers=4), tmp_path / "dense", dtype=dtype)
        prune(model, 0.5)
        again = reloaded(model, tmp_path / "pruned", dtype=dtype)
        assert again.config.num_hidden_layers == 2
        assert again.dtype == dtype
        assert tiny.same(tiny.weights(again), tiny.weights(model))
        assert again(IDS).logits.equal(model(IDS).logits)

    @every_architecture
    def test_generates_the_same_with_a_cache_and_without(self, name):
        model = tiny.model(name, layers=4)
        prune(model, 0.5)
        assert greedy(model, use_cache=True).equal(greedy(model, use_cache=False))
        places = [m.layer_idx for block in find_blocks(model) for m in block.module.modules() if hasattr(m, "layer_idx")]
        assert sorted(set(places)) == [0, 1]

    @pytest.mark.parametrize("name", ["llama-gqa-tied", "gpt2", "opt"])
    def test_keeps_its_embeddings_tied(self, name, tmp_path):
        model = tiny.model(name, layers=4)
        prune(model, 0.5)
        for one in (model, reloaded(model, tmp_path)):
            assert one.get_output_embeddings().weight is one.get_input_embeddings().weight

    @pytest.mark.parametrize("name", ["qwen2", "qwen3"])
    def test_keeps_the_kind_of_attention_of_each_block(self, name, tmp_path):
        model = tiny.model(name, layers=4, use_sliding_window=True, sliding_window=tiny.WINDOW, max_window_layers=2)
        for index in (1, 3):  # one of each kind goes
            block = model.model.layers[index]
            block.self_attn.o_proj.weight.data.zero_()
            block.mlp.down_proj.weight.data.zero_()
        before = model(IDS).logits
        prune(model, 0.5)
        assert model.config.layer_types == ["full_attention", "sliding_attention"]
        assert model.config.max_window_layers == 1
        assert model(IDS).logits.equal(before)
        assert reloaded(model, tmp_path)(IDS).logits.equal(before)
        assert greedy(model, use_cache=True).equal(greedy(model, use_cache=False))

    def test_has_no_sliding_layers_left_if_all_of_them_went(self, tmp_path):
        model = tiny.model("qwen2", layers=4, use_sliding_window=True, sliding_window=tiny.WINDOW, max_window_layers=2)
        for index in (2, 3):
            block = model.model.layers[index]
            block.self_attn.o_proj.weight.data.zero_()
            block.mlp.down_proj.weight.data.zero_()
        prune(model, 0.5)
        assert model.config.layer_types == ["full_attention"] * 2
        again = reloaded(model, tmp_path)
        assert model.model.has_sliding_layers is again.model.has_sliding_layers is False
        assert greedy(model, use_cache=True).equal(greedy(again, use_cache=True))

    def test_may_have_another_list_of_kinds_of_attention(self, tmp_path):
        kinds = {"attention_types": [[["global", "local"], 2]], "window_size": 4, "bos_token_id": 0, "eos_token_id": 0}
        config = GPTNeoConfig(vocab_size=40, hidden_size=16, num_layers=4, num_heads=4, intermediate_size=24, **kinds)
        model = tiny.randomise(GPTNeoForCausalLM(config)).eval()
        for layer in (model.transformer.h[1].attn.attention.out_proj, model.transformer.h[1].mlp.c_proj):
            layer.weight.data.zero_()
            layer.bias.data.zero_()
        before = model(IDS).logits
        prune(model, 0.25)
        assert model.config.attention_layers == ["global", "global", "local"]
        assert model(IDS).logits.equal(before)
        assert reloaded(model, tmp_path)(IDS).logits.equal(before)

    @pytest.mark.parametrize(
        "name",
        [
            "granitemoehybrid/dense",  # whose config has an infinity
            "mamba2", "falcon_h1", "bamba", "openai-gpt", "bart", "whisper", "xlstm", "gemma3_text/mixed", "qwen3_moe", "lfm2", "gpt_oss",
        ],
    )  # fmt: skip
    def test_of_many_architectures_is_the_same_after_loading(self, name, tmp_path):
        model = architectures.model(name)
        ids = torch.randint(3, 120, (3, 16), generator=torch.Generator().manual_seed(0))
        before = len(find_blocks(model))
        prune(model, 0.5, ids=ids)
        again = reloaded(model, tmp_path)
        assert len(find_blocks(again)) == before // 2
        assert tiny.same(tiny.weights(again), tiny.weights(model))
        assert again(ids, use_cache=False).logits.equal(model(ids, use_cache=False).logits)

    def test_can_be_pruned_again(self):
        model = tiny.model(layers=4)
        prune(model, 0.25)
        assert prune(model, 1 / 3)["blocks"] == 3
        assert greedy(model, use_cache=True).equal(greedy(model, use_cache=False))

    @pytest.mark.parametrize(("ratio", "blocks", "left"), [(0.25, 4, 3), (0.3, 4, 3), (0.375, 4, 2), (0.7, 4, 1), (0.1, 5, 4), (0.5, 5, 2)])
    def test_loses_the_nearest_number_of_blocks_halves_up(self, ratio, blocks, left):
        model = tiny.model(layers=blocks)
        prune(model, ratio)
        assert len(find_blocks(model)) == left

    def test_leaves_no_hook_behind(self):
        model = tiny.model(layers=4)
        prune(model, 0.5)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class TestRefuses:
    @pytest.mark.parametrize(
        ("ratio", "nearest"),
        [(0.1, "0.25"), (0.9, "0.75"), ("2:4", "0.25")],
    )
    def test_ratios_that_it_cannot_meet_and_names_the_nearest(self, ratio, nearest):
        model = tiny.model(layers=4)
        before = tiny.weights(model)
        with raises_line(BadOptionError, f"sparsity={ratio}", "'depth'", nearest):
            prune(model, ratio)
        assert tiny.same(tiny.weights(model), before)

    def test_to_take_the_only_block(self):
        with raises_line(BadOptionError, "sparsity=0.5", "'depth'"):
            prune(tiny.model(layers=1), 0.5)

    @pytest.mark.parametrize("modules", ["attention", "ffn", "*.q_proj"])
    def test_parts_of_blocks(self, modules):
        with raises_line(BadOptionError, f"modules={modules!r}", "all"):
            prune(tiny.model(layers=4), 0.5, modules=modules)

    def test_to_work_without_calibration_tokens(self):
        with raises_line(CalibrationError, "'depth'", "calibration"):
            prune(tiny.model(layers=4), 0.5, ids=None)

    def test_activations_that_are_not_finite(self):
        model = tiny.model(layers=4)
        model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("inf")
        with raises_line(NumericalError, "model.layers.2", "NaN or infinite"):
            prune(model, 0.5)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    def test_blocks_that_compute_something_else_at_another_place(self):
        scaled = tiny.model("gpt2", layers=4, scale_attn_by_inverse_layer_idx=True)
        for layer in (scaled.transformer.h[0].attn.c_proj, scaled.transformer.h[0].mlp.c_proj):  # so that the first block goes
            layer.weight.data.zero_()
            layer.bias.data.zero_()
        before = tiny.weights(scaled)
        with raises_line(UnsupportedModelError, "transformer.h.1", "transformer.h.0", "attn.scaling"):
            prune(scaled, 0.25)
        assert tiny.same(tiny.weights(scaled), before)
        assert scaled.config.num_hidden_layers == 4

    def test_models_with_weights_for_each_block_outside_of_the_blocks(self):
        class Own(type(tiny.model())):
            def __init__(self, config):
                super().__init__(config)
                self.of_blocks = torch.nn.Embedding(3, config.num_hidden_layers)

        model = Own(tiny.model(layers=4).config)
        with pytest.raises(UnsupportedModelError, match=r"of_blocks\.weight depends on the number of decoder blocks.*\(3, 4\).*\(3, 3\)"):
            prune(model, 0.25)
        assert len(find_blocks(model)) == 4

    def test_models_that_cannot_read_the_tokens(self):
        with pytest.raises(UnsupportedModelError, match=r"GPT2LMHeadModel fails on calibration tokens \(1, 33\): IndexError") as error:
            prune(tiny.model("gpt2"), 0.5, ids=tiny.token_ids(samples=1, length=tiny.LONGEST + 1))
        assert "\n" not in str(error.value)

    def test_models_whose_config_does_not_load_with_fewer_blocks(self):
        class Picky(type(tiny.model().config)):
            def __post_init__(self, **kwargs):
                super().__post_init__(**kwargs)
                if self.num_hidden_layers == 3:
                    raise ValueError("three\nare too few")

        model = tiny.model(layers=4)
        model.config.__class__ = Picky
        with raises_line(UnsupportedModelError, "config", "3", "three are too few"):
            prune(model, 0.25)
        assert len(model.model.layers) == model.config.num_hidden_layers == 4
