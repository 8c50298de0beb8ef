"""Statistics of the inputs of a linear layer, measured during calibration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from harness_ext.errors import NumericalError
from harness_ext.method.finite import all_finite
from harness_ext.method.linalg import InverseFactor, add_gram, inverse_factor, multiplies_as_they_are


class Statistic(ABC):
    """A sum over the calibration tokens that reach a linear layer. Layers that read the same tensor share one statistic.

    Args:
        in_features: the width of the input.
        device: the device of the weight.
        dtype: float32, or float64 where ``precision=float64`` was asked for.
    """

    additive: ClassVar[tuple[str, ...]] = ()
    """The names of the tensors that add up over tokens. Several processes each see a share of the tokens and add these tensors up.
    A statistic that names none cannot be measured by several processes."""
    any_dtype: ClassVar[bool] = False
    """Whether ``update`` takes inputs in the dtype of the model. A class that overrides ``update`` has to set it again."""

    def __init__(self, in_features: int, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.in_features, self.device, self.dtype = in_features, device, dtype
        self.tokens = 0

    @abstractmethod
    def update(self, inputs: torch.Tensor) -> None:
        """Adds a batch of inputs, ``dtype`` [tokens, in_features]. Do not write into it, and add its length to ``tokens``."""

    @classmethod
    def reads_any_dtype(cls) -> bool:
        """``any_dtype`` of the class that defines ``update``."""
        return next(bool(base.__dict__.get("any_dtype")) for base in cls.__mro__ if "update" in base.__dict__)

    def check(self) -> None:
        """Called after the last batch.

        Raises:
            NumericalError: a sum is not finite: an input was not finite, or its square overflows ``dtype``.
        """
        for name in self.additive:
            if not all_finite(getattr(self, name)):
                raise NumericalError("the input has NaN or infinite values, or values whose squares are")


class ChannelNorms(Statistic):
    """The L2 norm of each input channel over the calibration tokens (Wanda, arXiv 2306.11695, section 3)."""

    additive: ClassVar[tuple[str, ...]] = ("squares",)

    def __init__(self, in_features: int, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(in_features, device, dtype)
        self.squares = torch.zeros(in_features, dtype=dtype, device=device)

    def update(self, inputs: torch.Tensor) -> None:
        self.tokens += len(inputs)
        self.squares += torch.linalg.vector_norm(inputs, dim=0).square_()

    @property
    def norms(self) -> torch.Tensor:
        """[in_features], the L2 norm of each channel."""
        return self.squares.sqrt()


class Hessian(Statistic):
    """The Hessian of the layer-wise output error, ``2/n sum x x^T`` over ``n`` tokens (SparseGPT, arXiv 2301.00774, section 3)."""

    additive: ClassVar[tuple[str, ...]] = ("products",)
    any_dtype: ClassVar[bool] = True

    def __init__(self, in_features: int, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(in_features, device, dtype)
        self.products = torch.zeros(in_features, in_features, dtype=dtype, device=device)
        """``sum x x^T``. Only the upper triangle is defined."""
        self._factors: dict[float, InverseFactor] = {}
        self._factored_tokens = 0

    def update(self, inputs: torch.Tensor) -> None:
        """Adds a batch of inputs, [tokens, in_features] of any floating dtype. Their products are added up in ``dtype``."""
        self.tokens += len(inputs)
        add_gram(self.products, inputs if multiplies_as_they_are(inputs, self.dtype) else inputs.to(self.dtype))

    @property
    def matrix(self) -> torch.Tensor:
        """[in_features, in_features], symmetric. Each access makes a new tensor."""
        upper = self.products.triu()
        upper += self.products.triu(1).T
        return upper.mul_(2 / max(1, self.tokens))

    @property
    def norms(self) -> torch.Tensor:
        """[in_features], the L2 norm of each input channel, as in ``ChannelNorms``."""
        return self.products.diagonal().sqrt()

    @property
    def dead(self) -> torch.Tensor:
        """bool [in_features], true for inputs that were zero in every token."""
        return self.products.diagonal() == 0

    def inverse_factor(self, damping: float) -> InverseFactor:
        """The factor of the damped inverse of ``matrix``, with 1 on the diagonal for dead inputs. It is computed once for all layers that
        share this statistic, and again after more tokens. Do not write into it.

        Raises:
            NumericalError: as ``harness_ext.inverse_factor``.
        """
        if self._factored_tokens != self.tokens:
            self._factors.clear()
            self._factored_tokens = self.tokens
        if damping not in self._factors:
            scale = 2 / max(1, self.tokens)
            # Factorise the unscaled sum and scale the factor: a scaled copy of the sum would double the memory of a block.
            factor = inverse_factor(self.products, damping, self.products.diagonal().masked_fill(self.dead, 1 / scale))
            self._factors[damping] = factor._replace(upper=factor.upper.mul_(scale**-0.5))
        return self._factors[damping]
