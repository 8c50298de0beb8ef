"""How many tokens a model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_target_positions")
"""What configurations call the number. The second and third are those of models with code of their own, the others of MPT and Whisper."""
TABLES = ("position_embeddings", "embed_positions")
"""What modules with an embedding for each position are called."""


def longest(model: PreTrainedModel) -> int | None:
    """How many tokens the model takes, where its configuration says so."""
    config = model.config.get_text_config()
    values: list[Any] = [getattr(config, name, None) for name in NAMES]
    limits = [value for value in values if isinstance(value, int) and value > 0]  # XLNet has -1
    return min(limits) - _unused(model, min(limits)) if limits else None


def _unused(model: PreTrainedModel, limit: int) -> int:
    """How many of the positions no token can have: RoBERTa and its kin count from the one behind the padding token's."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in TABLES and isinstance(module, nn.Embedding) and module.num_embeddings == limit:
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0
