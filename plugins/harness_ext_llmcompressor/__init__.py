"""The one-shot pruning of llm-compressor, an optional library: ``pip install 'lm-eval-pruned[llmcompressor]'``. Nothing of it is imported
until it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness_ext import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness_ext import PruningMethod


@hookimpl
def register_pruners(register: Callable[[type[PruningMethod]], None]) -> None:
    from harness_ext_llmcompressor.pruner import LLMCompressor

    register(LLMCompressor)
