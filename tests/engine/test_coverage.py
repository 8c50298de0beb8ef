"""What of decoder blocks stays dense, how it is listed, and when it is too much."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import transformers
from torch import nn

from harness_ext import UnsupportedModelError, find_blocks, prune
from harness_ext.engine.coverage import check_coverage, dense_parts
from harness_ext.engine.kinds import kind_of

SETTINGS: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2}
SETTINGS |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
LLAMA = SETTINGS | {"intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_chunk_size": 8, "mamba_expand": 2}
MIXERS = {"mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 4, "n_groups": 2, "chunk_size": 8}

# by name: the family, its settings; the kind of some layers; a few parameters that stay dense
HYBRIDS: dict[str, tuple[str, dict[str, Any], dict[str, str], set[str]]] = {
    "Falcon": ("Falcon", SETTINGS | {"num_attention_heads": 2}, {"self_attention.dense": "attention", "mlp.dense_4h_to_h": "ffn"}, set()),
    "Cohere": ("Cohere", LLAMA | {"use_qk_norm": True}, {"self_attn.q_proj": "attention"}, {"model.layers.*.self_attn.q_norm.weight"}),
    "Mamba": (
        "Mamba", SETTINGS | {"state_size": 4, "time_step_rank": 4}, {"mixer.dt_proj": "attention", "mixer.in_proj": "attention"},
        {"backbone.layers.*.mixer.A_log", "backbone.layers.*.mixer.D", "backbone.layers.*.mixer.conv1d.weight"},
    ),
    "Mamba2": (
        "Mamba2", SETTINGS | {"num_heads": 4, "head_dim": 8, "n_groups": 2, "state_size": 4, "chunk_size": 8},
        {"mixer.in_proj": "attention"},
        {"backbone.layers.*.mixer.conv1d.weight"},
    ),
    "Lfm2": (
        "Lfm2", LLAMA | {"layer_types": ["conv", "full_attention"]}, {"conv.in_proj": "attention", "feed_forward.w2": "ffn"},
        {"model.layers.*.conv.conv.weight"},
    ),
    "Qwen3.5": (
        "Qwen3_5", LLAMA | LINEAR | {"head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
        {"linear_attn.out_proj": "attention", "mlp.up_proj": "ffn"}, {"model.layers.*.linear_attn.conv1d.weight"},
    ),
    "Bamba": ("Bamba", LLAMA | MAMBA, {"mamba.in_proj": "attention"}, {"model.layers.*.mamba.conv1d.weight"}),
    "NemotronH": (
        "NemotronH", LLAMA | MIXERS | {"head_dim": 8, "layers_block_type": ["mamba", "mlp"]},
        {"mixer.in_proj": "attention", "mixer.up_proj": "ffn"}, {"model.layers.*.mixer.conv1d.weight"},
    ),
    "xLSTM": (
        "xLSTM", SETTINGS | {"embedding_dim": 16, "num_heads": 2, "chunk_size": 8}, {"mlstm_layer.q": "attention", "ffn.proj_down": "ffn"},
        {"backbone.blocks.*.norm_mlstm.weight"},
    ),
    "RWKV": (
        "Rwkv", SETTINGS | {"attention_hidden_size": 16, "intermediate_size": 24, "context_length": 64},
        {"attention.receptance": "attention", "feed_forward.receptance": "ffn"}, {"rwkv.blocks.*.attention.time_mix_key"},
    ),
    "GPT-1": ("OpenAIGPT", {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}, {"mlp.c_fc": "ffn"}, set()),
}  # fmt: skip


def build(name: str, **changes: Any) -> transformers.PreTrainedModel:
    family, settings, _, _ = HYBRIDS[name]
    if family == "Qwen3_5":
        config = transformers.Qwen3_5TextConfig(**(settings | changes))
    else:
        config = getattr(transformers, f"{family}Config")(**(settings | changes))
    head = "LMHeadModel" if family == "OpenAIGPT" else "ForCausalLM"
    model = getattr(transformers, family + head)(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in (layer for block in find_blocks(model) for layer in block.layers):
            layer.write(torch.randn(layer.weight.shape, generator=generator) * layer.in_features**-0.5)
    return model.eval()


@pytest.mark.parametrize("pruner", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("name", HYBRIDS)
def test_hybrids_and_odd_parts(name: str, pruner: str) -> None:
    model, (_, _, kinds, dense) = build(name), HYBRIDS[name]
    record = prune(model, pruner=pruner, sparsity="2:4", calibration=tiny.token_ids(4))
    assert record["achieved_sparsity"] == 0.5
    assert dense <= set(record["dense"])
    found = {layer.name.removeprefix(f"{block.name}."): layer.kind for block in find_blocks(model) for layer in block.layers}
    assert kinds == {layer: found[layer] for layer in kinds}
    blocks = [block.module for block in find_blocks(model)]
    total = sum(parameter.numel() for block in blocks for parameter in block.parameters())
    in_layers = sum(entry["weights"] for entry in record["layers"].values())
    assert sum(part["weights"] for part in record["dense"].values()) == total - in_layers
    assert sum(part["share"] for part in record["dense"].values()) == pytest.approx(1 - in_layers / total)


@pytest.mark.parametrize("modules", ["attention", "ffn"])
def test_what_is_not_selected_does_not_count(modules: str) -> None:
    """A matrix of the attention that is no linear layer stands in the way of pruning the attention, and not of the FFN."""
    model = tiny.model()
    for block in model.model.layers:
        block.self_attn.table = nn.Parameter(torch.randn(16, 16))
    if modules == "attention":
        with pytest.raises(
            UnsupportedModelError, match=r"self_attn\.table \(16, 16\) .* 20\.0% of the attention weights .* dense_limit is 0\.02"
        ):
            prune(model, pruner="magnitude", sparsity=0.5, modules=modules)
    else:
        record = prune(model, pruner="magnitude", sparsity=0.5, modules=modules)
        assert record["dense"]["model.layers.*.self_attn.table"]["weights"] == 2 * 16 * 16


def test_the_limit_is_an_option() -> None:
    model = tiny.model()
    model.model.layers[1].mlp.table = nn.Parameter(torch.randn(16, 8))
    weights = sum(layer.weight.numel() for layer in find_blocks(model)[1].layers)
    share = 128 / (128 + weights)
    with pytest.raises(UnsupportedModelError, match=f"{share:.1%} of the weights of this block") as error:
        prune(model, pruner="magnitude", sparsity=0.5)
    assert "\n" not in str(error.value)
    with pytest.raises(UnsupportedModelError):
        prune(model, pruner="magnitude", sparsity=0.5, dense_limit=share * 0.99)
    record = prune(model, pruner="magnitude", sparsity=0.5, dense_limit=share * 1.01)
    assert record["plan"]["dense_limit"] == pytest.approx(share * 1.01)


@pytest.mark.parametrize("modules", ["*.q_proj", "model.layers.0.*"])
def test_a_glob_counts_what_it_matches(modules: str) -> None:
    model = tiny.model()
    model.model.layers[1].mlp.table = nn.Parameter(torch.randn(16, 16))
    check_coverage(model, find_blocks(model, modules), modules)
    with pytest.raises(UnsupportedModelError):
        check_coverage(model, find_blocks(model, "*.mlp.*"), "*.mlp.*")


def test_a_list_of_blocks_is_one_line_of_the_record() -> None:
    parts = dense_parts(find_blocks(tiny.model(layers=3)))
    assert set(parts) == {"model.layers.*.input_layernorm.weight", "model.layers.*.post_attention_layernorm.weight"}
    assert all(part["weights"] == 3 * tiny.WIDTH for part in parts.values())


class Shifted(nn.Linear):
    """Adds something of its own: no plain linear layer."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) + 1


