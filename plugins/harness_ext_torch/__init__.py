"""The pruning methods of ``torch.nn.utils.prune`` as one pruner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness_ext import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness_ext import PruningMethod


@hookimpl
def register_pruners(register: Callable[[type[PruningMethod]], None]) -> None:
    from harness_ext_torch.torch_prune import TorchPrune

    register(TorchPrune)
