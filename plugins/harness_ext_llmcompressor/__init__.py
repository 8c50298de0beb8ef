"""The one-shot pruning of llm-compressor, an optional library: ``pip install 'lm-eval-pruned[llmcompressor]'``. Nothing of it is imported
until it is used."""

from collections.abc import Callable

from harness_ext import PruningMethod, hookimpl


@hookimpl
def register_pruners(register: Callable[[type[PruningMethod]], None]) -> None:
    from harness_ext_llmcompressor.pruner import LLMCompressor

    register(LLMCompressor)
