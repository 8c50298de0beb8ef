"""What the author of an allocation implements: how the sparsity is spread over the linear layers of a model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch

from harness_ext.errors import PluginError
from harness_ext.method.options import Configurable
from harness_ext.method.pruner import PruningMethod
from harness_ext.method.shapes import LayerShape
from harness_ext.method.sparsity import Sparsity
from harness_ext.method.statistic import Statistic


class Measured(NamedTuple):
    """A linear layer of the dense model, and the statistic of its inputs: what ``Allocation.measure`` gets.

    Examples:
        An allocation in which a decoder block keeps more weights if its weights are larger:

        >>> from harness_ext import Allocation
        >>> class ByNorm(Allocation):
        ...     name = "by-norm"
        ...     def measure(self, block, pruner):
        ...         return sum(float(each.weight.abs().mean()) for each in block)
        ...     def spread(self, sparsity, layers, measured):
        ...         weights = sum(layer.size for layer in layers)
        ...         mean = sum(measured[layer.block] * layer.size for layer in layers) / weights
        ...         return {
        ...             layer.name: sparsity.ratio + 0.1 * (mean - measured[layer.block])
        ...             for layer in layers
        ...         }

        >>> from harness_ext import prune
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(
        ...     vocab_size=99, hidden_size=32, intermediate_size=64,
        ...     num_hidden_layers=2, num_attention_heads=2,
        ... )
        >>> model = LlamaForCausalLM(config)
        >>> record = prune(model, pruner="magnitude", sparsity=0.5, allocation=ByNorm())
        >>> abs(record["achieved_sparsity"] - 0.5) < 0.001
        True
    """

    layer: LayerShape
    """Its name and shape."""
    weight: torch.Tensor
    """[rows, columns], float32 or float64. Do not write into it."""
    statistic: Any
    """An instance of the class that ``measures`` returned, or None."""


class Allocation(Configurable):
    """Chooses the sparsity of each layer. Override ``spread``; also ``measure`` if it depends on weights or activations.

    Annotated class attributes are options, as in a pruner: ``strength: float = 0.1`` is set by ``allocation.strength=0.2``.
    """

    kind: ClassVar[str] = "allocation"
    statistic: ClassVar[type[Statistic] | None] = None
    """The statistic of the inputs of each layer of the dense model. None if no calibration is needed."""
    patterns: ClassVar[bool] = True
    """Whether it can spread an n:m pattern, with another n for each layer. Ratios from ``spread`` are rounded to patterns."""

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
        """Called before any weight is loaded. Raise BadOptionError if a file is missing or the pruner does not fit."""

    def check_layers(self, sparsity: Sparsity, layers: Sequence[LayerShape]) -> None:
        """Called before any weight is loaded, where the allocation looks at weights: raise BadOptionError here for a sparsity that it
        cannot spread over these layers, whatever their weights are.
        """

    def measures(self, pruner: PruningMethod) -> type[Statistic] | None:
        """The statistic to measure. By default ``statistic``; override it if the pruner decides."""
        return self.statistic

    def reads_weights(self) -> bool:
        """Whether ``measure`` is called. By default, whether it is overridden."""
        return type(self).measure is not Allocation.measure

    def measure(self, block: Sequence[Measured], pruner: PruningMethod) -> Any:
        """Measures the selected layers of one decoder block of the dense model. Return something small: the weights may be unloaded next.

        Args:
            block: the layers, in the order of the model.
            pruner: will prune these layers.

        Returns:
            what ``spread`` needs to know about this block, of any type.
        """

    def spread(self, sparsity: Sparsity, layers: Sequence[LayerShape], measured: Mapping[int, Any]) -> Mapping[str, float | Sparsity]:
        """Chooses the sparsity of each layer.

        Args:
            sparsity: asked for all layers together.
            layers: all layers to prune, in the order of the model.
            measured: what ``measure`` returned, by the index of the block. Empty if ``measure`` is not overridden.

        Returns:
            by the name of each layer, a ratio in [0, 1) or a Sparsity. Together they must remove what was asked for, up to one weight a
            layer: of all layers, or of those that do not get 0. Layers with 0 stay dense. Under a pattern, a Sparsity must be a pattern
            too.
        """
        raise PluginError(f"{type(self).__qualname__} does not override spread")
