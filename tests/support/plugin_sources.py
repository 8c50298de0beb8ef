"""Sources of plugins that tests install."""

from __future__ import annotations

from collections.abc import Callable

InstallPlugin = Callable[..., None]

PRUNER = """
from harness_ext import Pruner, hookimpl

class First(Pruner):
    name = "{name}"
    def score(self, weight, statistic):
        return weight

@hookimpl
def register_pruners(register):
    register(First)
"""


def pruner_source(name: str) -> str:
    """A plugin module that registers one pruner of that name."""
    return PRUNER.format(name=name)
