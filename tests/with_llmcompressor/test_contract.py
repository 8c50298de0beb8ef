"""The pruner keeps to the contract of all pruners, with llm-compressor at work. These tests need an environment of their own:

pip install -c plugins/harness_ext_llmcompressor/constraints.txt -e '.[llmcompressor]' pytest && pytest tests/with_llmcompressor
"""

from __future__ import annotations

from typing import ClassVar

from harness_ext.testing import PrunerContract


class TestSparseGPT(PrunerContract):
    pruner = "llmcompressor"
    options: ClassVar = {"modifier": "sparsegpt"}


class TestWanda(PrunerContract):
    pruner = "llmcompressor"
    options: ClassVar = {"modifier": "wanda"}
