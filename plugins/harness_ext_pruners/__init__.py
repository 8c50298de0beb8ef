"""The built-in pruners. They import only public names of ``harness_ext``, like any plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness_ext import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness_ext import PruningMethod


@hookimpl
def register_pruners(register: Callable[[type[PruningMethod]], None]) -> None:
    from harness_ext_pruners.admm import ADMM
    from harness_ext_pruners.alps import ALPS
    from harness_ext_pruners.depth import Depth
    from harness_ext_pruners.dsnot import DSnoT
    from harness_ext_pruners.magnitude import Magnitude
    from harness_ext_pruners.random import Random
    from harness_ext_pruners.ria import RIA
    from harness_ext_pruners.sparsegpt import SparseGPT
    from harness_ext_pruners.stored import Stored
    from harness_ext_pruners.wanda import Wanda
    from harness_ext_pruners.width import Width

    for pruner in (Random, Magnitude, Wanda, RIA, DSnoT, SparseGPT, ADMM, ALPS, Depth, Width, Stored):
        register(pruner)
