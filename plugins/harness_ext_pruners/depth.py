"""Depth: the decoder blocks with the least influence are taken out.

Men et al., ShortGPT, arXiv:2403.03853; Gromov et al., The Unreasonable Ineffectiveness of the Deeper Layers, arXiv:2403.17887.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn

from harness_ext import (
    BadOptionError,
    DecoderBlock,
    NumericalError,
    Sparsity,
    StructuredPruner,
    UnsupportedModelError,
    find_blocks,
    one_line,
    shown,
)
from harness_ext_pruners.backbone import read, tokens_for
from harness_ext_pruners.shares import nearest

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

PLACE = ("layer_idx", "layer_id")  # what the modules of a block call its place, by which the cache is found
NUMBER = ("decoder_layers", "num_decoder_layers", "num_hidden_layers")  # what a config calls the number of blocks of a decoder
PASSING = ("training", "gradient_checkpointing")  # how a model is run


class Depth(StructuredPruner):
    """Takes whole decoder blocks out, those that change the residual stream least: so many that the share of the linear weights comes
    nearest to the ratio. ``tolerance`` says how far it may be away.

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
            BadOptionError: a pattern, other ``modules`` than all, a ratio that rounds to no block or to all of them, or one that no number
                of blocks comes near to.
            UnsupportedModelError: a block computes something else at another place, so that no config describes what would be left.
            NumericalError: an activation is NaN or infinite.
        """
        self.check_model(model, sparsity, modules)
        blocks = find_blocks(model)
        ids = tokens_for("depth", calibration)
        if self.influence == "block":
            scores = _influences(model, blocks, ids, 1, _one_minus_cosine, self.tokens == "last")
            order = sorted(range(len(blocks)), key=lambda index: (scores[index], index))
            gone = set(order[: self._count(sparsity, [_size(blocks[index]) for index in order])])
        else:
            count = self._count(sparsity, [1] * len(blocks))
            scores = _influences(model, blocks, ids, count, _angle, self.tokens == "last")
            first = min(range(len(scores)), key=lambda index: (scores[index], index))
            gone = set(range(first, first + count))
            self._check_share(sparsity, blocks, gone)
        _keep(model, blocks, [index for index in range(len(blocks)) if index not in gone])
        return {
            "removed": [blocks[index].name for index in sorted(gone)],
            "blocks": len(blocks),
            "influence": {block.name: score for block, score in zip(blocks, scores, strict=False)},
        }

    def check_model(self, model: PreTrainedModel, sparsity: Sparsity, modules: str) -> None:
        """Checks what the number and the sizes of the blocks tell.

        Raises:
            BadOptionError: as :meth:`prune_model`.
        """
        if modules != "all":
            raise BadOptionError(f"modules={shown(modules)}: pruner 'depth' takes whole decoder blocks out: want all")
        sizes = [_size(block) for block in find_blocks(model)]
        if sparsity.pattern:
            ratio = 1 / len(sizes)
            raise BadOptionError(f"sparsity={sparsity}: pruner 'depth' takes whole decoder blocks out: want a ratio such as {ratio:.6g}")
        if len(sizes) == 1:
            raise BadOptionError(f"sparsity={sparsity}: pruner 'depth' leaves at least one decoder block, and this model has no other")
        if len(set(sizes)) == 1:  # else it depends on which blocks go
            self._count(sparsity, sizes)

    def _count(self, sparsity: Sparsity, sizes: list[int]) -> int:
        """How many blocks to take out, in the given order of their sizes, so that the share of the weights comes nearest to the ratio."""
        total = sum(sizes)
        shares = [Fraction(part, total) for part in accumulate(sizes)][:-1]

        def made(index: int) -> str:
            return (
                "one block" if index == 0 else "all blocks but one" if index == len(shares) - 1 else f"{index + 1} of {len(sizes)} blocks"
            )

        return nearest("pruner 'depth' takes whole decoder blocks out", sparsity, shares, made, self.tolerance) + 1

    def _check_share(self, sparsity: Sparsity, blocks: list[DecoderBlock], gone: set[int]) -> None:
        """Of blocks that differ in size, the number that was chosen may be too little or too much."""
        sizes = [_size(block) for block in blocks]
        share = Fraction(sum(sizes[index] for index in gone), sum(sizes))
        made = f"blocks {min(gone)} to {max(gone)}"
        nearest("pruner 'depth' takes whole decoder blocks out", sparsity, [share], lambda _: made, self.tolerance)


def _size(block: DecoderBlock) -> int:
    return sum(layer.weight.numel() for layer in block.layers)


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
        take(len(blocks), output[0] if isinstance(output, tuple | list) else output)

    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            stack.callback(block.module.register_forward_pre_hook(enter(index), with_kwargs=True).remove)
        stack.callback(blocks[-1].module.register_forward_hook(leave).remove)
        read(model, ids, "depth", units.clear)
    return [total / (len(ids) if last else ids.numel()) for total in totals]


def _keep(model: PreTrainedModel, blocks: list[DecoderBlock], kept: list[int]) -> None:
    """Deletes all other blocks, numbers the kept ones anew, and changes the config to match."""
    changes = _changes(model.config.get_text_config(), kept, len(blocks))
    fresh = _built_from(model, changes, len(kept))
    _check_same(blocks, kept, fresh)
    _check_rest(model, fresh, blocks[0].name.rpartition(".")[0])
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
    number = next((name for name in NUMBER if getattr(config, name, None) == depth), "num_hidden_layers")
    changes |= {name: len(kept) for name in (number, "num_blocks") if hasattr(config, name)}  # xLSTM has both
    if getattr(config, "max_window_layers", None) is not None:
        changes["max_window_layers"] = sum(index < config.max_window_layers for index in kept)
    return changes


def _built_from(model: PreTrainedModel, changes: Mapping[str, Any], kept: int) -> PreTrainedModel:
    """What ``from_pretrained`` would build from the file of the changed config, without memory for its weights."""
    config = copy.deepcopy(model.config)
    try:
        for name, value in changes.items():
            setattr(config.get_text_config(), name, value)
        with TemporaryDirectory() as folder:  # the only way by which all values come back as transformers reads them
            Path(folder, "config.json").write_text(config.to_json_string(), encoding="utf-8")
            config = type(config).from_pretrained(folder)
        with torch.device("meta"):
            built = type(model)(config)
        if len(find_blocks(built)) != kept:
            raise ValueError(f"a model that is built from it has {len(find_blocks(built))}")
        return built
    except Exception as error:  # whatever a config or a model raises, it would not load from a file
        raise UnsupportedModelError(f"the config of {type(model).__name__} does not allow {kept} blocks: {one_line(error)}") from error


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


def _check_rest(model: PreTrainedModel, fresh: PreTrainedModel, blocks: str) -> None:
    """Checks that what is outside of the blocks does not depend on their number, as Gemma-3n's embeddings for each block do.

    Args:
        blocks: the name of the list of blocks.
    """
    old, new = (
        {name: tuple(parameter.shape) for name, parameter in each.named_parameters() if not name.startswith(f"{blocks}.")}
        for each in (model, fresh)
    )
    if differing := next((name for name in [*old, *new] if old.get(name) != new.get(name)), None):
        raise UnsupportedModelError(
            f"{differing} depends on the number of decoder blocks, which pruner 'depth' would change: it is {old.get(differing)}, and "
            f"{new.get(differing)} with {fresh.config.get_text_config().num_hidden_layers} blocks"
        )


def _settings(block: nn.Module) -> dict[str, Any]:
    """What a block is, its weights aside: the class and the plain attributes of each module in it, and the shapes of the parameters."""
    settings: dict[str, Any] = {name: tuple(parameter.shape) for name, parameter in block.named_parameters()}
    for name, module in block.named_modules():
        settings[f"{name}.class"] = type(module).__name__
        for key, value in vars(module).items():
            if isinstance(value, (bool, int, float, str)) and not key.startswith("_") and key not in (*PLACE, *PASSING):
                settings[f"{name}.{key}"] = value
    return settings
