"""The one-shot modifiers of llm-compressor as a pruner."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from harness_ext import (
    BadOptionError,
    CalibrationError,
    LinearLayer,
    ModelPruner,
    PluginError,
    Sparsity,
    UnsupportedModelError,
    find_blocks,
    rounding_slack,
    shown,
)
from harness_ext_llmcompressor import isolation, modifiers, oneshot

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LLMCompressor(ModelPruner):
    """What llm-compressor's ``oneshot`` makes of the model: ``pruner.modifier=sparsegpt`` or ``wanda`` on the linear layers of the decoder,
    or a recipe, ``pruner.recipe=FILE``, of which ``sparsity`` has to be what it removes from these layers together.

    It computes in float32, decoder layer by decoder layer, on the accelerator if there is one. Its SparseGPT removes up to one weight more
    in every block of columns than was asked for, its Wanda the floor of the share of every row. Only the weights come back: the model is
    saved as any other, and never in a format of llm-compressor.
    """

    name: ClassVar[str] = "llmcompressor"
    calibrated: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("llmcompressor",)
    modifier: str = ""
    """The short name of a modifier, such as ``sparsegpt``."""
    recipe: str = ""
    """A YAML, JSON or Markdown file with modifiers for pruning."""
    block_size: int | None = None
    """Of SparseGPT; by default llm-compressor's own, 128."""
    dampening_frac: float | None = None
    """Of SparseGPT; by default llm-compressor's own, 0.01."""

    def __post_init__(self) -> None:
        if bool(self.modifier) == bool(self.recipe):
            both = " and not both" if self.modifier else ""
            raise BadOptionError(f"pruner=llmcompressor wants pruner.modifier=NAME, such as sparsegpt, or pruner.recipe=FILE{both}")
        if self.block_size is not None and self.block_size < 1:
            raise BadOptionError(f"pruner.block_size={self.block_size}: want at least one column")
        if self.dampening_frac is not None and not 0 < self.dampening_frac < float("inf"):
            raise BadOptionError(f"pruner.dampening_frac={self.dampening_frac}: want a fraction of the mean diagonal above 0, such as 0.01")
        if self.recipe and self._given():
            option, value = next(iter(self._given().items()))
            raise BadOptionError(f"pruner.{option}={shown(value)}: goes with pruner.modifier; in a recipe it stands in the file")
        if self.recipe and not os.path.isfile(self._path):
            raise BadOptionError(f"pruner.recipe={shown(self.recipe)}: there is no such file")
        isolation.require()
        if self.recipe:
            modifiers.read_recipe(self._path)
        else:
            modifiers.check_options(self.modifier, self._given())

    def check_sparsity(self, sparsity: Sparsity) -> None:
        """Refuses a pattern that SparseGPT's blocks of columns would cut through.

        Raises:
            BadOptionError: they would.
        """
        if sparsity.pattern and self.block_size and self.block_size % sparsity.pattern[1]:
            m = sparsity.pattern[1]
            raise BadOptionError(f"pruner.block_size={self.block_size} with sparsity={sparsity}: want a multiple of {m} columns")

    def check_model(self, model: PreTrainedModel, sparsity: Sparsity, modules: str) -> None:
        """Checks the kinds of the layers, and what a recipe removes.

        Raises:
            BadOptionError, UnsupportedModelError: as :meth:`prune_model`.
        """
        layers = [layer for block in find_blocks(model, modules) for layer in block.layers]
        if other := next((layer for layer in layers if not isinstance(layer.module, nn.Linear)), None):
            raise UnsupportedModelError(
                f"{other.name} is a {type(other.module).__name__}, which llm-compressor passes over: use pruner=sparsegpt or wanda"
            )
        if self.recipe:
            self._check_recipe(modifiers.layers_of(modifiers.read_recipe(self._path), model), layers, sparsity)

    def prune_model(
        self, model: PreTrainedModel, sparsity: Sparsity, calibration: torch.Tensor | None, modules: str = "all"
    ) -> Mapping[str, Any]:
        """Runs the modifiers.

        Returns:
            the version of llm-compressor, the classes of the modifiers, the kind of device that computed, the pipeline, and of a recipe a
                digest.

        Raises:
            BadOptionError: a recipe that removes another share than was asked for, or prunes what is no linear layer of the decoder.
            UnsupportedModelError: a layer that llm-compressor passes over, such as GPT-2's.
            NumericalError: a Hessian that it could not factorise.
            PluginError: it failed, or left a layer as it was.
        """
        if calibration is None:
            raise CalibrationError("pruner 'llmcompressor' needs calibration tokens, int64 [samples, length]")
        self.check_model(model, sparsity, modules)
        layers = [layer for block in find_blocks(model, modules) for layer in block.layers]
        if self.recipe:
            chosen = modifiers.read_recipe(self._path)
            expected = modifiers.layers_of(chosen, model)
        else:
            expected = {layer.name: sparsity for layer in layers}
            chosen = [modifiers.build(self.modifier, self._given(), sparsity, list(expected))]
        digest = {"recipe_digest": hashlib.sha256(self._path.read_bytes()).hexdigest()[:16]} if self.recipe else {}
        device, pipeline = oneshot.run(chosen, model, calibration, layers)
        _check_layers(expected, layers)
        return {
            "llmcompressor": isolation.version(),
            "modifiers": [type(found).__name__ for found in chosen],
            "device": device,
            "pipeline": pipeline,
            **digest,
        }

    @property
    def _path(self) -> Path:
        return Path(self.recipe).expanduser()

    def _given(self) -> dict[str, Any]:
        options = {"block_size": self.block_size, "dampening_frac": self.dampening_frac}
        return {option: value for option, value in options.items() if value is not None}

    def _check_recipe(self, expected: Mapping[str, Sparsity], layers: Sequence[LinearLayer], sparsity: Sparsity) -> None:
        """Compares what a recipe would remove with what was asked for."""
        what, sizes = f"pruner.recipe={shown(self.recipe)}", {layer.name: layer.weight.numel() for layer in layers}
        if not expected:
            raise BadOptionError(f"{what}: its targets match no layer; the layers are {layers[0].name} to {layers[-1].name}")
        if other := next((name for name in expected if name not in sizes), None):
            ignore = f"ignore: ['re:.*{other.rsplit('.', 1)[-1]}']"
            raise BadOptionError(f"{what}: it prunes {other}, which stays dense here: the modifiers need {ignore}, not the name alone")
        planned = sum(of.removed_of(sizes[name]) for name, of in expected.items())
        asked, total = sum(sparsity.removed_of(size) for size in sizes.values()), sum(sizes.values())
        if abs(planned - asked) > rounding_slack(len(layers), asked):
            patterns = {str(of) for of in expected.values()}
            as_asked = patterns.pop() if len(patterns) == 1 and len(expected) == len(layers) else f"{planned / total:.6g}"
            raise BadOptionError(f"sparsity={sparsity}: {what} removes {planned} of {total} weights: ask for sparsity={as_asked}")
        if sparsity.pattern and (other := next((name for name in sizes if expected.get(name) != sparsity), None)):
            raise BadOptionError(f"sparsity={sparsity}: {what} has no mask_structure {sparsity} for {other}")


def _check_layers(expected: Mapping[str, Sparsity], layers: Sequence[LinearLayer]) -> None:
    """Checks each layer for missing zeros: llm-compressor skips layers silently."""
    for layer in layers:
        if (of := expected.get(layer.name)) is not None:
            zeros, (rows, columns) = int((layer.weight == 0).sum()), layer.weight.shape
            want = min(rows * of.removed_of(columns), of.removed_of(layer.weight.numel()))
            if zeros < want - rows:
                who = f"llm-compressor {isolation.version()}"
                raise PluginError(f"{who} left {zeros} zeros in {layer.name}, where sparsity {of} is {want} of {rows * columns}")
