"""GGUF files: what is in them, and how transformers unpacks their weights."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from harness_ext.errors import BadOptionError, UnsupportedModelError, one_line, shown
from harness_ext.extras import require_extra


def dequantised() -> Any:
    """The quantisation settings with which transformers unpacks all weights of a GGUF file; None for versions that always do."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return None
    return GgufConfig(dequantize=True)


def find(folder: str, gguf_file: str, revision: str | None = None) -> Path:
    """The file of that name in a folder, or in a repository on the hub, from where it is downloaded.

    Raises:
        BadOptionError: there is none. Names those that are in the folder.
    """
    from transformers.utils import cached_file

    place = Path(folder)
    if place.is_dir():
        if os.path.isfile(place / gguf_file):
            return place / gguf_file
        others = sorted(path.name for path in place.glob("*.gguf"))
        raise BadOptionError(f"gguf_file={shown(gguf_file)}: no such file in {folder}; it has {', '.join(others) or 'no .gguf file'}")
    try:
        return Path(str(cached_file(folder, gguf_file, revision=revision)))
    except (OSError, ValueError) as error:
        raise BadOptionError(f"gguf_file={shown(gguf_file)}: {one_line(error)}") from error


def origin(file: Path) -> dict[str, Any]:
    """What the pruning record says of weights from a GGUF file: its name, what it was quantised to, and the types of its tensors.

    Raises:
        MissingExtraError: the gguf package is missing.
        UnsupportedModelError: no GGUF file, or one that is cut off.
    """
    require_extra("gguf", f"gguf_file={shown(file.name)}")
    from gguf import GGUFReader, LlamaFileType

    try:
        reader = GGUFReader(file)
    except Exception as error:  # whatever NumPy makes of bytes that are not there
        raise UnsupportedModelError(f"{file}: no GGUF file, or one that is cut off: {one_line(error)}") from error
    types = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    field = reader.fields.get("general.file_type")
    names = {member.value: member.name for member in LlamaFileType}
    kind = names.get(int(field.contents()), "") if field else ""
    quantisation = kind.removeprefix("MOSTLY_").removeprefix("ALL_") or types.most_common(1)[0][0]
    return {"gguf_file": file.name, "quantisation": quantisation, "tensor_types": dict(sorted(types.items()))}
