"""Tiny random models, one for each architecture that is supported, and what goes with them. Nothing is downloaded.

All matrices, biases and norms are drawn anew, so that no bias is zero, no norm is one, and no two channels are alike.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

WIDTH, INNER, VOCABULARY, LONGEST = 16, 24, 40, 32
WINDOW = 5  # Mistral's sliding window, shorter than the sequences of token_ids

_COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_LLAMA = (
    _COMMON
    | {"hidden_size": WIDTH, "intermediate_size": INNER, "num_attention_heads": 4, "num_key_value_heads": 4}
    | {"max_position_embeddings": LONGEST}
)
_CONFIGS: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("Llama", _LLAMA),
    "llama-gqa-tied": ("Llama", _LLAMA | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "opt": (
        "OPT",
        _COMMON
        | {"hidden_size": WIDTH, "word_embed_proj_dim": WIDTH, "ffn_dim": INNER, "num_attention_heads": 4}
        | {"max_position_embeddings": LONGEST, "dropout": 0.0},
    ),
    "gpt-neox": (
        "GPTNeoX",
        _COMMON
        | {"hidden_size": WIDTH, "intermediate_size": INNER, "num_attention_heads": 2, "max_position_embeddings": LONGEST}
        | {"tie_word_embeddings": False},
    ),
    "gpt2": ("GPT2", _COMMON | {"n_embd": WIDTH, "n_inner": INNER, "n_head": 4, "n_positions": LONGEST}),
    "qwen2": ("Qwen2", _LLAMA | {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3", _LLAMA | {"num_key_value_heads": 2, "head_dim": 8}),
    "mistral": ("Mistral", _LLAMA | {"num_key_value_heads": 2, "sliding_window": WINDOW}),
}
ARCHITECTURES = tuple(_CONFIGS)

LINEAR_LAYERS = {  # the linear layers of each block, in the order of the model
    "opt": ("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj", "fc1", "fc2"),
    "gpt-neox": ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    "gpt2": ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
} | dict.fromkeys(
    ("llama", "llama-gqa-tied", "qwen2", "qwen3", "mistral"),
    tuple(f"self_attn.{name}_proj" for name in "qkvo") + tuple(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)


def model(name: str = "llama", *, layers: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: object) -> PreTrainedModel:
    """A random causal language model in evaluation mode.

    Args:
        name: one of ``ARCHITECTURES``.
        changes: other values of its configuration.
    """
    family, settings = _CONFIGS[name]
    config = getattr(transformers, f"{family}Config")(num_hidden_layers=layers, **(settings | changes))
    built = getattr(transformers, f"{family}LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM")(config)
    return randomise(built, seed).to(dtype).eval()


def randomise(built: nn.Module, seed: int = 0) -> nn.Module:
    """Draws all parameters anew: matrices of about unit gain, norms around 1, biases around 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * WIDTH**-0.5)
            else:
                parameter.copy_(noise * 0.2 + (1 if "bias" not in name else 0))
    return built


def token_ids(samples: int = 5, length: int = 12, seed: int = 0) -> torch.Tensor:
    """int64 [samples, length], uniform over the vocabulary without token 0."""
    return torch.randint(1, VOCABULARY, (samples, length), generator=torch.Generator().manual_seed(seed))


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word: ``<end>``, ``<unk>``, the digits, and the letters from ``a``; spaces separate and vanish."""
    words = ["<end>", "<unk>", *"0123456789", *"abcdefghijklmnopqrstuvwxyz", ":", ","]
    built = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=built, eos_token="<end>", bos_token="<end>", pad_token="<end>", unk_token="<unk>")


def checkpoint(folder: Path, name: str = "llama", **options: object) -> str:
    """Saves a model and the tokenizer; returns the folder for ``pretrained=``."""
    model(name, **options).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def weights(built: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in built.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are the same bit for bit."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(_bits(one[name]), _bits(other[name])) for name in one
    )


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)
