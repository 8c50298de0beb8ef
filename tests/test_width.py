"""The pruner ``width``: which heads and channels go, against a computation of its own in float64, and what is left of the model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import torch
from harness_ext_pruners.width import Width
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from harness_ext import BadOptionError, CalibrationError, NumericalError, Sparsity, UnsupportedModelError, find_blocks

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
    @every_architecture
    @pytest.mark.parametrize("metric", ["auto", "fluctuation", "energy"])
    def test_channels_without_outgoing_weights_go_first_and_change_no_logits(self, name, metric):
        model = build(name)
        places = [[1, 2, 5, 17, 20, 23], [0, 3, 4, 11, 12, 22]]
        for block, dead in zip(blocks(model), places, strict=True):
            matrix(block.get_submodule(READER[name]))[:, dead] = 0
        before = model(IDS).logits
        assert gone(prune(model, 0.25, modules="ffn", metric=metric), "channels", 24) == places
        torch.testing.assert_close(model(IDS).logits, before)

    @every_one_with_heads
    @pytest.mark.parametrize("metric", ["auto", "fluctuation", "energy"])
    def test_heads_without_outgoing_weights_go_first_and_change_no_logits(self, name, metric):
        model = build(name)
        places = [[0, 2], [1, 3]]
        for block, dead in zip(blocks(model), places, strict=True):
            block.self_attn.o_proj.weight.data.unflatten(1, (4, 8))[:, dead] = 0
        before = model(IDS).logits
        assert gone(prune(model, 0.5, modules="attention", metric=metric), "heads", 4) == places
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
        with pytest.raises(BadOptionError, match="those that can: llama attention, llama ffn, qwen3 attention"):
            prune(model, 0.5, modules=modules, add_bias=True)
        assert tiny.same(tiny.weights(model), before)

    @every_one_with_ffn_bias
    def test_that_is_there_already_needs_not_be_added(self, name):
        one, other = build(name), build(name)
        prune(one, 0.3)
        prune(other, 0.3, add_bias=True)
        assert tiny.same(tiny.weights(one), tiny.weights(other))


class TestModel:
    @every_architecture
    @pytest.mark.parametrize("modules", ["all", "ffn"])
    @pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.6])
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
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_is_the_same_bit_for_bit_after_saving_and_loading(self, name, modules, dtype, tmp_path):
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
        ("name", "modules", "ratio", "message"),
        [
            ("llama", "all", "2:4", "want a ratio"),
            ("llama", "all", 0.99, r"the nearest is .*3 of 4 heads and 23 of 24 channels"),
            ("llama", "ffn", 0.01, r"the nearest is 0.0416667, 1 of 24 channels"),
            ("llama", "ffn", 0.99, r"the nearest is 0.958333, 23 of 24 channels"),
            ("opt", "all", 0.9, r"the nearest is .*, 23 of 24 channels"),
            ("gpt2", "attention", 0.5, "want ffn or all, or a model of type llama, mistral, qwen2, qwen3"),
            ("gpt-neox", "attention", 0.5, "heads cannot be taken out of gpt_neox models"),
            ("llama", "*.q_proj", 0.5, "want all, attention or ffn"),
        ],
    )
    def test_what_it_cannot_do_in_one_line_and_leaves_the_model_alone(self, name, modules, ratio, message):
        model = build(name)
        before, config = tiny.weights(model), model.config.to_dict()
        with pytest.raises(BadOptionError, match=message) as caught:
            prune(model, ratio, modules=modules)
        assert "\n" not in str(caught.value)
        assert tiny.same(tiny.weights(model), before)
        assert model.config.to_dict() == config

    def test_ratios_of_heads_that_are_not_near_what_can_go(self):
        model = tiny.model("llama", layers=8, num_attention_heads=8, num_key_value_heads=8, head_dim=4)
        with pytest.raises(BadOptionError, match=r"sparsity=0.2.*the nearest is 0.5, 4 of 8 heads"):
            prune(model, 0.2, modules="attention")

    def test_to_take_the_only_key_and_value_head(self):
        with pytest.raises(BadOptionError, match="at least one of 1 heads"):
            prune(tiny.model("llama", num_key_value_heads=1), 0.5, modules="attention")

    def test_architectures_that_it_does_not_know(self):
        model = build("llama")
        model.config.model_type = "strange"
        with pytest.raises(UnsupportedModelError, match=r"'strange'.*knows llama, mistral, qwen2, qwen3, opt, gpt2, gpt_neox"):
            prune(model, 0.5)

    def test_blocks_of_different_widths(self):
        model = build("llama")
        model.model.layers[1].mlp = tiny.model("llama", intermediate_size=20).model.layers[1].mlp
        with pytest.raises(UnsupportedModelError, match=r"layers.1.mlp.gate_proj differs in width"):
            prune(model, 0.5)

    def test_to_work_without_calibration_tokens(self):
        with pytest.raises(CalibrationError, match="needs calibration tokens"):
            prune(build("llama"), 0.5, ids=None)

    def test_activations_that_are_not_finite(self):
        model = build("llama")
        model.model.layers[0].mlp.gate_proj.weight.data[0, 0] = float("nan")
        with pytest.raises(NumericalError, match=r"model.layers.0.mlp.down_proj: the input"):
            prune(model, 0.5)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
