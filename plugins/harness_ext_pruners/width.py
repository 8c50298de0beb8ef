"""Width: attention heads and FFN channels are taken out, the same number in every decoder block.

After An et al., Fluctuation-based Adaptive Structured Pruning for Large Language Models (FLAP), arXiv:2312.11983.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn

from harness_ext import BadOptionError, DecoderBlock, LinearLayer, NumericalError, Sparsity, StructuredPruner, find_blocks, lowest, shown
from harness_ext_pruners.backbone import read, tokens_for
from harness_ext_pruners.families import FAMILIES, Part, keep, layers_of, parts_of, widths_allowed
from harness_ext_pruners.moments import Moments
from harness_ext_pruners.shares import choose

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Width(StructuredPruner):
    """Takes the attention heads and FFN channels with the least weighty outputs out of every block.

    Scores are those of the inputs ``x_j`` of an output projection W (o_proj; down_proj, fc2 and so on), measured on the calibration
    tokens in the dense model:

    * ``metric=fluctuation``: ``Var(x_j) * sum_i W_ij^2``, FLAP's; what leaving j out costs where a bias makes up for its mean.
    * ``metric=energy``: ``E[x_j^2] * sum_i W_ij^2``; what leaving j out costs where nothing does.
    * ``metric=auto``: fluctuation for a projection with a bias, else energy.

    A head's score is the sum over its channels. A key/value head goes with all query heads that share it, or stays with them. Where
    the projection has a bias, ``W_removed @ E[x_removed]`` is added to it, so that the mean of its output stays the same.
    ``add_bias=true`` gives the projections a bias for that purpose, where the config can say so: in Llama, and in the attention of
    Qwen3.

    Unlike in FLAP, scores are not compared between blocks, or between heads and channels: a config has one number of heads and one of
    channels. Heads go at the ratio nearest to the one asked for, and as many channels as bring the linear weights nearest to it.
    ``tolerance`` says how far they may be away. The config of Llama wants a number of heads that divides the width of the model; OPT,
    GPT-2 and GPT-NeoX can lose no heads, because their config has no size of a head of its own. What is left is not trained afterwards.
    """

    name: ClassVar[str] = "width"
    calibrated: ClassVar[bool] = True
    metric: Literal["auto", "fluctuation", "energy"] = "auto"
    add_bias: bool = False

    def prune_model(
        self, model: PreTrainedModel, sparsity: Sparsity, calibration: torch.Tensor | None, modules: str = "all"
    ) -> Mapping[str, Any]:
        """Cuts the linear layers of every block and changes the config to match.

        Args:
            modules: ``all``, ``attention`` or ``ffn``; the ratio is one of the linear weights that this selects.

        Returns:
            For ``heads`` (key/value heads, with their query heads) and ``channels``: how many there were, how many stay, and for each
            block ``removed``, the places of those that went (for channels as the hexadecimal digits of one bit for each channel, the
            first channel first), ``highest_removed`` and ``lowest_kept``, the two scores between which the line runs.

        Raises:
            BadOptionError: a pattern, a glob, heads of an architecture that cannot lose any, or a ratio out of reach.
            UnsupportedModelError: another architecture than those known, or blocks that differ in width.
            NumericalError: an activation is NaN or infinite.
        """
        _check(sparsity, modules)
        blocks = find_blocks(model, modules)
        cuts = self._cuts(model, blocks, sparsity, modules)
        bare = self._bare(model, blocks, cuts)
        ids = tokens_for("width", calibration)
        moments = _measure(model, blocks, [part for part, _ in cuts], ids)
        for part in bare if self.add_bias else ():
            _add_biases(model, blocks, part)
        notes: dict[str, Any] = {}
        for part, count in cuts:
            entries = {block.name: self._cut(block, part, count, moments[block.name, part.title]) for block in blocks}
            notes[part.title] = {"before": part.units, "after": part.units - count, "blocks": entries}
            for name, value in part.config(part.units - count).items():
                setattr(model.config.get_text_config(), name, value)
        return notes

    def check_model(self, model: PreTrainedModel, sparsity: Sparsity, modules: str) -> None:
        """Checks what the shapes tell.

        Raises:
            BadOptionError, UnsupportedModelError: as :meth:`prune_model`.
        """
        _check(sparsity, modules)
        blocks = find_blocks(model, modules)
        self._bare(model, blocks, self._cuts(model, blocks, sparsity, modules))

    def _cuts(self, model: PreTrainedModel, blocks: list[DecoderBlock], sparsity: Sparsity, modules: str) -> list[tuple[Part, int]]:
        """How many units of each part go."""
        parts = parts_of(model, blocks, modules)
        total = sum(layer.weight.numel() for layer in blocks[0].layers)
        counts = choose(sparsity, parts, [widths_allowed(model, part) for part in parts], total, self.tolerance)
        return [(part, count) for part, count in zip(parts, counts, strict=True) if count]

    def _bare(self, model: PreTrainedModel, blocks: list[DecoderBlock], cuts: list[tuple[Part, int]]) -> list[Part]:
        """The parts whose reader has no bias."""
        bare = [part for part, _ in cuts if layers_of(blocks[0], part)[-1].module.bias is None]
        if self.add_bias and (without := next((part for part in bare if part.bias is None), None)):
            able = ", ".join(f"{name} {kind}" for name, family in FAMILIES.items() for kind in family.biases)
            raise BadOptionError(
                f"pruner.add_bias=True: the config of {model.config.get_text_config().model_type} models cannot give "
                f"{without.reader} a bias; those that can: {able}"
            )
        return bare

    def _cut(self, block: DecoderBlock, part: Part, count: int, moments: Moments) -> dict[str, Any]:
        """Takes ``count`` units out of one block."""
        *writers, reader = layers_of(block, part)
        measure = moments.variance if self._fluctuates(reader) else moments.energy
        scores = (measure * reader.weight.double().square().sum(0)).view(part.units, -1).sum(1)
        gone = lowest(scores[None], count)[0]
        _compensate(reader, _spread(gone.nonzero()[:, 0], reader.in_features // part.units), moments.mean)
        kept = (~gone).nonzero()[:, 0]
        for writer in writers:
            keep(writer.module, outputs=_spread(kept, len(writer.weight) // part.units))
        keep(reader.module, inputs=_spread(kept, reader.in_features // part.units))
        for name, value in part.config(len(kept)).items():
            for module in block.module.modules():
                if hasattr(module, name):  # copies of what the config says, such as an FFN's intermediate_size
                    setattr(module, name, value)
        removed: list[int] | str = gone.nonzero()[:, 0].tolist()
        if part.title == "channels":
            bits = "".join("1" if flag else "0" for flag in gone.tolist())
            removed = bytes(int(bits[start : start + 8].ljust(8, "0"), 2) for start in range(0, len(bits), 8)).hex()
        return {"removed": removed, "highest_removed": float(scores[gone].max()), "lowest_kept": float(scores[~gone].min())}

    def _fluctuates(self, reader: LinearLayer) -> bool:
        return self.metric == "fluctuation" or (self.metric == "auto" and reader.module.bias is not None)


def _check(sparsity: Sparsity, modules: str) -> None:
    if sparsity.pattern:
        raise BadOptionError(f"sparsity={sparsity}: pruner 'width' takes whole heads and channels out: want a ratio such as 0.25")
    if modules not in ("all", "attention", "ffn"):
        raise BadOptionError(f"modules={shown(modules)}: pruner 'width' takes whole heads and channels out: want all, attention or ffn")


def _spread(units: torch.Tensor, size: int) -> torch.Tensor:
    """The channels of the units, ``size`` consecutive ones each; int64."""
    return (units[:, None] * size + torch.arange(size, device=units.device)).flatten()


def _measure(model: PreTrainedModel, blocks: list[DecoderBlock], parts: list[Part], ids: torch.Tensor) -> dict[tuple[str, str], Moments]:
    """Mean and variance of what each output projection reads in the dense model."""
    moments_of: dict[tuple[str, str], Moments] = {}

    def listen(layer: LinearLayer, moments: Moments) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            (inputs,) = (*args, *kwargs.values())
            if not inputs.isfinite().all():
                raise NumericalError(f"{layer.name}: the input has NaN or infinite values")
            moments.update(inputs.reshape(-1, layer.in_features))

        return hook

    with ExitStack() as stack:
        for block in blocks:
            for part in parts:
                reader = layers_of(block, part)[-1]
                moments_of[block.name, part.title] = moments = Moments(reader.in_features, reader.weight.device)
                stack.callback(reader.module.register_forward_pre_hook(listen(reader, moments), with_kwargs=True).remove)
        read(model, ids, "width")
    return moments_of


def _add_biases(model: PreTrainedModel, blocks: list[DecoderBlock], part: Part) -> None:
    """Gives the layers that the config couples a bias of zeros each."""
    for block in blocks:
        for layer in layers_of(block, part):
            if layer.module.bias is None:
                layer.module.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)), requires_grad=layer.module.weight.requires_grad)
    setattr(model.config.get_text_config(), str(part.bias), True)


def _compensate(reader: LinearLayer, gone: torch.Tensor, mean: torch.Tensor) -> None:
    """Adds to the bias of the projection what the removed channels contributed on average."""
    if reader.module.bias is not None:
        bias: torch.Tensor = reader.module.bias.data  # type: ignore[assignment]
        bias.copy_(bias.double() + reader.weight[:, gone].double() @ mean[gone])
