"""The loss of a stack of models on its text: answers, a part of the other tokens, and what the probes tell."""

from __future__ import annotations

import torch
from lab_batches import Array, Stacked, StackedBatch
from lab_model import StackedModel, Weights, logits
from lab_settings import OTHER_TOKENS_WEIGHT
from torch.nn import functional as F


def loss(model: StackedModel, weights: Weights, batch: StackedBatch, probe_weight: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of each model, float32 [models], and its parts with the accuracy of the answers, by name."""
    device = next(iter(weights.values())).device
    middle, last = model.states(weights, _to(batch.ids, device).long())
    found = {name: Stacked(*(_to(array, device) for array in targets)) for name, targets in batch.targets.items()}
    answers = found.pop("answers")
    scores = logits(weights, at(last, answers.places))
    total = (cross_entropy(scores, answers.wanted) * answers.weights).sum(1)
    right = ((scores.argmax(-1) == answers.wanted) * answers.counted).sum(1)
    figures = {f"{batch.kind}_loss": total.detach(), f"{batch.kind}_acc": right}
    if text := found.pop("text", None):
        other = (cross_entropy(logits(weights, at(last, text.places)), text.wanted) * text.weights).sum(1)
        figures["text_loss"] = other.detach()
        total = total + OTHER_TOKENS_WEIGHT * other
    if found:
        probe = torch.stack([_probe_loss(weights, name, middle, targets) for name, targets in found.items()]).sum(0)
        figures["probe_loss"] = probe.detach()
        total = total + probe_weight * probe
    return total, figures


def _probe_loss(weights: Weights, name: str, states: torch.Tensor, targets: Stacked) -> torch.Tensor:
    """The mean squared error of the inputs in standard deviations, or the cross-entropy of the names; [models]."""
    weight, bias = weights[f"probe.{name}.weight"], weights[f"probe.{name}.bias"]
    told = torch.baddbmm(bias[:, None], at(states, targets.places).float(), weight.transpose(1, 2))
    if name == "inputs":
        return ((told - targets.wanted) ** 2 * targets.weights).sum((1, 2))
    return (cross_entropy(told, targets.wanted) * targets.weights).sum(1)


def at(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The states [models, places, width] at places [models, places] of states [models, all places, width]."""
    first = torch.arange(len(states), device=states.device)[:, None] * states.shape[1]
    return states.flatten(0, 1)[(places + first).flatten()].view(*places.shape, -1)


def cross_entropy(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """That of each place [models, places]; scores are [models, places, classes]."""
    return F.cross_entropy(scores.flatten(0, 1), wanted.flatten().long(), reduction="none").view_as(wanted)


def _to(array: Array, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device, non_blocking=True)
