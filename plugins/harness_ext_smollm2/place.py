"""Where the model is kept once it is fetched."""

from __future__ import annotations

from pathlib import Path

from harness_ext import cache_folder

NAME = "smollm2-135m"
COMMAND = "python -m harness_ext_smollm2"


def folder() -> Path:
    """The folder of the model, which need not exist."""
    return cache_folder() / NAME
