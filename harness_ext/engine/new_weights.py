"""How the new weights of linear layers are computed and checked: by a pruner, or by a quantizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from harness_ext.engine import checks, record
from harness_ext.engine.codes import dequantise
from harness_ext.engine.layers import LinearLayer
from harness_ext.errors import NumericalError
from harness_ext.method.finite import all_finite
from harness_ext.method.pruner import Pruner
from harness_ext.method.quantizer import Quantizer
from harness_ext.method.sparsity import Sparsity


class NewWeight(NamedTuple):
    """A checked weight [out_features, in_features], its notes, and what counts it for the record once it is in its layer."""

    weight: torch.Tensor
    notes: dict[str, Any]
    counts: Callable[[LinearLayer], dict[str, Any]]


class NewWeights(ABC):
    """The work of one method on the layers that read the same inputs."""

    together: bool
    """Whether the method takes several layers at once."""
    called: str
    """The name of the function that takes several layers."""

    @abstractmethod
    def compute(self, weights: Sequence[torch.Tensor], sparsities: Sequence[Sparsity], statistic: Any) -> Any:
        """What the method returns for layers; for one layer, unless it takes several at once.

        Args:
            weights: float [out_features, in_features].
            sparsities: what to remove from each layer.
            statistic: that they share, or None.
        """

    @abstractmethod
    def without_inputs(self, weight: torch.Tensor, sparsity: Sparsity) -> Any:
        """What stands in for the method where a layer got no calibration token."""

    @abstractmethod
    def checked(
        self, result: Any, given: torch.Tensor, dense: torch.Tensor, dtype: torch.dtype, sparsity: Sparsity, blame: str
    ) -> NewWeight:
        """What the method returned for a layer, as a new weight.

        Args:
            given: what the method was handed.
            dense: what that should still be equal to.
            dtype: of the model's weight, which has to hold the new one.
            blame: the start of a message: whose mistake it is.

        Raises:
            PluginError: the method broke its contract.
            NumericalError: numbers are not finite.
        """


class Pruning(NewWeights):
    """The work of a pruner."""

    called = "prune_together"

    def __init__(self, pruner: Pruner) -> None:
        self._pruner, self.together = pruner, pruner.prunes_together()

    def compute(self, weights: Sequence[torch.Tensor], sparsities: Sequence[Sparsity], statistic: Any) -> Any:
        if self.together:
            return self._pruner.prune_together(weights, sparsities, statistic)
        return [self._pruner.prune(weights[0], sparsities[0], statistic)]

    def without_inputs(self, weight: torch.Tensor, sparsity: Sparsity) -> Any:
        return weight.masked_fill(sparsity.mask(weight.abs(), self._pruner.compared_within()), 0)

    def checked(
        self, result: Any, given: torch.Tensor, dense: torch.Tensor, dtype: torch.dtype, sparsity: Sparsity, blame: str
    ) -> NewWeight:
        weight, notes = checks.unpack(result, given, dense, dtype, blame)
        checks.check_zeros(weight, sparsity, int((dense == 0).sum()), blame)
        return NewWeight(weight, notes, lambda layer: record.counts(layer, sparsity))


class Quantising(NewWeights):
    """The work of a quantizer: the values of its codes are computed here, so that each weight is on the grid of its group."""

    called = "quantize_together"

    def __init__(self, quantizer: Quantizer, bits: int) -> None:
        self._quantizer, self._bits, self.together = quantizer, bits, quantizer.quantizes_together()

    def compute(self, weights: Sequence[torch.Tensor], sparsities: Sequence[Sparsity], statistic: Any) -> Any:
        _check_finite(weights)
        if self.together:
            return self._quantizer.quantize_together(weights, self._bits, sparsities, statistic)
        return [self._quantizer.quantize(weights[0], self._bits, sparsities[0], statistic)]

    def without_inputs(self, weight: torch.Tensor, sparsity: Sparsity) -> Any:
        _check_finite([weight])
        return self._quantizer.nearest(weight, self._bits, sparsity)

    def checked(
        self, result: Any, given: torch.Tensor, dense: torch.Tensor, dtype: torch.dtype, sparsity: Sparsity, blame: str
    ) -> NewWeight:
        new = dequantise(result, given, dense, dtype, self._quantizer, self._bits, sparsity, blame)
        counts = record.quantised_counts(self._quantizer, self._bits, sparsity, dense.shape, result.group_of is not None, new)
        return NewWeight(new.weight, checks.json_notes(result.notes, blame), lambda layer: {"kind": layer.kind} | counts)


def _check_finite(weights: Sequence[torch.Tensor]) -> None:
    """Codes are whole numbers, which cannot tell that a weight was not finite."""
    if not all(all_finite(weight) for weight in weights):
        raise NumericalError("the weight has NaN or infinite values")
