"""Statistics that one process measures and two processes measure wrongly, each with what its contract says."""

from __future__ import annotations

import torch

from harness_ext import Statistic


class NotNamed(Statistic):
    """Adds up and does not say so."""

    def __init__(self, in_features, device, dtype=torch.float32):
        super().__init__(in_features, device, dtype)
        self.sums = torch.zeros(in_features, dtype=dtype, device=device)

    def update(self, inputs):
        self.tokens += len(inputs)
        self.sums += inputs.abs().sum(0)


class Mean(NotNamed):
    """Keeps a mean, which does not add up."""

    additive = ("sums",)

    def update(self, inputs):
        self.sums = (self.sums * self.tokens + inputs.abs().sum(0)) / (self.tokens + len(inputs))
        self.tokens += len(inputs)


class HalfNamed(NotNamed):
    """Names one of the two tensors that it keeps."""

    additive = ("sums",)

    def __init__(self, in_features, device, dtype=torch.float32):
        super().__init__(in_features, device, dtype)
        self.squares = torch.zeros(in_features, dtype=dtype, device=device)

    def update(self, inputs):
        super().update(inputs)
        self.squares += inputs.square().sum(0)


class Misnamed(NotNamed):
    """Names a tensor that it has not."""

    additive = ("sum",)


class Uncounted(NotNamed):
    """Does not count tokens in the same way for batches of any size."""

    additive = ("sums",)

    def update(self, inputs):
        super().update(inputs)
        self.tokens += 1


BROKEN_STATISTICS = [
    (NotNamed, "NotNamed names nothing additive"),
    (Mean, "Mean differs in 'sums' between two processes and one: it does not add up"),
    (HalfNamed, "HalfNamed differs in 'squares' between two processes and one: additive does not name it"),
    (Misnamed, "Misnamed has no tensor 'sum'"),
    (Uncounted, "Uncounted counts .* tokens in two parts"),
]
