"""Position embeddings that depend on the length of what is in one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ORIGINAL = "original_max_position_embeddings"
BY_LENGTH = ("longrope", "dynamic")  # types of rotary embeddings whose frequencies change beyond a length


def changes_beyond(config: PreTrainedConfig) -> int | None:
    """The number of positions beyond which the rotary embeddings of all positions change; None where there is none.

    The cache of a shorter prompt does not fit to a continuation beyond it. The number is 0 if the configuration does not tell it.
    """
    limits = []
    for owner in mappings(config.to_dict()):
        for name in ("rope_parameters", "rope_scaling"):
            for rope in mappings(owner.get(name)):
                if rope.get("rope_type", rope.get("type")) in BY_LENGTH:
                    original = rope.get(ORIGINAL) or owner.get(ORIGINAL)
                    limits.append(int(original or owner.get("max_position_embeddings") or 0))
    return min(limits, default=None)


def mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """A mapping and all mappings in it: a configuration has others for its parts, and rotary embeddings may differ between layers."""
    if isinstance(value, Mapping):
        yield value
        for one in value.values():
            yield from mappings(one)
