"""Applies masks that an earlier run saved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from harness_ext import BadOptionError, ModelPruner, Sparsity, find_blocks, load_masks, rounding_slack, shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness_ext import LinearLayer


class Stored(ModelPruner):
    """Zeroes the weights in a file of masks that ``harness-ext prune --masks-only`` wrote: ``pruner.path=FOLDER``.

    Of a method that only chooses masks, such as magnitude, Wanda or RIA, the same dense model becomes the same pruned model, bit for bit.
    Of one that also changes the weights that it keeps, such as SparseGPT, it is the mask alone. ``sparsity`` has to be what they hold.
    """

    name: ClassVar[str] = "stored"
    path: str = ""
    """The file of masks, or the folder that holds ``masks.safetensors``."""

    def __post_init__(self) -> None:
        if not self.path:
            raise BadOptionError("pruner=stored wants pruner.path=FOLDER, which harness-ext prune --masks-only writes")
        load_masks(self.path)

    def prune_model(
        self, model: PreTrainedModel, sparsity: Sparsity, calibration: torch.Tensor | None, modules: str = "all"
    ) -> Mapping[str, Any]:
        """Applies the masks.

        Raises:
            BadOptionError: a mask of a layer that the model has not, or of another shape, or masks that hold another sparsity than asked.
        """
        masks = load_masks(self.path)
        layers = [layer for block in find_blocks(model, modules) for layer in block.layers]
        self._check_names(masks, layers)
        self._check_sparsity(masks, layers, sparsity, sum(int((layer.weight == 0).sum()) for layer in layers))
        sha = hashlib.sha256()
        for layer in layers:
            if layer.name in masks:
                mask = masks[layer.name]
                sha.update(layer.name.encode() + mask.numpy().tobytes())
                layer.write(layer.weight.masked_fill(mask.to(layer.weight.device), 0))
        return {"masks_digest": sha.hexdigest()[:16]}

    def check_model(self, model: PreTrainedModel, sparsity: Sparsity, modules: str) -> None:
        """Compares the masks with the layers, and their zeros with the ratio as far as it goes without the zeros of the dense weights.

        Raises:
            BadOptionError: as :meth:`prune_model`.
        """
        masks = load_masks(self.path)
        layers = [layer for block in find_blocks(model, modules) for layer in block.layers]
        self._check_names(masks, layers)
        self._check_sparsity(masks, layers, sparsity, sum(layer.weight.numel() for layer in layers))

    def _check_names(self, masks: Mapping[str, torch.Tensor], layers: list[LinearLayer]) -> None:
        shapes = {layer.name: tuple(layer.weight.shape) for layer in layers}
        for name, mask in masks.items():
            if name not in shapes:
                raise BadOptionError(
                    f"pruner.path={shown(self.path)}: a mask of {name}: this model's layers are {layers[0].name} to {layers[-1].name}"
                )
            if tuple(mask.shape) != shapes[name]:
                raise BadOptionError(
                    f"pruner.path={shown(self.path)}: the mask of {name} is {tuple(mask.shape)}, the weight {shapes[name]}"
                )

    def _check_sparsity(self, masks: Mapping[str, torch.Tensor], layers: list[LinearLayer], sparsity: Sparsity, dense: int) -> None:
        """Compares the zeros of the masks with the ratio. ``dense`` of them may have been in the dense weights, and an allocation may
        round by one weight a layer or a thousandth.
        """
        held = sum(int(mask.sum()) for mask in masks.values())

        def fits(asked: Sparsity, more: int) -> bool:
            count = sum(asked.removed_of(layer.weight.numel()) for layer in layers)
            slack = rounding_slack(len(layers), count)
            return count - slack <= held <= count + slack + more

        total = sum(layer.weight.numel() for layer in layers)
        ratios = [round(held / total, digits) for digits in range(1, 9)]
        nearest = next((ratio for ratio in ratios if ratio < 1 and fits(Sparsity(ratio), 0)), ratios[-1])
        what = f"the masks hold {held} zeros of {total} weights in {len(masks)} of {len(layers)} layers: ask for sparsity={nearest}"
        if not fits(sparsity, dense):
            raise BadOptionError(f"sparsity={sparsity}: {what}")
        if sparsity.pattern and not all(layer.name in masks and _keeps(masks[layer.name], sparsity.pattern) for layer in layers):
            raise BadOptionError(f"sparsity={sparsity}: the masks do not have {sparsity} in every row; {what}")


def _keeps(mask: torch.Tensor, pattern: tuple[int, int]) -> bool:
    """Whether a mask has n zeros in every m inputs."""
    n, m = pattern
    return mask.shape[1] % m == 0 and bool((mask.reshape(-1, m).sum(1) >= n).all())
