"""The built-in quantizers. They import only public names of ``harness_ext``, like any plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness_ext import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness_ext import PruningMethod


@hookimpl
def register_pruners(register: Callable[[type[PruningMethod]], None]) -> None:
    from harness_ext_quantizers.gptq import GPTQ
    from harness_ext_quantizers.rtn import RTN

    for quantizer in (RTN, GPTQ):
        register(quantizer)
