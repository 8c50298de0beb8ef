"""Depth: the decoder blocks with the least influence are taken out.

Men et al., ShortGPT, arXiv:2403.03853; Gromov et al., The Unreasonable Ineffectiveness of the Deeper Layers, arXiv:2403.17887.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn

from harness_ext import BadOptionError, DecoderBlock, NumericalError, Sparsity, StructuredPruner, UnsupportedModelError, find_blocks
from harness_ext_pruners.backbone import asked, nearest_integer, read, tokens_for

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

PLACE = ("layer_idx", "layer_id")  # what the modules of a block call its place, by which the cache is found
PASSING = ("training", "gradient_checkpointing")  # how a model is run


class Depth(StructuredPruner):
    """Takes whole decoder blocks out: the number of blocks nearest to the ratio, those that change the residual stream least.

    With ``x_i`` the residual stream that enters block i, and means over the calibration tokens of the dense model:

    * ``influence=block`` drops the blocks with the lowest block influence, ``BI_i = 1 - mean cos(x_i, x_i+1)`` (ShortGPT).
    * ``influence=angular`` drops the n consecutive blocks with the lowest angular distance between what enters and what leaves them,
      ``mean arccos(cos(x_i, x_i+n)) / pi`` (Gromov et al.).

    Gromov et al. measure the last token of each sequence, which sees all others: ``tokens=last``; by default all tokens count.
    Of equal scores the first is dropped. What is left is an ordinary, smaller model; it is not trained afterwards.
    """

    name: ClassVar[str] = "depth"
    calibrated: ClassVar[bool] = True
    influence: Literal["block", "angular"] = "block"
    tokens: Literal["all", "last"] = "all"

    def prune_model(
        self, model: PreTrainedModel, sparsity: Sparsity, calibration: torch.Tensor | None, modules: str = "all"
    ) -> Mapping[str, Any]:
        """Deletes blocks from the model and changes its config to match.

        Returns:
            ``removed``: names of the blocks that went, ``blocks``: how many there were, ``influence``: the score of each block, or of
            each run of blocks by its first one.

        Raises:
            BadOptionError: a pattern, other ``modules`` than all, or a ratio that rounds to no block or to all of them.
            UnsupportedModelError: a block computes something else at another place, so that no config describes what would be left.
            NumericalError: an activation is NaN or infinite.
        """
        if modules != "all":
            raise BadOptionError(f"modules={modules!r}: pruner 'depth' takes whole decoder blocks out: want all")
        blocks = find_blocks(model)
        count = _count(sparsity, len(blocks))
        span = 1 if self.influence == "block" else count
        ids = tokens_for("depth", calibration)
        scores = _influences(model, blocks, ids, span, _one_minus_cosine if self.influence == "block" else _angle, self.tokens == "last")
        if self.influence == "block":
            gone = set(sorted(range(len(blocks)), key=lambda index: (scores[index], index))[:count])
        else:
            first = min(range(len(scores)), key=lambda index: (scores[index], index))
            gone = set(range(first, first + count))
        _keep(model, blocks, [index for index in range(len(blocks)) if index not in gone])
        return {
            "removed": [blocks[index].name for index in sorted(gone)],
            "blocks": len(blocks),
            "influence": {block.name: score for block, score in zip(blocks, scores, strict=False)},
        }


def _count(sparsity: Sparsity, blocks: int) -> int:
    if sparsity.pattern:
        raise BadOptionError(f"sparsity={sparsity}: pruner 'depth' takes whole decoder blocks out: want a ratio such as {1 / blocks:.6g}")
    count = nearest_integer(asked(sparsity) * blocks)
    if 0 < count < blocks:
        return count
    if blocks == 1:
        raise BadOptionError(f"sparsity={sparsity}: pruner 'depth' leaves at least one decoder block, and this model has no other")
    nearest = f"{1 / blocks:.6g}, one block" if count == 0 else f"{1 - 1 / blocks:.6g}, all blocks but one"
    raise BadOptionError(
        f"sparsity={sparsity}: pruner 'depth' takes whole decoder blocks out, and this ratio of {blocks} rounds to "
        f"{'none' if count == 0 else 'all'} of them; the nearest is {nearest}"
    )


Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _one_minus_cosine(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``1 - cos`` of unit rows [tokens, width]; as ``|u - v|^2 / 2``, which does not cancel where the rows are nearly equal."""
    return (one - other).square().sum(-1) / 2


