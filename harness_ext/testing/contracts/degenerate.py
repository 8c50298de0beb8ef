"""Models and tokens with degenerate statistics, as they occur in real models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch

from harness_ext.method.pruner import PruningMethod
from harness_ext.testing.contracts.given import LONGEST, layers_of, small_model, token_ids

Case = tuple[Any, torch.Tensor]


class DegenerateCases(ABC):
    """One test for each of the models and tokens below."""

    @abstractmethod
    def _take(self, case: Callable[[], Case]) -> None:
        """Prunes the model by half. Fails with a message of one line."""

    def test_it_takes_inputs_that_are_always_zero(self) -> None:
        self._take(dead_inputs)

    def test_it_takes_rows_that_are_zero(self) -> None:
        self._take(zero_rows)

    def test_it_takes_inputs_that_never_change(self) -> None:
        self._take(constant_inputs)

    def test_it_takes_fewer_tokens_than_inputs(self) -> None:
        self._take(few_tokens)


def measured(pruner: PruningMethod, inputs: torch.Tensor) -> Any:
    """Measures the statistic of a pruner on inputs [tokens, in_features]. None if the pruner has no statistic."""
    if (kind := pruner.measures()) is None:
        return None
    statistic = kind(inputs.shape[1], inputs.device, inputs.dtype)
    statistic.update(inputs)
    statistic.check()
    return statistic


def dead_inputs() -> Case:
    """Every layer has inputs that are zero for all tokens. In one layer, all inputs are."""
    model = small_model()
    with torch.no_grad():
        for block in model.model.layers:
            block.input_layernorm.weight[[0, 3]] = 0
            block.post_attention_layernorm.weight[[1, 2]] = 0
            block.self_attn.v_proj.weight[[4, 5]] = 0
            block.mlp.up_proj.weight[[0, 7]] = 0
        model.model.layers[1].self_attn.v_proj.weight.zero_()
    return model, token_ids()


def zero_rows() -> Case:
    """Every layer has rows of zeros."""
    model = small_model()
    for layer in layers_of(model):
        layer.weight[[1, 4]] = 0
    return model, token_ids()


def constant_inputs() -> Case:
    """Every layer has the same input for all tokens."""
    return small_model(), torch.full((2, LONGEST), 5)


def few_tokens() -> Case:
    """Tokens that give Hessians of rank 4 or less."""
    return small_model(), token_ids(samples=2, length=2)
