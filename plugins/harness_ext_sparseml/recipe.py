"""Any recipe of SparseML, run by SparseML."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import yaml  # type: ignore[import-untyped]

from harness_ext import BadOptionError, LinearLayer, ModelPruner, Sparsity, find_blocks, one_line, rounding_slack, shown
from harness_ext_sparseml.isolation import SparseMLMethod, sparseml
from harness_ext_sparseml.modifiers import gradients, zeros

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TAG = re.compile(r"^\s*-\s*!\w+", re.MULTILINE)  # of a modifier in a training recipe


class SparseMLRecipe(SparseMLMethod, ModelPruner):
    """Whatever a recipe of SparseML says: ``pruner.recipe=FILE``, of the one-shot or of the training kind (``!OBSPruningModifier``),
    applied once. ``sparsity`` has to be what the recipe leaves in the linear layers of the decoder.
    """

    name: ClassVar[str] = "sparseml"
    calibrated: ClassVar[bool] = True
    recipe: str = ""
    """A YAML file."""

    def __post_init__(self) -> None:
        if not self.recipe:
            raise BadOptionError("pruner=sparseml wants pruner.recipe=FILE, a recipe of SparseML")
        try:
            text = self._text
            if not TAG.search(text) and not isinstance(yaml.safe_load(text), dict):
                raise BadOptionError(f"pruner.recipe={shown(self.recipe)}: want a YAML file with stages or modifiers")
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise BadOptionError(f"pruner.recipe={shown(self.recipe)}: {one_line(error)}") from error
        super().__post_init__()

    @property
    def _text(self) -> str:
        return Path(self.recipe).expanduser().read_text(encoding="utf-8")

    def prune_model(
        self, model: PreTrainedModel, sparsity: Sparsity, calibration: torch.Tensor | None, modules: str = "all"
    ) -> Mapping[str, Any]:
        """Applies the recipe.

        Raises:
            BadOptionError: it leaves another sparsity than asked.
            PluginError: SparseML failed.
        """
        if calibration is None:
            raise BadOptionError(f"pruner {self.name!r} wants calibration tokens")
        text = self._text
        layers = _layers(model, modules)
        dense, others = zeros(layers), _other_zeros(model, layers)
        with sparseml():
            (_train if TAG.search(text) else _oneshot)(str(Path(self.recipe).expanduser()), model, calibration)
        self._check_others(others, _other_zeros(model, layers))
        self._check(layers, dense, sparsity)
        return {**self.notes, "recipe_digest": hashlib.sha256(text.encode()).hexdigest()[:16]}

    def _check_others(self, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        if name := next((name for name in {**before, **after} if before.get(name) != after.get(name)), None):
            raise BadOptionError(
                f"pruner.recipe={shown(self.recipe)} changed {name}, which is not the weight of a linear layer of the decoder: "
                "name the decoder's layers in the recipe, such as params: ['re:.*layers.*proj.weight']"
            )

    def _check(self, layers: Sequence[LinearLayer], dense: int, sparsity: Sparsity) -> None:
        total, now = sum(layer.weight.numel() for layer in layers), zeros(layers)
        asked = sum(sparsity.removed_of(layer.weight.numel()) for layer in layers)
        slack = rounding_slack(len(layers), asked)
        if asked - slack <= now <= asked + slack + dense:
            return
        left = f"pruner.recipe={shown(self.recipe)} left {now} zeros in the {total} weights of the linear layers of the decoder"
        if now == dense:
            raise BadOptionError(
                f"sparsity={sparsity}: {left}, as many as before. In SparseML 1.8 the one-shot MagnitudePruningModifier, and SparseGPT and "
                "Wanda on Conv1D (GPT-2), do nothing and do not say so: use pruner=sparseml-magnitude, sparseml-sparsegpt or sparseml-wanda"
            )
        raise BadOptionError(f"sparsity={sparsity}: {left}, which is a sparsity of {now / total:.4g}: ask for that or change the recipe")


def _layers(model: PreTrainedModel, modules: str) -> list[LinearLayer]:
    return [layer for block in find_blocks(model, modules) for layer in block.layers]


def _other_zeros(model: PreTrainedModel, layers: Sequence[LinearLayer]) -> dict[str, int]:
    """How many zeros there are in each parameter that is to stay dense."""
    pruned = {layer.parameter_name for layer in layers}
    return {name: int((parameter == 0).sum()) for name, parameter in model.named_parameters() if name not in pruned}


def _oneshot(path: str, model: PreTrainedModel, calibration: torch.Tensor) -> None:
    """A recipe of stages, such as those with SparseGPTModifier, in a session of its own: one keeps the recipes that it has seen."""
    from sparseml.core.framework import Framework
    from sparseml.core.session import create_session

    batches = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in torch.split(calibration, 1)]
    with create_session() as session:
        session.apply(framework=Framework.pytorch, recipe=path, model=model, calib_data=batches, start=-1, copy_data=False)


def _train(path: str, model: PreTrainedModel, calibration: torch.Tensor) -> None:
    """A recipe for training, of which the final sparsities are applied at once."""
    from sparseml.pytorch.optim import ScheduledModifierManager

    with torch.enable_grad():
        ScheduledModifierManager.from_yaml(path).apply(model, grad_sampler=gradients(calibration, model.device))
    model.zero_grad()
