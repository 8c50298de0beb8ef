"""Runs modifiers of llm-compressor on a model in memory. Only the weights of the model change."""

from __future__ import annotations

import copy
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from harness_ext import LinearLayer, PluginError
from harness_ext_llmcompressor.isolation import llmcompressor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
PIPELINES = ("independent", "basic")  # the first is the default: each modifier by itself
DIFFERENT = 0.05  # of the norm; rounding in bfloat16 is a tenth of that, and a lost causal mask several times as much


def run(modifiers: list[Any], model: PreTrainedModel, calibration: torch.Tensor, layers: Sequence[LinearLayer]) -> tuple[str, str]:
    """Applies the modifiers, in place.

    llm-compressor goes through a model decoder block by decoder block, in a graph that it traces. The graphs of some models (Mistral,
    Phi-3 and Starcoder2 in transformers 5.16) lack the causal mask. If other inputs than those of the dense model itself reach a layer of
    the first block while that is dense, all is done again with llm-compressor's basic pipeline. It runs the model itself, and calibrates
    all blocks on the dense one. Experts are left out of the comparison: llm-compressor may send them all tokens.

    Args:
        calibration: int64 [samples, length].
        layers: all that they may prune. Nothing else of the model changes.

    Returns:
        the kind of device on which llm-compressor computed, which is an accelerator where there is one, whatever the model is on; and the
            pipeline.

    Raises:
        NumericalError, PluginError: as :func:`harness_ext_llmcompressor.isolation.llmcompressor`; PluginError also if the inputs differ
            with both pipelines.
    """
    wanted: dict[str, torch.Tensor] = {}
    first = _of_first_block(layers)
    before = {layer.name: layer.weight.clone() for layer in layers}
    with _first_inputs(first, before, wanted), torch.no_grad():
        model(input_ids=calibration[:1].to(model.device))
    for pipeline in PIPELINES:
        reached: dict[str, torch.Tensor] = {}
        with llmcompressor():
            from llmcompressor import oneshot
            from llmcompressor.utils.dev import get_main_device

            with _as_it_was(model), _named(model), _first_inputs(first, before, reached):
                oneshot(
                    model=model, dataset=_batches(calibration), recipe=copy.deepcopy(modifiers), processor=_any_tokenizer(),
                    num_calibration_samples=len(calibration), max_seq_length=calibration.shape[1], pipeline=pipeline,
                )  # fmt: skip
                new = {layer.name: layer.weight.clone() for layer in layers}
            device = str(get_main_device().type)
        other = next((name for name in reached if _differ(reached[name], wanted[name])), None)
        if other is None:
            for layer in layers:
                layer.write(new[layer.name])
            return device, pipeline
        for layer in layers:
            layer.write(before[layer.name])
        log.info("llm-compressor's %s pipeline does not compute this model: other inputs than the model's own reach %s", pipeline, other)
    raise PluginError(f"llm-compressor does not compute this model: other inputs than the model's own reach {other}")


@contextmanager
def _first_inputs(layers: Sequence[LinearLayer], dense: Mapping[str, torch.Tensor], found: dict[str, torch.Tensor]) -> Iterator[None]:
    """Keeps the first inputs of each layer, on the CPU, as long as all have their dense weights: an earlier modifier may change them."""

    def keep(name: str, *inputs: Any) -> None:
        if name in found or not inputs or not isinstance(inputs[0], torch.Tensor):  # while a graph is traced, they are no tensors
            return
        if all(layer.weight.equal(dense[layer.name].to(layer.weight.device)) for layer in layers):
            found[name] = inputs[0].detach().flatten(0, -2).float().cpu()

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        return lambda _, args, kwargs: keep(name, *args, *kwargs.values())

    handles = [layer.module.register_forward_pre_hook(hook(layer.name), with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _of_first_block(layers: Sequence[LinearLayer]) -> list[LinearLayer]:
    """Those outside experts that are in the block of the first layer: it is calibrated on the dense model with any pipeline."""
    numbers = [next((part for part in layer.name.split(".") if part.isdecimal()), None) for layer in layers]
    return [layer for layer, number in zip(layers, numbers, strict=True) if number == numbers[0] and layer.expert is None]


def _differ(reached: torch.Tensor, wanted: torch.Tensor) -> bool:
    return reached.shape != wanted.shape or bool((reached - wanted).norm() > DIFFERENT * wanted.norm())


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
