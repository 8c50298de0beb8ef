"""Where the model is kept once it is fetched."""

from __future__ import annotations

import os
from pathlib import Path

NAME = "smollm2-135m"
COMMAND = "python -m harness_ext_smollm2"


def cache() -> Path:
    """``$HF_HOME``, else ``huggingface`` in ``$XDG_CACHE_HOME``, else ``~/.cache/huggingface``: the rule of huggingface_hub."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "harness_ext"


def folder() -> Path:
    """The folder of the model, which need not exist."""
    return cache() / NAME