def _angle(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``arccos(cos) / pi`` of unit rows [tokens, width]; from the half angle, which is exact where the rows are nearly equal."""
    return 2 / math.pi * torch.atan2((one - other).norm(dim=-1), (one + other).norm(dim=-1))


def _influences(
    model: PreTrainedModel, blocks: list[DecoderBlock], ids: torch.Tensor, span: int, distance: Distance, last: bool
) -> list[float]:
    """The mean distance between what enters ``span`` consecutive blocks and what leaves them, for each first block."""
    totals = [0.0] * (len(blocks) - span + 1)
    units: dict[int, torch.Tensor] = {}  # of the streams whose distances to later ones are not known yet

    def take(index: int, stream: torch.Tensor) -> None:
        tokens = (stream[:, -1] if last else stream).float()
        if not tokens.isfinite().all():
            place = f"{blocks[index].name}: the input" if index < len(blocks) else f"{blocks[-1].name}: the output"
            raise NumericalError(f"{place} has NaN or infinite values")
        units[index] = nn.functional.normalize(tokens.reshape(-1, tokens.shape[-1]), dim=-1)
        if index >= span:
            distances = distance(units.pop(index - span).to(tokens.device), units[index])
            totals[index - span] += float(distances.cpu().double().sum())

    def enter(index: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            take(index, args[0] if args else kwargs["hidden_states"])

        return hook

    def leave(_: nn.Module, __: Any, output: Any) -> None:
        take(len(blocks), output[0] if isinstance(output, tuple) else output)

    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            stack.callback(block.module.register_forward_pre_hook(enter(index), with_kwargs=True).remove)
        stack.callback(blocks[-1].module.register_forward_hook(leave).remove)
        read(model, ids, "depth", units.clear)
    return [total / (len(ids) if last else ids.numel()) for total in totals]


def _keep(model: PreTrainedModel, blocks: list[DecoderBlock], kept: list[int]) -> None:
    """Deletes all other blocks, numbers the kept ones anew, and changes the config to match."""
    changes = _changes(model.config.get_text_config(), kept, len(blocks))
    fresh = _built_from(model, changes)
    _check_same(blocks, kept, fresh)
    for name, value in changes.items():
        setattr(model.config.get_text_config(), name, value)
    held: nn.ModuleList = model.get_submodule(blocks[0].name.rpartition(".")[0])
    for index in sorted(set(range(len(blocks))) - set(kept), reverse=True):
        del held[index]
    for index, block in enumerate(held):
        for module in block.modules():
            for name in PLACE:
                if hasattr(module, name):
                    setattr(module, name, index)
    for module, new in zip(model.modules(), fresh.modules(), strict=True):
        if hasattr(module, "has_sliding_layers"):  # whether the decoder makes a mask for them
            module.has_sliding_layers = new.has_sliding_layers


def _changes(config: PreTrainedConfig, kept: list[int], depth: int) -> dict[str, Any]:
    """The values of the config that depend on the number of blocks, or say something of each of them, such as ``layer_types``."""
    changes: dict[str, Any] = {
        name: type(value)(value[index] for index in kept)
        for name, value in config.to_dict().items()
        if isinstance(value, (list, tuple)) and len(value) == depth and "layer" in name
    }
    changes["num_hidden_layers"] = len(kept)
    if getattr(config, "max_window_layers", None) is not None:
        changes["max_window_layers"] = sum(index < config.max_window_layers for index in kept)
    return changes


def _built_from(model: PreTrainedModel, changes: Mapping[str, Any]) -> PreTrainedModel:
    """What ``from_pretrained`` would build from the file of the changed config, without memory for its weights."""
    config = copy.deepcopy(model.config)
    try:
        for name, value in changes.items():
            setattr(config.get_text_config(), name, value)
        config = type(config).from_dict(json.loads(config.to_json_string()))
        with torch.device("meta"):
            return type(model)(config)
    except Exception as error:  # whatever a config or a model raises, it would not load from a file
        reason = " ".join(str(error).split())
        raise UnsupportedModelError(
            f"the config of {type(model).__name__} does not allow {changes['num_hidden_layers']} blocks: {reason}"
        ) from error


def _check_same(blocks: list[DecoderBlock], kept: list[int], fresh: PreTrainedModel) -> None:
    """Checks that each kept block is what the config describes at its new place, the number of the place aside.

    GPT-2 with ``scale_attn_by_inverse_layer_idx`` and models that alternate between kinds of attention by a rule are not.
    """
    for index, new in zip(kept, find_blocks(fresh), strict=True):
        old = blocks[index]
        mine, wanted = _settings(old.module), _settings(new.module)
        if differing := next((name for name in [*mine, *wanted] if mine.get(name) != wanted.get(name)), None):
            raise UnsupportedModelError(
                f"{old.name} cannot become {new.name}, which pruner 'depth' would make of it: "
                f"{differing} is {mine.get(differing)} in one and {wanted.get(differing)} in the other"
            )


def _settings(block: nn.Module) -> dict[str, Any]:
    """What a block is, its weights aside: the class and the plain attributes of each module in it, and the shapes of the parameters."""
    found: dict[str, Any] = {name: tuple(parameter.shape) for name, parameter in block.named_parameters()}
    for name, module in block.named_modules():
        found[f"{name}.class"] = type(module).__name__
        for key, value in vars(module).items():
            if isinstance(value, (bool, int, float, str)) and not key.startswith("_") and key not in (*PLACE, *PASSING):
                found[f"{name}.{key}"] = value
    return found
