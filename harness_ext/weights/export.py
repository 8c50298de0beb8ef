"""Writes a pruned model as a checkpoint that ``from_pretrained`` loads, with its pruning record and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_ext.atomic import writing
from harness_ext.weights.folder import RECORD, out_folder
from harness_ext.weights.model_card import model_card
from harness_ext.weights.remote_code import copy_code

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    record: Mapping[str, Any],
    out: Path,
    *,
    force: bool = False,
    code: Path | None = None,
) -> None:
    """Writes a checkpoint folder, whole or not at all: safetensors, configurations, tokenizer, ``pruning.json`` and ``README.md``.

    Args:
        record: the pruning record; JSON values.
        force: replace ``out`` if it is a folder that was written here.
        code: the folder of the checkpoint that the model came from, whose Python files go with it.

    Raises:
        BadOptionError: ``out`` exists, or the folder around it does not or is not writable.
        WriteError: the disk is full, or the file system refuses.
    """
    with out_folder(out, force=force) as part:
        with writing(out):
            _save_weights(model, part)
            if code:
                copy_code(code, part)
        describe(part, out, record, tokenizer, str(model.config.name_or_path or "a model in memory"))


def _save_weights(model: PreTrainedModel, part: Path) -> None:
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig()  # save_pretrained refuses some settings that from_pretrained takes
    try:
        model.save_pretrained(part)
    finally:
        model.generation_config = own
    save_generation_settings(model, part)


def save_generation_settings(model: PreTrainedModel, part: Path) -> None:
    """Writes ``generation_config.json`` as it is, for a model that has one."""
    if model.can_generate() and model.generation_config is not None:
        model.generation_config.to_json_file(part / "generation_config.json")


def describe(
    part: Path, out: Path, record: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase | None, base: str, masks: str | None = None
) -> None:
    """Writes what goes with the weights into the folder ``part`` that is to be ``out``: tokenizer, pruning record and model card.

    Args:
        base: what the model card calls the dense model, unless the record says it in ``source``.
        masks: the sparsity to ask for, where there are masks instead of weights.
    """
    with writing(out):
        if tokenizer is not None:
            tokenizer.save_pretrained(part)
        write_record(part, record)
        base = str(record.get("source", {}).get("pretrained") or base)
        (part / "README.md").write_text(model_card(record, base, out.name, masks), encoding="utf-8")


def write_record(part: Path, record: Mapping[str, Any]) -> None:
    """Writes ``pruning.json``."""
    (part / RECORD).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
