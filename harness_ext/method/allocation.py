"""The contract of an allocation: how the sparsity is spread over the layers of a model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from harness_ext.errors import PluginError
from harness_ext.method.options import Configurable
from harness_ext.method.sparsity import Sparsity
from harness_ext.method.statistic import Statistic

if TYPE_CHECKING:
    from harness_ext.method.pruner import PruningMethod


@dataclass(frozen=True)
class LayerShape:
    """A linear layer that is to be pruned."""

    name: str
    """The full name of the module, such as ``model.layers.0.self_attn.q_proj``."""
    block: int
    """The number of its decoder block, from 0."""
    kind: str
    """``attention`` or ``ffn``."""
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """The number of its weights."""
        return self.rows * self.columns


class Measured(NamedTuple):
    """A layer of the dense model, with what was measured on its inputs."""

    layer: LayerShape
    weight: torch.Tensor
    """[rows, columns], float32 or float64; do not write into it."""
    statistic: Any
    """An instance of what ``measures`` returned, or None."""


class Allocation(Configurable):
    """A way to spread the sparsity over the layers: override ``spread``, and ``measure`` if it depends on weights or activations.

    Annotated class attributes are options, as in a pruner: ``strength: float = 0.1`` is set by ``allocation.strength=0.2``.
    """

    kind: ClassVar[str] = "allocation"
    statistic: ClassVar[type[Statistic] | None] = None
    """What is measured on the inputs of each layer of the dense model; None if no calibration is needed."""
    patterns: ClassVar[bool] = True
    """Whether it can spread an n:m pattern, by another n for each layer (:meth:`spread` gives ratios, which are rounded)."""

    @classmethod
    def check_class(cls) -> None:
        """Called before the allocation is used, whether a plugin registered it or an instance was passed.

        Raises:
            PluginError: ``spread`` is not overridden, or the statistic cannot be updated.
        """
        if cls.spread is Allocation.spread:
            raise PluginError(f"{cls.__qualname__} does not override spread")
        if cls.statistic is not None and inspect.isabstract(cls.statistic):
            raise PluginError(f"{cls.__qualname__}: its statistic {cls.statistic.__qualname__} does not override update")

    def check(self, pruner: PruningMethod) -> None:
        """Called before any weight is loaded: raise BadOptionError here if a file is missing or the pruner does not go with it."""

    def measures(self, pruner: PruningMethod) -> type[Statistic] | None:
        """What is measured: ``statistic``, for allocations where that does not depend on the pruner."""
        return self.statistic

    def reads_weights(self) -> bool:
        """Whether ``measure`` is to be called at all; by default, whether it is overridden."""
        return type(self).measure is not Allocation.measure

    def measure(self, block: Sequence[Measured], pruner: PruningMethod) -> Any:
        """Looks at the selected layers of one decoder block of the dense model. Keep what is small: the weights may be gone afterwards.

        Args:
            block: its layers, in the order of the model.
            pruner: the one that will prune them.

        Returns:
            whatever ``spread`` needs of this block.
        """

    def spread(self, sparsity: Sparsity, layers: Sequence[LayerShape], measured: Mapping[int, Any]) -> Mapping[str, float | Sparsity]:
        """Chooses each layer's sparsity.

        Args:
            sparsity: what is to be removed from all the layers together.
            layers: all layers to be pruned, in the order of the model.
            measured: what ``measure`` returned, by the number of the block; empty if it is not overridden.

        Returns:
            for every layer, by its name, a ratio in [0, 1) of its weights, or a Sparsity. Together they must remove what was asked for, up
            to one weight a layer.
        """
        raise PluginError(f"{type(self).__qualname__} does not override spread")
