"""Says which modules are linear layers, and how wide they are."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn
from torch.nn import functional as F


def is_linear(module: nn.Module) -> bool:
    """Whether a module computes ``x W^T + b``, or ``x W + b`` (GPT-2's ``Conv1D``), and nothing else."""
    return is_transposed(module) or (isinstance(module, nn.Linear) and _is_plain(type(module)))  # type: ignore[arg-type]


def is_transposed(module: nn.Module) -> bool:
    """Whether a module is GPT-2's ``Conv1D``, whose weight is [in_features, out_features]."""
    from transformers.pytorch_utils import Conv1D  # here: the list of pruners needs no transformers

    return isinstance(module, Conv1D)


@cache
def _is_plain(kind: type[nn.Linear]) -> bool:
    """Whether a subclass of ``nn.Linear`` computes what ``nn.Linear`` does; seen on a small matrix."""
    if kind.forward is nn.Linear.forward:
        return True
    probe = nn.Linear(3, 2)
    inputs = torch.tensor([[1.0, -2.0, 4.0]])
    with torch.no_grad():
        expected = F.linear(inputs, probe.weight, probe.bias)
        probe.__class__ = kind
        try:
            output = probe(inputs)
        except Exception:  # whatever it misses that a plain layer has not
            return False
    return isinstance(output, torch.Tensor) and output.shape == expected.shape and torch.allclose(output, expected)


def outputs(module: nn.Module) -> int:
    """How many features a linear layer writes."""
    size: int = module.weight.shape[1 if is_transposed(module) else 0]  # type: ignore[index, assignment]
    return size


def inputs(module: nn.Module) -> int:
    """How many features a linear layer reads."""
    size: int = module.weight.shape[0 if is_transposed(module) else 1]  # type: ignore[index, assignment]
    return size
