"""Masks of pruned weights, one bit a weight."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness_ext.atomic import writing
from harness_ext.engine.layers import LinearLayer, find_blocks
from harness_ext.errors import BadOptionError, one_line, shortened
from harness_ext.method.sparsity import Sparsity
from harness_ext.weights.folder import out_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILE = "masks.safetensors"
FORMAT = "harness-ext masks 1"


def save_masks(model: PreTrainedModel, record: Mapping[str, Any], out: Path, *, force: bool = False) -> None:
    """Writes a folder with ``masks.safetensors``, ``pruning.json`` and ``README.md``, whole or not at all.

    For each layer of the record the file holds a uint8 tensor of that name: the bits of ``weight == 0``, [out_features, in_features] in
    row-major order, eight a byte, the first in the highest bit. The shapes stand in its metadata.

    Args:
        record: the pruning record of ``model``; its ``layers`` say which have a mask.
        force: replace ``out`` if it is a folder that was written here.

    Raises:
        BadOptionError: ``out`` exists, or the folder around it does not or is not writable.
        WriteError: the disk is full, or the file system refuses.
    """
    from safetensors.torch import save_file

    from harness_ext.weights.export import describe

    if record["plan"].get("bits") is not None:
        raise BadOptionError(f"bits={record['plan']['bits']}: want the mask of a pruner; a quantised weight may be 0 without being removed")
    pruned = record.get("layers", {})
    everything = [layer for block in find_blocks(model) for layer in block.layers]
    layers = [layer for layer in everything if layer.name in pruned]
    packed = {layer.name: torch.from_numpy(np.packbits((layer.weight == 0).cpu().numpy())) for layer in layers}
    shapes = json.dumps({layer.name: list(layer.weight.shape) for layer in layers})
    with out_folder(out, force=force) as part:
        with writing(out):
            save_file(packed, part / FILE, {"format": FORMAT, "shapes": shapes})
        describe(part, out, record, None, str(model.config.name_or_path or "a model in memory"), _held(record, everything))


def _held(record: Mapping[str, Any], layers: list[LinearLayer]) -> str:
    """The sparsity that the masks hold of all linear layers: what was asked for, unless a choice of modules or rounding changes it."""
    held = sum(entry["zeros"] for entry in record["layers"].values()) / sum(layer.weight.numel() for layer in layers)
    asked = Sparsity.parse(record["plan"]["sparsity"])
    return str(asked) if abs(held - asked.ratio) < 0.001 * asked.ratio else f"{held:.6g}"


def load_masks(path: str | Path) -> dict[str, torch.Tensor]:
    """Reads the masks that ``harness-ext prune --masks-only`` wrote.

    Args:
        path: the folder, or the file in it.

    Returns:
        for each layer, by its name, a bool tensor [out_features, in_features], true where the weight is zero.

    Raises:
        BadOptionError: no such file, or one that does not hold masks.
    """
    from safetensors import SafetensorError, safe_open

    file = find_masks(path)
    masks = {}
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise BadOptionError(f"{shortened(file)}: not a file of masks: harness-ext prune --masks-only writes them")
            shapes: dict[str, list[int]] = json.loads(metadata["shapes"])
            for name, shape in shapes.items():
                packed, size = opened.get_tensor(name), math.prod(shape)
                if packed.dtype != torch.uint8 or packed.numel() != (size + 7) // 8:
                    raise BadOptionError(f"{shortened(file)}: {name} has {packed.numel()} values of {packed.dtype} for {size} bits")
                masks[name] = torch.from_numpy(np.unpackbits(packed.numpy(), count=size).astype(bool)).view(shape)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        if isinstance(error, BadOptionError):
            raise
        raise BadOptionError(f"{shortened(file)}: masks cannot be read: {one_line(error)}") from error
    return masks


def find_masks(path: str | Path) -> Path:
    """The file of masks at a path, or in the folder there.

    Raises:
        BadOptionError: there is none.
    """
    file = Path(path).expanduser()
    file = file / FILE if os.path.isdir(file) else file
    if not os.path.isfile(file):
        raise BadOptionError(f"{shortened(path)}: no file of masks there: harness-ext prune --masks-only writes {FILE}")
    return file
