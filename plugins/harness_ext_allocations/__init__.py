"""The built-in allocations. They import only public names of ``harness_ext``, like any plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness_ext import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness_ext import Allocation


@hookimpl
def register_allocations(register: Callable[[type[Allocation]], None]) -> None:
    from harness_ext_allocations.global_ import Global
    from harness_ext_allocations.listed import Listed
    from harness_ext_allocations.owl import OWL
    from harness_ext_allocations.uniform import Uniform

    for allocation in (Uniform, OWL, Global, Listed):
        register(allocation)
