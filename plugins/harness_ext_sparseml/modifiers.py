"""Runs SparseML's modifiers of the training recipes, once and without training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness_ext import LinearLayer, Sparsity

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Weights(nn.Module):
    """The weights of some layers under names that need no escaping: ``0.weight``, ``1.weight``, ...; SparseML hangs its masks on modules,
    and on these they can be thrown away."""

    def __init__(self, weights: Sequence[nn.Parameter]) -> None:
        super().__init__()
        for index, weight in enumerate(weights):
            child = nn.Module()
            child.weight = weight
            self.add_module(str(index), child)


class Model(nn.Module):
    """A model, and apart from it the weights to be pruned, which are the model's own."""

    def __init__(self, model: PreTrainedModel, weights: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.pruned = Weights(weights)
        self.model = model

    def forward(self, **inputs: torch.Tensor) -> Any:
        return self.model(**inputs)


def schedule(sparsity: Sparsity) -> dict[str, Any]:
    """The arguments of a modifier that goes to its final sparsity at once."""
    return {"init_sparsity": 0.0, "final_sparsity": sparsity.ratio, "start_epoch": 0.0, "end_epoch": 1.0, "update_frequency": 1.0}


def run(modifiers: Sequence[Any], module: nn.Module, **arguments: Any) -> None:
    """Applies modifiers to a module in place; to be called in ``isolation.sparseml``."""
    from sparseml.pytorch.optim import ScheduledModifierManager

    ScheduledModifierManager(list(modifiers)).apply(module, **arguments)


def gradients(calibration: torch.Tensor, device: torch.device) -> dict[str, Any]:
    """What SparseML calls a grad sampler: the language modelling loss of each calibration sequence in turn, of int64 [samples, length]."""

    def batches(_: Any = None) -> Iterator[tuple[list[Any], dict[str, torch.Tensor], None]]:
        for ids in torch.split(calibration.to(device), 1):
            yield [], {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}, None

    return {"data_loader_builder": lambda _=None: batches, "loss_function": lambda outputs, _: outputs.loss}


def zeros(layers: Sequence[LinearLayer]) -> int:
    return sum(int((layer.weight == 0).sum()) for layer in layers)
