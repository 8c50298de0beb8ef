"""Where this package keeps what is fetched or computed once."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder for what is fetched or computed once: ``harness_ext`` in ``$HF_HOME``, else in ``huggingface`` in ``$XDG_CACHE_HOME``,
    else in ``~/.cache/huggingface``. huggingface_hub has the same rule. The folder need not exist."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "harness_ext"
