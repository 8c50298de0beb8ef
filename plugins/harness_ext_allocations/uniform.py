"""The same sparsity everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from harness_ext import Allocation, LayerShape, Sparsity


class Uniform(Allocation):
    """Gives every layer the sparsity that was asked for."""

    name: ClassVar[str] = "uniform"

    def spread(self, sparsity: Sparsity, layers: Sequence[LayerShape], measured: Mapping[int, Any]) -> Mapping[str, float | Sparsity]:
        return {layer.name: sparsity for layer in layers}
