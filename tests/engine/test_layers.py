"""Which linear layers are found and selected, and which models are refused."""

from __future__ import annotations

import pytest
import tiny
import torch
import transformers
from refusals import raises_line
from torch import nn

from harness_ext import BadOptionError, prune
from harness_ext.engine.layers import LinearLayer, find_blocks
from harness_ext.errors import UnsupportedModelError

architecture = pytest.mark.parametrize("name", tiny.ARCHITECTURES)


def names(model, modules="all"):
    return [layer.name for block in find_blocks(model, modules) for layer in block.layers]


@architecture
def test_all_linear_layers_of_the_blocks_are_found_in_order(name):
    model = tiny.model(name, layers=3)
    blocks = find_blocks(model)
    assert len(blocks) == 3
    for block in blocks:
        assert model.get_submodule(block.name) is block.module
        assert tuple(layer.name for layer in block.layers) == tuple(f"{block.name}.{layer}" for layer in tiny.LINEAR_LAYERS[name])
        assert all(model.get_submodule(layer.name) is layer.module for layer in block.layers)


@architecture
def test_attention_and_ffn_are_all_and_have_nothing_in_common(name):
    model = tiny.model(name)
    attention, ffn = names(model, "attention"), names(model, "ffn")
    assert sorted(attention + ffn) == sorted(names(model))
    assert all("attn" in layer or "attention" in layer for layer in attention)
    assert not any("attn" in layer or "attention" in layer for layer in ffn)
    assert attention
    assert ffn


@pytest.mark.parametrize(
    ("glob", "count"),
    [("*.q_proj", 3), ("model.layers.0.*", 7), ("*.[12].mlp.*", 6), ("*", 21), ("model.layers.2.self_attn.k_proj", 1)],
)
def test_a_glob_selects_by_full_name(glob, count):
    assert len(names(tiny.model(layers=3), glob)) == count


@pytest.mark.parametrize(("modules", "hint"), [("atention", "Did you mean 'attention'"), ("q_proj", "'*."), ("*.Q_PROJ", "'*.")])
def test_modules_that_select_nothing_are_refused(modules, hint):
    with raises_line(BadOptionError, f"modules={modules!r}", hint):
        find_blocks(tiny.model(), modules)


@pytest.mark.parametrize(("name", "dtype"), [*((name, torch.float32) for name in tiny.ARCHITECTURES), ("gpt2", torch.bfloat16)])
def test_a_written_weight_is_what_the_layer_computes_with(name, dtype):
    model = tiny.model(name, dtype=dtype)
    for block in find_blocks(model):
        for layer in block.layers:
            new = torch.randn(layer.weight.shape)
            layer.write(new)
            assert layer.weight.equal(new.to(dtype))
            inputs = torch.randn(3, layer.in_features, dtype=dtype)
            expected = inputs.float() @ new.to(dtype).float().T + (layer.module.bias.float() if layer.module.bias is not None else 0)
            torch.testing.assert_close(layer.module(inputs).float(), expected, rtol=2e-2, atol=0.1 if dtype == torch.bfloat16 else 1e-5)


def xlnet():
    return transformers.XLNetLMHeadModel(transformers.XLNetConfig(d_model=16, n_layer=2, n_head=4, d_inner=24, vocab_size=40))


def t5(decoder=2):
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(d_model=16, d_kv=4, d_ff=24, num_layers=2, num_decoder_layers=decoder, num_heads=4, vocab_size=40)
    )


class Embedded(nn.Module):
    """Experts of one vector each, looked up and not multiplied, as in Doge."""

    def __init__(self):
        super().__init__()
        self.down_embed, self.up_embed = nn.Embedding(64, 16), nn.Embedding(64, 16)


class Packed(nn.Module):
    """A quantised layer as GPTQ has it: a matrix of integers in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("qweight", torch.zeros(2, 16, dtype=torch.int32))


class Linear4bit(nn.Linear):
    """A quantised layer as bitsandbytes has it: a subclass with packed weights and a ``forward`` of its own."""

    def __init__(self):
        super().__init__(16, 16)
        self.weight = nn.Parameter(torch.zeros(128, 1, dtype=torch.uint8), requires_grad=False)
        self.compute_dtype = torch.float32

    def forward(self, inputs):
        return inputs.to(self.compute_dtype)


def with_layer(replacement):
    model = tiny.model()
    model.model.layers[1].self_attn.q_proj = replacement
    return model


def with_weight(change):
    model = tiny.model()
    layer = model.model.layers[1].self_attn.q_proj
    layer.weight = nn.Parameter(change(layer.weight.data), requires_grad=False)
    return model


class Wrapped(torch.Tensor):
    """A tensor subclass, as torchao and distributed tensors have it."""


def shared_in_a_block():
    model = tiny.model()
    attention = model.model.layers[0].self_attn
    attention.k_proj.weight = attention.q_proj.weight
    return model


def shared_between_blocks():
    model = tiny.model()
    model.model.layers[1] = model.model.layers[0]
    return model


def shared_with_the_head():
    model = tiny.model(vocab_size=16)
    model.lm_head.weight = model.model.layers[1].self_attn.o_proj.weight
    return model


def in_the_same_memory():
    """Two parameters of which one is a view of the other's values."""
    model = tiny.model()
    model.model.layers[1].mlp.up_proj.weight.data = model.model.layers[0].mlp.up_proj.weight.data
    return model


