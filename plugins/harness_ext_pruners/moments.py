"""Mean and variance of the input channels of a layer."""

from __future__ import annotations

import torch


class Moments:
    """Mean and sum of squared deviations of each channel, merged batch by batch (Chan, Golub and LeVeque 1983).

    Args:
        width: channels; ``mean`` and ``squares`` are float64 [width].
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64, device=device)
        self.squares = torch.zeros_like(self.mean)

    def update(self, inputs: torch.Tensor) -> None:
        """Adds inputs, [tokens, width] of any floating dtype."""
        inputs = inputs.double()
        count, mean = len(inputs), inputs.mean(0)
        squares = (inputs - mean).square().sum(0)
        total = self.count + count
        step = mean - self.mean
        self.squares += squares + step.square() * (self.count * count / total)
        self.mean += step * (count / total)
        self.count = total

    @property
    def variance(self) -> torch.Tensor:
        """``E[(x - E x)^2]``, float64 [width]."""
        return self.squares / self.count

    @property
    def energy(self) -> torch.Tensor:
        """``E[x^2]``, float64 [width]."""
        return self.variance + self.mean.square()
