"""Build hook: an editable install exposes the packages of the checkout and nothing else of it.

With the checkout itself on ``sys.path``, ``tests``, ``scripts``, ``plugins`` and ``task_configs`` could be imported too. So ``plugins``, a
folder of packages, goes on the path, and for ``harness_ext`` a file is installed that hands over to the package in the checkout.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

STAND_IN = '''\
"""Stands in for the package in the checkout that this editable install points to."""

import sys

__path__ = __spec__.submodule_search_locations = [{folder!r}]
__file__ = __spec__.origin = {file!r}
__loader__ = __spec__.loader = type(__loader__)(__name__, __file__)
__loader__.exec_module(sys.modules[__name__])
'''


class EditableHook(BuildHookInterface):
    """Replaces what an editable install would copy from the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            return
        package = Path(self.root, "harness_ext")
        self.folder = Path(tempfile.mkdtemp())
        stand_in = self.folder / "__init__.py"
        stand_in.write_text(STAND_IN.format(folder=str(package), file=str(package / "__init__.py")), encoding="utf-8")
        build_data["force_include_editable"] = {
            str(stand_in): "harness_ext/__init__.py",
            str(package / "autoload.pth"): "harness_ext_autoload.pth",
        }

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version == "editable":
            shutil.rmtree(self.folder)
