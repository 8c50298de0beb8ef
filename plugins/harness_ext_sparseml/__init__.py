"""Pruners of SparseML 1.8, an optional library: ``pip install 'lm-eval-pruned[sparseml]'``. Nothing of it is imported until one is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness_ext import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness_ext import PruningMethod


@hookimpl
def register_pruners(register: Callable[[type[PruningMethod]], None]) -> None:
    from harness_ext_sparseml.layerwise import SparseMLSparseGPT, SparseMLWanda
    from harness_ext_sparseml.magnitude import SparseMLMagnitude
    from harness_ext_sparseml.obs import SparseMLOBS
    from harness_ext_sparseml.recipe import SparseMLRecipe

    for pruner in (SparseMLMagnitude, SparseMLWanda, SparseMLSparseGPT, SparseMLOBS, SparseMLRecipe):
        register(pruner)
