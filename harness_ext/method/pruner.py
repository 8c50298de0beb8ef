"""The contract of a pruning method."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from harness_ext.errors import PluginError
from harness_ext.method.options import Configurable
from harness_ext.method.sparsity import Group, Sparsity
from harness_ext.method.statistic import Statistic

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Pruned(NamedTuple):
    """A pruned weight and what should stand in the pruning record about it (JSON values)."""

    weight: torch.Tensor
    notes: Mapping[str, Any] = {}


class Pruner(Configurable):
    """A pruning method: a ladder of three methods, of which a subclass overrides the first that is enough.

    ``score`` ranks the weights of a layer, ``prune`` computes a layer's new weight, ``prune_model`` does it all by itself.
    Annotated class attributes are options: ``block_size: int = 128`` is set by ``pruner.block_size=64``. Raise ``ValueError`` in
    ``__post_init__`` for values that make no sense.
    """

    kind: ClassVar[str] = "pruner"
    statistic: ClassVar[type[Statistic] | None] = None
    """What is measured on each layer's inputs; None for methods that need no calibration."""
    calibrated: ClassVar[bool] = False
    """Whether ``prune_model`` reads its ``calibration`` argument; true by itself where something is measured."""
    group: ClassVar[Group] = "matrix"
    """Within what the scores of ``score`` are compared: a row (all weights of one output) or the whole matrix."""
    structured: ClassVar[bool] = False
    """Whether ``prune_model`` takes decoder layers, heads or channels out of the model, which becomes a smaller one, and zeroes nothing."""

    def measures(self) -> type[Statistic] | None:
        """What is measured: ``statistic``, for methods where that does not depend on an option."""
        return self.statistic

    def check_sparsity(self, sparsity: Sparsity) -> None:
        """Override it to refuse a sparsity before the model is loaded; it is not called for the dense model.

        Raises:
            BadOptionError: the method cannot remove that, with the options that it has.
        """

    def score(self, weight: torch.Tensor, statistic: Any) -> torch.Tensor:
        """Ranks the weights of a layer; larger scores are kept.

        Args:
            weight: [out_features, in_features], float32, or float64 where ``precision=float64`` was asked for; do not write into it.
            statistic: an instance of what ``measures`` returns that has seen the layer's inputs, or None.

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
        return weight.masked_fill(sparsity.mask(scores, self.group), 0)

    def prune_together(
        self, weights: Sequence[torch.Tensor], sparsities: Sequence[Sparsity], statistic: Any
    ) -> Sequence[torch.Tensor | Pruned]:
        """Prunes the layers that read the same inputs, such as the projections of an attention; by default each by ``prune``.

        Override it where they can share work beyond what the statistic itself shares.

        Args:
            weights, sparsities: as in ``prune``, for each of the layers.
            statistic: the one of all of them.

        Returns:
            what ``prune`` would return, for each of the layers.
        """
        return [self.prune(weight, sparsity, statistic) for weight, sparsity in zip(weights, sparsities, strict=True)]

    def prune_model(
        self, model: PreTrainedModel, sparsity: Sparsity, calibration: torch.Tensor | None, modules: str = "all"
    ) -> Mapping[str, Any] | None:
        """Prunes a whole model in place, for methods that do not go layer by layer.

        Args:
            model: the causal language model, in evaluation mode.
            sparsity: what to remove from the linear layers of the decoder; a ratio for ``structured`` methods.
            calibration: int64 [samples, length] token ids if ``calibrated`` is set or something is measured, else None.
            modules: ``all``, or what the user chose instead, for ``structured`` methods that can leave attention or FFN alone.

        Returns:
            notes for the pruning record (JSON values), or None.
        """
        raise PluginError(f"{type(self).__qualname__} does not override prune_model")

    @classmethod
    def check_class(cls) -> None:
        """Called before the pruner is used, whether a plugin registered it or an instance was passed.

        Raises:
            PluginError: no method is overridden, or the statistic cannot be updated.
        """
        if cls.rung() is None:
            raise PluginError(f"{cls.__qualname__} overrides none of score, prune and prune_model")
        if cls.structured and cls.rung() != "prune_model":
            raise PluginError(f"{cls.__qualname__} is structured and does not override prune_model")
        if cls.statistic is not None and inspect.isabstract(cls.statistic):
            raise PluginError(f"{cls.__qualname__}: its statistic {cls.statistic.__qualname__} does not override update")

    @classmethod
    def rung(cls) -> str | None:
        """The most general method that the class overrides: ``prune_model``, ``prune_together``, ``prune``, ``score`` or None."""
        return next(
            (name for name in ("prune_model", "prune_together", "prune", "score") if getattr(cls, name) is not getattr(Pruner, name)), None
        )