def overlapping():
    model = tiny.model()
    attention, both = model.model.layers[0].self_attn, torch.randn(24, 16)
    attention.q_proj.weight.data, attention.k_proj.weight.data = both[:16], both[8:]
    return model


def interleaved(step=2):
    """Every other row of one tensor, or rows that are also others'."""
    model = tiny.model()
    attention, both = model.model.layers[0].self_attn, torch.randn(32, 16)
    attention.q_proj.weight.data, attention.k_proj.weight.data = both[::2], both[1 if step == 2 else 2 :: step][:16]
    return model


Q_PROJ = "model.layers.1.self_attn.q_proj"
REFUSED = {
    "XLNet": (xlnet, ["rel_attn.q (16, 4, 4)", "63.1%"]),
    "T5": (t5, ["T5ForConditionalGeneration", "encoder"]),
    "T5 with a decoder of another depth": (lambda: t5(decoder=3), ["T5ForConditionalGeneration", "encoder"]),
    "embedded experts": (lambda: with_layer(Embedded()), ["down_embed.weight (64, 16)", "linear layer"]),
    "GPTQ": (lambda: with_layer(Packed()), [f"{Q_PROJ}.qweight", "quantised"]),
    "bitsandbytes": (lambda: with_layer(Linear4bit()), [Q_PROJ, "quantised"]),
    "int8": (lambda: with_weight(lambda weight: weight.to(torch.int8)), [Q_PROJ, "torch.int8"]),
    "float8": (lambda: with_weight(lambda weight: weight.to(torch.float8_e4m3fn)), [Q_PROJ, "torch.float8_e4m3fn"]),
    "float64": (lambda: with_weight(lambda weight: weight.double()), [Q_PROJ, "torch.float64"]),
    "a tensor subclass": (lambda: with_weight(lambda weight: weight.as_subclass(Wrapped)), [Q_PROJ, "Wrapped"]),
    "shared in a block": (shared_in_a_block, ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"]),
    "shared between blocks": (shared_between_blocks, ["model.layers.0.self_attn.q_proj", "shares"]),
    "in the same memory": (in_the_same_memory, ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj.weight", "shares"]),
    "overlapping": (overlapping, ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj.weight", "shares"]),
    "some rows in common": (lambda: interleaved(1), ["model.layers.0.self_attn.q_proj", "k_proj.weight", "shares"]),
    "shared with the head": (shared_with_the_head, ["o_proj", "lm_head.weight"]),
    "offloaded": (lambda: with_weight(lambda weight: weight.to("meta")), [Q_PROJ, "memory"]),
}


@pytest.mark.parametrize("which", REFUSED)
def test_a_model_that_cannot_be_pruned_in_full_is_refused_and_untouched(which):
    build, parts = REFUSED[which]
    model = build().eval()
    weights = {name: tensor for name, tensor in model.state_dict().items() if not tensor.is_meta}
    before = {name: tensor.detach().clone() for name, tensor in weights.items()}
    with raises_line(UnsupportedModelError, *parts):
        prune(model, sparsity=0.5, calibration=tiny.token_ids())
    assert tiny.same(weights, before)


def test_a_model_without_one_list_of_blocks_is_refused():
    two, none = tiny.model(), tiny.model()
    two.other = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(2))
    with raises_line(UnsupportedModelError, "LlamaForCausalLM", "model.layers, other"):
        find_blocks(two)
    none.model.layers = nn.ModuleList()
    with raises_line(UnsupportedModelError, "LlamaForCausalLM", "0"):
        find_blocks(none)


@pytest.mark.parametrize("build", [xlnet, lambda: with_layer(Packed())])
def test_a_dense_model_needs_no_blocks(build):
    model = build().eval()
    before = tiny.weights(model)
    record = prune(model, sparsity=0)
    assert record["achieved_sparsity"] == 0
    assert tiny.same(tiny.weights(model), before)


def test_in_features_of_a_transposed_layer_are_its_inputs():
    layers = {layer.name.rsplit(".", 2)[-1]: layer for block in find_blocks(tiny.model("gpt2")) for layer in block.layers}
    assert layers["c_attn"].in_features == tiny.WIDTH
    assert layers["c_attn"].weight.shape == (3 * tiny.WIDTH, tiny.WIDTH)
    assert layers["c_fc"].weight.shape == (tiny.INNER, tiny.WIDTH)
    assert isinstance(layers["c_fc"], LinearLayer)


def test_parts_of_one_tensor_without_a_common_element_are_pruned():
    rows, columns, every_other, plain = tiny.model(), tiny.model(), interleaved(), tiny.model()
    for model, dim in ((rows, 0), (columns, 1)):
        attention = model.model.layers[0].self_attn
        both = torch.cat([attention.q_proj.weight.data, attention.k_proj.weight.data], dim)
        attention.q_proj.weight.data, attention.k_proj.weight.data = both.chunk(2, dim)
    for model in (rows, columns, every_other, plain):
        assert prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids())["achieved_sparsity"] == 0.5
    assert tiny.same(tiny.weights(rows), tiny.weights(plain))
    assert tiny.same(tiny.weights(columns), tiny.weights(plain))
