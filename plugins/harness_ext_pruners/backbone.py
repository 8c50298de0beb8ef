"""Code that ``depth`` and ``width`` share: a forward pass of the calibration tokens, and checks of the sparsity."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

import torch

from harness_ext import CalibrationError, failing, progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_TOKENS = 2048


def read(model: PreTrainedModel, calibration: torch.Tensor, title: str, after_batch: Callable[[], None] = lambda: None) -> None:
    """Runs the calibration tokens, int64 [samples, length], through the decoder, without LM head and cache; hooks see the activations."""
    batches = torch.split(calibration.to(model.device), max(1, BATCH_TOKENS // calibration.shape[1]))
    with torch.no_grad(), progress(title, len(batches)) as advance:
        for batch in batches:
            with failing(f"{type(model).__name__} fails on calibration tokens {tuple(batch.shape)}"):
                model.base_model(input_ids=batch, attention_mask=torch.ones_like(batch), use_cache=False)
            after_batch()
            advance()


def tokens_for(pruner: str, calibration: torch.Tensor | None) -> torch.Tensor:
    """The calibration tokens."""
    if calibration is None:
        raise CalibrationError(f"pruner {pruner!r} measures activations: it needs calibration tokens, int64 [samples, length]")
    return calibration


def nearest_integer(value: Fraction) -> int:
    """Rounds, halves up."""
    return int((value + Fraction(1, 2)) // 1)
