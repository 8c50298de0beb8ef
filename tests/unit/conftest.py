"""Unit tests do without lm-eval, whose import takes longer than most of them."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

import pytest


class _Refusing(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> None:
        if fullname == "lm_eval":
            raise ImportError("a test in tests/unit imports lm_eval: move it to another tier")


@pytest.fixture(autouse=True)
def without_lm_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses an import of lm-eval in a test."""
    monkeypatch.setattr(sys, "meta_path", [_Refusing(), *sys.meta_path])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuses a module of tests that imports lm-eval, where no other tier is run."""
    if "lm_eval" in sys.modules and all("unit" in item.path.parts for item in session.items):
        raise pytest.UsageError("a module in tests/unit imports lm_eval")
