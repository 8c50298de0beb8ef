"""The pruning methods of ``torch.nn.utils.prune`` as one pruner."""

from collections.abc import Callable

from harness_ext import PruningMethod, hookimpl


@hookimpl
def register_pruners(register: Callable[[type[PruningMethod]], None]) -> None:
    from harness_ext_torch.torch_prune import TorchPrune

    register(TorchPrune)
