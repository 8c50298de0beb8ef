"""Keeps calibration token ids on disk, by what decides them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness_ext.atomic import WriteError, whole_file, writing
from harness_ext.cache import cache_folder
from harness_ext.engine.record import environment
from harness_ext.errors import one_line
from harness_ext.method.calibration import Calibration, digest
from harness_ext.method.source_code import code_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

VARIABLE = "HARNESS_EXT_CALIBRATION_CACHE"
"""The environment variable that names another folder."""
NAME = re.compile(r"[0-9a-f]{32}\.safetensors")
LEFT_OVER = re.compile(r"\.[0-9a-f]{32}\.safetensors\.[0-9a-f]{8}\.part")
_complained: set[Path] = set()


@dataclass(frozen=True)
class Entry:
    """A file of the cache.

    Args:
        about: ``source``, ``options``, ``samples``, ``length``; empty if the file cannot be read.
        size: in bytes.
        written: seconds since 1970.
    """

    path: Path
    about: Mapping[str, Any]
    size: int
    written: float


def folder() -> Path:
    """Where the token ids are kept: ``$HARNESS_EXT_CALIBRATION_CACHE``, else ``calibration`` in the cache folder of this package."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else cache_folder() / "calibration"


def key_of(
    source: Calibration, model: PreTrainedModel, model_digest: str, tokenizer: PreTrainedTokenizerBase | None, device: torch.device
) -> str | None:
    """A digest of what decides the token ids; None if they are not to be kept.

    Args:
        model_digest: of the dense weights.
        device: where the model computes.
    """
    of_source = source.cache_key(model, model_digest)
    of_tokenizer = _tokenizer_digest(tokenizer)
    if of_source is None or of_tokenizer is None:
        return None
    code = code_of(type(source))
    if code["digest"] is None:
        return None
    decisive = {
        "source": source.name, "code": code, "options": source.options(), "decided_by": dict(of_source), "tokenizer": of_tokenizer,
        "environment": environment(device), "versions": {name: metadata.version(name) for name in ("transformers", "tokenizers")},
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability(),
        "float32": torch.get_float32_matmul_precision(),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:32]


def read(key: str) -> torch.Tensor | None:
    """The token ids that were kept, int64 [samples, length]; None if there are none, or if the file is damaged."""
    from safetensors import SafetensorError

    path = _path(key)
    try:
        if not path.exists():
            return None
        about, ids = _load(path)
        if about["key"] != key or about["digest"] != digest(ids) or ids.dtype != torch.int64:
            raise ValueError("it does not have its checksum")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged (%s): the calibration tokens are computed again", path, one_line(error))
        return None
    return ids


def write(key: str, source: Calibration, ids: torch.Tensor) -> None:
    """Keeps token ids. A folder that cannot be written is said once in the log.

    Args:
        ids: int64 [samples, length].
    """
    from safetensors.torch import save_file

    about = {
        "key": key, "digest": digest(ids), "source": source.name, "options": source.options(), "samples": len(ids), "length": ids.shape[1],
    }  # fmt: skip
    path = _path(key)
    try:
        with whole_file(path) as part:
            save_file({"input_ids": ids.cpu().contiguous()}, part, {"about": json.dumps(about, default=str)})
    except WriteError as error:
        if path.parent not in _complained:
            _complained.add(path.parent)
            log.warning("calibration tokens are not kept for later runs: %s", error)


def entries() -> list[Entry]:
    """The files of the cache, the newest first.

    Raises:
        OSError: the folder cannot be read.
    """
    found = []
    for path in _files(NAME):
        try:
            about, _ = _load(path)
        except Exception:  # a damaged file is listed, so that it can be cleared
            about = {}
        status = path.stat()
        found.append(Entry(path, about, status.st_size, status.st_mtime))
    return sorted(found, key=lambda entry: entry.written, reverse=True)


def clear() -> int:
    """Deletes the files of the cache, and what killed processes left beside them. Other files stay.

    Returns:
        how many sets of token ids were deleted.

    Raises:
        WriteError: the file system refuses.
    """
    kept = _files(NAME)
    for path in [*kept, *_files(LEFT_OVER)]:
        with writing(path):
            path.unlink(missing_ok=True)
    return len(kept)


def _path(key: str) -> Path:
    return folder() / f"{key}.safetensors"


def _files(pattern: re.Pattern[str]) -> list[Path]:
    return [path for path in sorted(folder().iterdir()) if pattern.fullmatch(path.name)] if folder().is_dir() else []


def _load(path: Path) -> tuple[dict[str, Any], torch.Tensor]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["about"])
        return about, file.get_tensor("input_ids")


def _tokenizer_digest(tokenizer: PreTrainedTokenizerBase | None) -> str | None:
    """Of all that a tokenizer does to a text; None for one in Python code, which does not tell."""
    if tokenizer is None:
        return "none"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    parts = [
        backend.to_str(),
        str(tokenizer.special_tokens_map),
        str(getattr(tokenizer, "chat_template", None)),
        type(tokenizer).__qualname__,
    ]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
