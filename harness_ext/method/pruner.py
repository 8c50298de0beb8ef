"""What the author of a pruning method implements: a ``Pruner``, a ``ModelPruner`` or a ``StructuredPruner``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from harness_ext.errors import BadOptionError, PluginError, shown
from harness_ext.method.options import Configurable
from harness_ext.method.shapes import LayerShape
from harness_ext.method.sparsity import Group, Sparsity
from harness_ext.method.statistic import Statistic

if TYPE_CHECKING:
    from transformers import PreTrainedModel


BASES = "harness_ext.Pruner, ModelPruner, StructuredPruner or Quantizer"
"""The public base classes of pruning methods, for errors."""


class Pruned(NamedTuple):
    """A pruned weight, and notes about it for the pruning record."""

    weight: torch.Tensor
    """[out_features, in_features], in the dtype of the weight that was pruned."""
    notes: Mapping[str, Any] = {}
    """JSON values by name."""


class PruningMethod(Configurable):
    """The base class of all pruning methods. Subclass ``Pruner``, ``ModelPruner``, ``StructuredPruner`` or ``Quantizer``.

    Annotated class attributes are options: ``block_size: int = 128`` is set by ``pruner.block_size=64``. Raise ``ValueError`` in
    ``__post_init__`` for values that make no sense.
    """

    kind: ClassVar[str] = "pruner"
    _engine_runs: ClassVar[bool] = False  # whether the engine knows how to run it: of the public base classes and what is derived from them
    statistic: ClassVar[type[Statistic] | None] = None
    """The statistic of the inputs of each linear layer; None for methods that need no calibration."""

    def measures(self) -> type[Statistic] | None:
        """The statistic to measure. By default ``statistic``; override it if an option decides."""
        return self.statistic

    def needs_calibration(self) -> bool:
        """Whether the method needs calibration tokens."""
        return self.measures() is not None

    def check_sparsity(self, sparsity: Sparsity) -> None:
        """Override it to refuse a sparsity before the model is loaded. It is not called for the dense model.

        Raises:
            BadOptionError: the method cannot remove this share or pattern with its options.
        """

    def check_model(self, model: PreTrainedModel, sparsity: Sparsity, modules: str) -> None:
        """Override it to refuse a model or a sparsity by the configuration and the shapes of the model, before its weights are loaded.

        Args:
            model: the causal language model, in most cases without weights: its parameters are on the meta device.

        Raises:
            BadOptionError: the method cannot remove this share or pattern from this model.
            UnsupportedModelError: the method cannot prune this model.
        """

    @classmethod
    def check_class(cls) -> None:
        """Called before the pruner is used, whether a plugin registered it or an instance was passed.

        Raises:
            PluginError: no method is overridden, or the statistic cannot be updated.
        """
        if not cls._engine_runs:
            raise PluginError(f"{cls.__qualname__} wants {BASES} as its base class")
        if cls.statistic is not None and inspect.isabstract(cls.statistic):
            raise PluginError(f"{cls.__qualname__}: its statistic {cls.statistic.__qualname__} does not override update")


class Pruner(PruningMethod):
    """A pruning method that prunes one linear layer at a time.

    Override the first of these methods that is enough: ``score`` ranks the weights of a layer, ``prune`` computes a layer's new weight,
    ``prune_together`` computes the new weights of all layers that read the same inputs.

    Examples:
        >>> import torch
        >>> from harness_ext import ChannelNorms, Pruner, Sparsity
        >>> class MyNorms(Pruner):
        ...     name = "my-norms"
        ...     statistic = ChannelNorms
        ...     group = "row"
        ...     power: float = 0.5
        ...     def score(self, weight, statistic):
        ...         return weight.abs() * statistic.norms**self.power

        The engine measures the statistic and calls the pruner for each layer:

        >>> norms = ChannelNorms(in_features=2, device=torch.device("cpu"))
        >>> norms.update(torch.tensor([[9.0, 1.0]]))
        >>> MyNorms(power=1.0).prune(torch.tensor([[1.0, 2.0], [1.0, 20.0]]), Sparsity(0.5), norms)
        tensor([[ 1.,  0.],
                [ 0., 20.]])
    """

    _engine_runs: ClassVar[bool] = True
    group: ClassVar[Group] = "matrix"
    """Where the scores of ``score`` are compared: within each row (the weights of one output), or in the whole matrix."""

    def compared_within(self) -> Group:
        """By default ``group``; override it if an option decides."""
        return self.group

    def score(self, weight: torch.Tensor, statistic: Any) -> torch.Tensor:
        """Ranks the weights of a layer; larger scores are kept.

        Args:
            weight: [out_features, in_features], float32, or float64 where ``precision=float64`` was asked for; do not write into it.
            statistic: the statistic of the layer's inputs, an instance of the class that ``measures`` returned, or None.

        Returns:
            scores of the shape of ``weight``, any floating dtype.
        """
        raise PluginError(f"{type(self).__qualname__} does not override score")

    def prune(self, weight: torch.Tensor, sparsity: Sparsity, statistic: Any) -> torch.Tensor | Pruned:
        """Computes the pruned weight of a layer; by default, zeroes the weights with the lowest scores.

        Args:
            weight: as in ``score``.
            sparsity: what to remove from this layer.
            statistic: as in ``score``.

        Returns:
            a new weight of the same shape, with or without notes for the pruning record.
        """
        scores = self.score(weight, statistic)
        if not isinstance(scores, torch.Tensor) or scores.shape != weight.shape:
            got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
            raise PluginError(f"want scores of shape {tuple(weight.shape)}, not {got}")
        return weight.masked_fill(sparsity.mask(scores, self.compared_within()), 0)

    def prune_together(
        self, weights: Sequence[torch.Tensor], sparsities: Sequence[Sparsity], statistic: Any
    ) -> Sequence[torch.Tensor | Pruned]:
        """Prunes the layers that read the same inputs, such as the projections of an attention; by default each by ``prune``.

        Override it if the layers can share work beyond the statistic.

        Args:
            weights: the weight of each layer, as in ``prune``.
            sparsities: what to remove from each layer.
            statistic: the statistic that they share.

        Returns:
            what ``prune`` would return, for each of the layers.
        """
        return [self.prune(weight, sparsity, statistic) for weight, sparsity in zip(weights, sparsities, strict=True)]

    def check_layer(self, layer: LayerShape, sparsity: Sparsity) -> None:
        """Override it to refuse a sparsity for a layer of this shape, before weights are loaded. It is not called where the allocation
        looks at weights.

        Raises:
            BadOptionError: the method cannot remove this share or pattern from this layer.
        """

    @classmethod
    def prunes_together(cls) -> bool:
        """Whether ``prune_together`` is overridden."""
        return cls.prune_together is not Pruner.prune_together

    @classmethod
    def check_class(cls) -> None:
        super().check_class()
        if hasattr(cls, "prune_model"):
            base = "StructuredPruner" if getattr(cls, "structured", False) else "ModelPruner"
            raise PluginError(
                f"{cls.__qualname__} overrides prune_model, which harness_ext.Pruner does not have: derive it from harness_ext.{base}"
            )
        if all(getattr(cls, name) is getattr(Pruner, name) for name in ("score", "prune", "prune_together")):
            raise PluginError(f"{cls.__qualname__} overrides none of score, prune and prune_together")


class ModelPruner(PruningMethod):
    """A pruning method that treats the model as a whole and zeroes weights of its linear layers: override ``prune_model``."""

    _engine_runs: ClassVar[bool] = True
    calibrated: ClassVar[bool] = False
    """Whether ``prune_model`` reads its ``calibration`` argument."""

    def needs_calibration(self) -> bool:
        return self.calibrated or super().needs_calibration()

    def prune_model(
        self, model: PreTrainedModel, sparsity: Sparsity, calibration: torch.Tensor | None, modules: str = "all"
    ) -> Mapping[str, Any] | None:
        """Prunes a whole model in place.

        Args:
            model: the causal language model, in evaluation mode.
            sparsity: what to remove from the linear layers of the decoder blocks; a ratio for structured pruners.
            calibration: int64 [samples, length] token ids if ``calibrated`` is set or something is measured, else None.
            modules: ``all``, or what the user chose instead, for structured pruners that can leave attention or FFN alone.

        Returns:
            notes for the pruning record (JSON values), or None.
        """
        raise PluginError(f"{type(self).__qualname__} does not override prune_model")

    @classmethod
    def check_class(cls) -> None:
        super().check_class()
        if cls.prune_model is ModelPruner.prune_model:
            raise PluginError(f"{cls.__qualname__} does not override prune_model")


class StructuredPruner(ModelPruner):
    """A ``ModelPruner`` whose ``prune_model`` makes the model smaller: it removes decoder blocks, heads or channels.

    Whole blocks, heads and channels rarely add up to the ratio that was asked for. Remove the nearest share that is possible. The record
    and a warning say how much was removed.
    """

    tolerance: float = 0.25
    """How far the removed share of the linear weights may be from the ratio that was asked for."""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise BadOptionError(f"pruner.tolerance={shown(self.tolerance)}: want a share of the weights in [0, 1), such as 0.05")
