"""Muon for stacks of matrices: each step turns the momentum of a matrix into a nearly orthogonal one, all matrices of a shape at once.

Keller Jordan et al., https://kellerjordan.github.io/posts/muon/. With one matrix in a stack, a step is that of ``torch.optim.Muon`` with
``adjust_lr_fn="match_rms_adamw"`` and no weight decay, which takes each matrix by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

COEFFICIENTS = 3.4445, -4.7750, 2.0315
ITERATIONS = 5


class StackedMuon(torch.optim.Optimizer):
    """Args:
    stacks: float32 parameters [models, out, in].
    lr: the root mean square of a step is 0.2 times this.
    """

    def __init__(self, stacks: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95):
        super().__init__(stacks, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for stack in group["params"]:
                shapes.setdefault(stack.shape, []).append(stack)
            for shape, alike in shapes.items():
                moments = [self.state[stack].setdefault("momentum_buffer", torch.zeros_like(stack)) for stack in alike]
                gradients = [stack.grad for stack in alike]
                torch._foreach_lerp_(moments, gradients, 1 - group["momentum"])
                ahead = torch.stack([g.lerp(m, group["momentum"]) for g, m in zip(gradients, moments, strict=True)])
                steps = orthogonal(ahead.flatten(0, 1)).view_as(ahead).to(ahead.dtype)
                torch._foreach_add_(alike, list(steps.unbind()), alpha=-group["lr"] * 0.2 * max(shape[1:]) ** 0.5)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """For each matrix of [matrices, out, in], one with the same singular vectors and singular values near 1; bfloat16."""
    a, b, c = COEFFICIENTS
    found = matrices.bfloat16()
    tall = found.shape[1] > found.shape[2]
    if tall:
        found = found.mT
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.mT if tall else found
