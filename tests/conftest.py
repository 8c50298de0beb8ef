"""Fixtures that several test modules use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

InstallPlugin = Callable[..., None]


@pytest.fixture
def install_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstallPlugin:
    """Installs a third-party plugin for the length of a test: a module, and the metadata of a distribution that declares it.

    ``install_plugin(name, source, version="1.0")``; the module is called as the distribution is, with underscores.
    """
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)

    def install(name: str, source: str, version: str = "1.0") -> None:
        module = name.replace("-", "_")
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
        info = folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[harness_ext]\n{name}-entry = {module}\n", encoding="utf-8")

    yield install
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(str(sys.modules[name].__file__)).is_relative_to(folder):
            del sys.modules[name]
