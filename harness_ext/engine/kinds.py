"""Says whether a linear layer belongs to the part of a decoder block that mixes tokens (``attention``) or to the rest (``ffn``)."""

from __future__ import annotations

from torch import nn

KINDS = ("all", "attention", "ffn")
ATTENTION = ("attn", "attention", "mixer", "mamba", "ssm", "lstm", "recurrent", "rglru", "conv", "delta", "retention", "timemix", "moa")
FFN = ("mlp", "ffn", "ffw", "feedforward", "moe", "glu")


def kind_of(block: nn.Module, name: str) -> str:
    """``attention`` for attention, and for what stands in its place (a state space, a recurrence, a convolution); else ``ffn``.

    The innermost module around the layer that says it decides, first by the name of its class, then by its own name in the block.

    Args:
        name: of the layer, or of a parameter, within the block.
    """
    parts = name.split(".")
    for depth in range(len(parts), 0, -1):
        of_class = _own_part(type(block).__name__, _class_name(block, parts[:depth])) if depth < len(parts) else ""
        for text in (of_class, parts[depth - 1]):
            plain = text.lower().replace("_", "")
            if any(word in plain for word in FFN):
                return "ffn"
            if any(word in plain for word in ATTENTION):
                return "attention"
    return "ffn"


def _class_name(block: nn.Module, path: list[str]) -> str:
    return type(block.get_submodule(".".join(path))).__name__


def _own_part(block: str, name: str) -> str:
    """The name of a class without what it begins with as that of the block does: the family, such as Mamba2 or RecurrentGemma."""
    same = next((place for place, (one, other) in enumerate(zip(block, name, strict=False)) if one != other), min(len(block), len(name)))
    return name[same:]
