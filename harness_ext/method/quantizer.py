"""What the author of a method implements that stores weights in fewer bits: a ``Quantizer``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch

from harness_ext.errors import BadOptionError, PluginError, shown
from harness_ext.method.grid import Grid
from harness_ext.method.pruner import PruningMethod
from harness_ext.method.shapes import LayerShape
from harness_ext.method.sparsity import Sparsity

FEWEST_BITS, MOST_BITS = 2, 8
ROW = "row"


class Quantized(NamedTuple):
    """A quantised weight: the code of each weight, and the grid of each group. The engine computes ``(code - zero_point) * scale``."""

    codes: torch.Tensor
    """[out_features, in_features], whole numbers in [0, 2**bits), of an integer dtype."""
    scales: torch.Tensor
    """[out_features, groups], above 0, in the dtype of the weight that was quantised."""
    zero_points: torch.Tensor
    """[out_features, groups], whole numbers in [0, 2**bits), of an integer dtype."""
    mask: torch.Tensor | None = None
    """bool [out_features, in_features], true for removed weights, whose code is the zero point; None where nothing is removed."""
    group_of: torch.Tensor | None = None
    """int64 [in_features], the group of each input; None for groups of consecutive inputs."""
    notes: Mapping[str, Any] = {}
    """JSON values by name, for the pruning record."""


class Quantizer(PruningMethod):
    """A method that rounds the weights of one linear layer at a time to grids of ``2**bits`` values.

    Override ``quantize``, or ``quantize_together`` for all layers that read the same inputs. Users choose it by ``pruner=NAME,bits=4``.
    With ``sparsity=0.5`` beside the bits, the method also removes weights.

    Examples:
        Rounds to a grid that leaves out the largest weights:

        >>> import torch
        >>> from harness_ext import Grid, Quantized, Quantizer, Sparsity
        >>> class Clipped(Quantizer):
        ...     name = "clipped"
        ...     share: float = 0.9
        ...     def quantize(self, weight, bits, sparsity, statistic):
        ...         mask = sparsity.mask(weight.abs()) if sparsity.ratio else None
        ...         kept = weight if mask is None else weight.masked_fill(mask, 0)
        ...         groups = kept.split(self.width_of_group(weight.shape[1]), dim=1)
        ...         grids = [Grid.of(part * self.share, bits, symmetric=self.symmetric) for part in groups]
        ...         codes = [grid.codes(part) for grid, part in zip(grids, groups)]
        ...         return Quantized(
        ...             torch.cat(codes, dim=1).to(torch.uint8),
        ...             torch.cat([grid.scales for grid in grids], dim=1),
        ...             torch.cat([grid.zero_points for grid in grids], dim=1).to(torch.uint8),
        ...             mask,
        ...         )
        >>> Clipped(share=0.5).quantize(torch.tensor([[-1.0, 0.0, 2.0]]), 2, Sparsity(0), None).codes
        tensor([[0, 1, 3]], dtype=torch.uint8)
    """

    _engine_runs: ClassVar[bool] = True
    group_size: int | Literal["row"] = 128
    """How many consecutive inputs of a row share a grid; ``row`` or 0 for all of them. The last group of a row may be shorter."""
    symmetric: bool = False
    """Whether the zero point is in the middle of the grid."""

    def __post_init__(self) -> None:
        if isinstance(self.group_size, int) and self.group_size < 0:
            raise BadOptionError(f"pruner.group_size={self.group_size}: want a number of inputs such as 64, or {ROW}: one group a row")

    def width_of_group(self, in_features: int) -> int:
        """How many of ``in_features`` inputs are in a group; the last group may have fewer."""
        return in_features if self.group_size in (ROW, 0) else min(int(self.group_size), in_features)

    def groups_of(self, in_features: int) -> int:
        """How many groups a row of ``in_features`` inputs has."""
        return math.ceil(in_features / self.width_of_group(in_features))

    def quantize(self, weight: torch.Tensor, bits: int, sparsity: Sparsity, statistic: Any) -> Quantized:
        """Computes the codes and the grids of a layer.

        Args:
            weight: [out_features, in_features], float32, or float64 where ``precision=float64`` was asked for; do not write into it.
            bits: of a code, 2 to 8.
            sparsity: what to remove from this layer; its ratio is 0 where only bits were asked for.
            statistic: the statistic of the layer's inputs, an instance of the class that ``measures`` returned, or None.
        """
        raise PluginError(f"{type(self).__qualname__} does not override quantize")

    def quantize_together(
        self, weights: Sequence[torch.Tensor], bits: int, sparsities: Sequence[Sparsity], statistic: Any
    ) -> Sequence[Quantized]:
        """Quantises the layers that read the same inputs, such as the projections of an attention; by default each by ``quantize``.

        Override it if the layers can share work beyond the statistic.

        Args:
            weights: the weight of each layer, as in ``quantize``.
            bits: of a code, 2 to 8.
            sparsities: what to remove from each layer.
            statistic: the statistic that they share.

        Returns:
            what ``quantize`` would return, for each of the layers.
        """
        return [self.quantize(weight, bits, sparsity, statistic) for weight, sparsity in zip(weights, sparsities, strict=True)]

    def nearest(self, weight: torch.Tensor, bits: int, sparsity: Sparsity) -> Quantized:
        """Removes the weights of smallest magnitude in the matrix, and rounds the others to the nearest value of their group's grid.

        The engine calls it for experts that got no calibration token.

        Args:
            weight: as in ``quantize``.
            bits: as in ``quantize``.
            sparsity: as in ``quantize``.
        """
        mask = sparsity.mask(weight.abs()) if sparsity.ratio > 0 else None
        kept = weight if mask is None else weight.masked_fill(mask, 0)
        parts = torch.split(kept, self.width_of_group(weight.shape[1]), dim=1)
        grids = [Grid.of(part, bits, symmetric=self.symmetric) for part in parts]
        return Quantized(
            torch.cat([grid.codes(part) for grid, part in zip(grids, parts, strict=True)], dim=1).to(torch.uint8),
            torch.cat([grid.scales for grid in grids], dim=1),
            torch.cat([grid.zero_points for grid in grids], dim=1).to(torch.uint8),
            mask,
        )

    def check_bits(self, bits: int) -> None:
        """Override it to refuse bits before the model is loaded.

        Raises:
            BadOptionError: the method cannot quantise to so many bits with its options.
        """

    def check_layer(self, layer: LayerShape, sparsity: Sparsity) -> None:
        """Override it to refuse a layer of this shape, before weights are loaded. It is not called where the allocation looks at weights.

        Args:
            sparsity: what to remove from this layer; its ratio may be 0.

        Raises:
            BadOptionError: the method cannot quantise this layer, or cannot remove this share or pattern from it.
        """

    @classmethod
    def quantizes_together(cls) -> bool:
        """Whether ``quantize_together`` is overridden."""
        return cls.quantize_together is not Quantizer.quantize_together

    @classmethod
    def check_class(cls) -> None:
        super().check_class()
        for name in ("score", "prune", "prune_together", "prune_model"):
            if hasattr(cls, name):
                base = "ModelPruner" if name == "prune_model" else "Pruner"
                raise PluginError(
                    f"{cls.__qualname__} overrides {name}, which harness_ext.Quantizer does not have: derive it from harness_ext.{base}"
                )
        if all(getattr(cls, name) is getattr(Quantizer, name) for name in ("quantize", "quantize_together")):
            raise PluginError(f"{cls.__qualname__} overrides none of quantize and quantize_together")


def parse_bits(value: Any) -> int | None:
    """Reads a number of bits from 2 to 8, or None or the text ``none`` for weights that are not quantised.

    Raises:
        BadOptionError: anything else.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        return None
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]+\s*", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not FEWEST_BITS <= value <= MOST_BITS:
        raise BadOptionError(
            f"bits={shown(value)}: want a whole number from {FEWEST_BITS} to {MOST_BITS}, such as 4. "
            "Leave bits out for weights that are not quantised"
        )
    return value
