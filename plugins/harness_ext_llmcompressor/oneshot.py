"""Runs modifiers of llm-compressor on a model in memory. Only the weights of the model change."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from harness_ext import LinearLayer
from harness_ext_llmcompressor.isolation import llmcompressor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def run(modifiers: list[Any], model: PreTrainedModel, calibration: torch.Tensor, layers: Sequence[LinearLayer]) -> str:
    """Applies the modifiers, in place.

    Args:
        calibration: int64 [samples, length].
        layers: all that they may prune. Nothing else of the model changes.

    Returns:
        the kind of device on which llm-compressor computed, which is an accelerator where there is one, whatever the model is on.

    Raises:
        NumericalError, PluginError: as :func:`harness_ext_llmcompressor.isolation.llmcompressor`.
    """
    with llmcompressor():
        from llmcompressor import oneshot
        from llmcompressor.utils.dev import get_main_device

        with _as_it_was(model), _named(model):
            oneshot(
                model=model, dataset=_batches(calibration), recipe=modifiers, processor=_any_tokenizer(),
                num_calibration_samples=len(calibration), max_seq_length=calibration.shape[1],
            )  # fmt: skip
            new = {layer.name: layer.weight.clone() for layer in layers}
        device = str(get_main_device().type)
    for layer in layers:
        layer.write(new[layer.name])
    return device


def _batches(calibration: torch.Tensor) -> Iterable[dict[str, torch.Tensor]]:
    """One sequence at a time, in order; the loader would draw a number from the global generator."""

    def collate(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        ids = torch.stack(rows)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    rows: Any = calibration
    return DataLoader(rows, collate_fn=collate, generator=torch.Generator())


def _any_tokenizer() -> Any:
    """``oneshot`` wants a tokenizer, and does not use it on tokens."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"0": 0}, unk_token="0")), unk_token="0", pad_token="0")


@contextmanager
def _named(model: PreTrainedModel) -> Iterator[None]:
    """``oneshot`` reads the configuration of the checkpoint, maybe from the hub, only to see whether it is quantised, which was refused
    long before: it gets one that is not."""
    before = model.config.name_or_path
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
        model.config.name_or_path = folder
        try:
            yield
        finally:
            model.config.name_or_path = before


@contextmanager
def _as_it_was(model: PreTrainedModel) -> Iterator[None]:
    """Afterwards the attributes and hooks of every module are what they were. llm-compressor puts parameters in their places that move
    between devices, a ``forward`` that does, and a ``save_pretrained`` that writes formats of its own.
    """
    before = [(module, dict(vars(module)), [dict(hooks) for hooks in _hooks(module)]) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes, kept in before:
            vars(module).clear()
            vars(module).update(attributes)
            for hooks, own in zip(_hooks(module), kept, strict=True):
                hooks.clear()
                hooks.update(own)


def _hooks(module: nn.Module) -> list[dict[int, Any]]:
    """Those of the module itself, to be changed in place."""
    return [hooks for name, hooks in vars(module).items() if "_hooks" in name and isinstance(hooks, dict)]
