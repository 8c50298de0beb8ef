"""The shape of a linear layer, as allocations and pruning methods see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerShape:
    """The name and the shape of a linear layer to prune.

    Examples:
        >>> from harness_ext import LayerShape
        >>> layer = LayerShape("model.layers.0.mlp.up_proj", 0, "ffn", rows=64, columns=32)
        >>> layer.size
        2048
    """

    name: str
    """The full name of the layer, such as ``model.layers.0.self_attn.q_proj``."""
    block: int
    """The index of the decoder block, from 0."""
    kind: str
    """``attention`` or ``ffn``."""
    rows: int
    """The number of outputs."""
    columns: int
    """The number of inputs."""

    @property
    def size(self) -> int:
        """The number of weights."""
        return self.rows * self.columns
