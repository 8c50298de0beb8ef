"""What is measured on the inputs of a layer during calibration."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch


class Statistic(ABC):
    """Something accumulated over the calibration tokens that reach a layer; layers that read the same input share one.

    Args:
        in_features: the width of the layer's input.
        device: where the layer's weight is.
    """

    def __init__(self, in_features: int, device: torch.device) -> None:
        self.in_features, self.device = in_features, device
        self.tokens = 0

    @abstractmethod
    def update(self, inputs: torch.Tensor) -> None:
        """Adds a batch of inputs, float32 [tokens, in_features]; do not write into it."""


class ChannelNorms(Statistic):
    """The L2 norm of every input channel over the calibration tokens (Wanda, arXiv 2306.11695, section 3)."""

    def __init__(self, in_features: int, device: torch.device) -> None:
        super().__init__(in_features, device)
        self.squares = torch.zeros(in_features, dtype=torch.float32, device=device)

    def update(self, inputs: torch.Tensor) -> None:
        self.tokens += len(inputs)
        self.squares += inputs.square().sum(0)

    @property
    def norms(self) -> torch.Tensor:
        """float32 [in_features]."""
        return self.squares.sqrt()


class Hessian(Statistic):
    """The Hessian of the layer-wise output error, ``2/n sum x x^T`` over ``n`` tokens (SparseGPT, arXiv 2301.00774, section 3)."""

    def __init__(self, in_features: int, device: torch.device) -> None:
        super().__init__(in_features, device)
        self.products = torch.zeros(in_features, in_features, dtype=torch.float32, device=device)

    def update(self, inputs: torch.Tensor) -> None:
        self.tokens += len(inputs)
        self.products.addmm_(inputs.T, inputs)

    @property
    def matrix(self) -> torch.Tensor:
        """float32 [in_features, in_features], symmetric; a new tensor each time."""
        return self.products * (2 / max(1, self.tokens))
