"""The weights of a stack of models in training: bf16, with a float32 master copy and the state of its optimisers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lab_model import Weights, new_model, stacked
from lab_muon import StackedMuon
from lab_settings import Settings
from transformers import PreTrainedTokenizerFast, Starcoder2ForCausalLM

EMBEDDING = "model.embed_tokens.weight"


class Stack:
    """Models of one size, with their probes. But for the order of sums, each takes the steps that it would take alone.

    Attributes:
        weights: what the models compute with, each [models, ...]: bf16, those of the probes float32.
        masters: float32 parameters of the same names and shapes.
    """

    def __init__(self, runs: Sequence[Settings], tokenizer: PreTrainedTokenizerFast, probes: dict[str, int], device: torch.device):
        self.settings, self.device = runs[0], device
        size = self.settings.width, self.settings.depth, self.settings.heads
        self.models = [new_model(*size, run.seed, tokenizer) for run in runs]
        masters = stacked(self.models) | new_probes(probes, self.settings.width, [run.seed for run in runs])
        self.masters = {name: torch.nn.Parameter(value.to(device)) for name, value in masters.items()}
        self.weights: Weights = {
            name: value.detach().to(torch.float32 if name.startswith("probe.") else torch.bfloat16, copy=True).requires_grad_()
            for name, value in self.masters.items()
        }
        matrices = [value for name, value in self.masters.items() if ".layers." in name and value.ndim == 3]
        others = [value for value in self.masters.values() if not any(value is matrix for matrix in matrices)]
        self.optimizers: list[torch.optim.Optimizer] = [
            StackedMuon(matrices, lr=self.settings.lr),
            torch.optim.AdamW(others, lr=self.settings.lr, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        # A digit is one token with a space before it and another with a comma and a space: they share one embedding while we train.
        self.digits, self.twins = (
            torch.tensor([tokenizer(f"{start}{digit}")["input_ids"][0] for digit in range(10)], device=device) for start in (" ", ", ")
        )
        self._tie_digits(self.masters[EMBEDDING].data, sum_of=False)
        self._copy_masters()

    def update(self, step: int) -> None:
        """Takes the step that the gradients of the weights say, each model's gradient cut to a norm of 1."""
        gradients = [torch.zeros_like(w, dtype=torch.float32) if w.grad is None else w.grad.float() for w in self.weights.values()]
        squares = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0)
        cut = (1 / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        for gradient, weight, master in zip(gradients, self.weights.values(), self.masters.values(), strict=True):
            master.grad = gradient * cut.view(-1, *[1] * (gradient.ndim - 1))
            weight.grad = None
        self._tie_digits(self.masters[EMBEDDING].grad, sum_of=True)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                scale = self.settings.muon_scale if isinstance(optimizer, StackedMuon) else 1.0
                group["lr"] = scale * self.settings.rate(step)
            optimizer.step()
        self._copy_masters()

    def model(self, run: int) -> Starcoder2ForCausalLM:
        """One model, in bf16."""
        weights = {name: master[run].detach().cpu() for name, master in self.masters.items() if not name.startswith("probe.")}
        model = self.models[run].float()
        model.load_state_dict(weights)
        return model.bfloat16()

    def state(self, run: int) -> dict[str, Any]:
        """What one model needs to go on, in a stack or alone."""
        return {
            "masters": {name: master[run].detach().cpu().clone() for name, master in self.masters.items()},
            "optimizers": [
                [{key: (value[run] if value.ndim else value).cpu().clone() for key, value in o.state[p].items()} for p in _parameters(o)]
                for o in self.optimizers
            ],
        }

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Goes on from a state of each model."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(torch.stack([state["masters"][name] for state in states]))
        for number, optimizer in enumerate(self.optimizers):
            for place, parameter in enumerate(_parameters(optimizer)):
                of_runs = [state["optimizers"][number][place] for state in states]
                for key, first in of_runs[0].items():
                    value = torch.stack([run[key] for run in of_runs]).to(self.device) if first.ndim else first
                    optimizer.state[parameter][key] = value
        self._copy_masters()

    def _tie_digits(self, embedding: torch.Tensor | None, *, sum_of: bool) -> None:
        """Makes the rows of both tokens of a digit equal: the sum of both for a gradient, the first for a weight."""
        if embedding is not None:
            rows = embedding[:, self.digits] + embedding[:, self.twins] if sum_of else embedding[:, self.digits]
            embedding[:, self.digits] = rows
            embedding[:, self.twins] = rows

    def _copy_masters(self) -> None:
        with torch.no_grad():
            torch._foreach_copy_(list(self.weights.values()), list(self.masters.values()))


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    found: list[torch.nn.Parameter] = optimizer.param_groups[0]["params"]
    return found


def new_probes(sizes: dict[str, int], width: int, seeds: Sequence[int]) -> Weights:
    """The weights of untrained probes, each [models, ...]."""
    found: dict[str, list[torch.Tensor]] = {}
    for seed in seeds:
        torch.manual_seed(seed)
        for name, size in sizes.items():
            for part, value in torch.nn.Linear(width, size).named_parameters():
                found.setdefault(f"probe.{name}.{part}", []).append(value.detach())
    return {name: torch.stack(values) for name, values in found.items()}