class Reshaped(nn.Linear):
    """Computes what ``nn.Linear`` does in another way, as Falcon's layer."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        output = inputs @ self.weight.T
        return output if self.bias is None else output + self.bias


@pytest.mark.parametrize(("kind", "plain"), [(Reshaped, True), (Shifted, False)])
def test_a_subclass_is_a_linear_layer_if_it_computes_what_one_does(kind: type[nn.Linear], plain: bool) -> None:
    model = tiny.model()
    model.model.layers[1].mlp.up_proj = kind(16, 24)
    names = [layer.name for layer in find_blocks(model)[1].layers]
    assert ("model.layers.1.mlp.up_proj" in names) is plain
    if not plain:
        with pytest.raises(UnsupportedModelError, match=r"up_proj\.weight \(24, 16\) is not a matrix of a linear layer"):
            prune(model, pruner="magnitude", sparsity=0.5)


@pytest.mark.parametrize("pruner", ["wanda", "magnitude"])
def test_a_weight_that_is_multiplied_without_its_layer_is_measured(pruner: str) -> None:
    model = tiny.model()
    mlp = model.model.layers[0].mlp
    read: list[torch.Tensor] = []

    def forward(states: torch.Tensor) -> torch.Tensor:
        inner = mlp.act_fn(mlp.gate_proj(states)) * mlp.up_proj(states)
        read.append(inner)
        return (mlp.down_proj.weight @ inner.mT).mT

    mlp.forward = forward
    expected = mlp.down_proj.weight.detach().clone()
    prune(model, pruner=pruner, sparsity=0.5, calibration=tiny.token_ids(4), modules="*down_proj", precision="float64")
    if pruner == "wanda":
        norms = torch.cat([inner.reshape(-1, inner.shape[-1]) for inner in read[-1:]]).double().norm(dim=0)
        scores = expected.abs().double() * norms
        lowest = scores.sort(dim=1, stable=True).indices[:, : scores.shape[1] // 2]
        assert torch.equal(mlp.down_proj.weight == 0, torch.zeros_like(expected, dtype=torch.bool).scatter(1, lowest, True))


def test_the_innermost_name_decides_the_kind() -> None:
    class Outer(nn.Module):
        pass

    class InnerMLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(2, 2)

    block, mixer, attention = Outer(), InnerMLP(), Outer()
    block.mixer, block.attention, attention.feed_forward, attention.q = mixer, attention, InnerMLP(), nn.Linear(2, 2)
    assert kind_of(block, "mixer.up") == "ffn"
    assert kind_of(block, "attention.q") == "attention"
    assert kind_of(block, "attention.feed_forward.up") == "ffn"
