"""The built-in calibration sources. They import only public names of ``harness_ext``, like any plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness_ext import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness_ext import Calibration


@hookimpl
def register_calibrations(register: Callable[[type[Calibration]], None]) -> None:
    from harness_ext_calibrations.file import File
    from harness_ext_calibrations.hub import Hub
    from harness_ext_calibrations.self_generated import SelfGenerated

    for calibration in (SelfGenerated, File, Hub):
        register(calibration)
