"""Weights, inputs and calls for the tests of pruners on single matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from harness_ext import Pruned, Pruner, Sparsity


def matrix(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def tokens(width: int, count: int = 64, seed: int = 7, shift: float = 0.0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Inputs [count, width] of correlated channels with different norms, and different means where ``shift`` is not 0."""
    inputs = matrix(count, width, seed=seed) @ (torch.eye(width, dtype=torch.float64) + 0.3 * matrix(width, width, seed=seed + 1))
    return (inputs + shift * matrix(1, width, seed=seed + 2)).to(dtype)


def measured(pruner: Pruner, inputs: torch.Tensor) -> Any:
    """The statistic of the pruner that has seen the inputs."""
    if (kind := pruner.measures()) is None:
        return None
    statistic = kind(inputs.shape[1], torch.device("cpu"), inputs.dtype)
    statistic.update(inputs)
    return statistic


def prune(pruner: Pruner, weight: torch.Tensor, sparsity: float | str, inputs: torch.Tensor) -> Pruned:
    result = pruner.prune(weight, Sparsity.parse(sparsity), measured(pruner, inputs))
    return result if isinstance(result, Pruned) else Pruned(result)


def pruned(pruner: Pruner, weight: torch.Tensor, sparsity: float | str, inputs: torch.Tensor) -> torch.Tensor:
    """The new weight alone."""
    return prune(pruner, weight, sparsity, inputs).weight


def how(sparsity: float | str) -> dict[str, Any]:
    """The sparsity as the oracles take it."""
    return {"pattern": tuple(map(int, sparsity.split(":")))} if isinstance(sparsity, str) else {"ratio": sparsity}


def array(tensor: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return tensor.double().numpy()
