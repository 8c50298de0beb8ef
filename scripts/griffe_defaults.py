"""An extension of griffe for the page of the Python API: shows a default that is a constant of this package as its value.

griffe reads the source and would show the name of the constant, such as ``PRUNER``.
"""

from __future__ import annotations

import inspect
from typing import Any

import griffe

import harness_ext


class Defaults(griffe.Extension):
    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        name = func.parent.name if func.name == "__init__" and func.parent else func.name
        named = [parameter for parameter in func.parameters if isinstance(parameter.default, griffe.Expr)]
        if name in harness_ext.__all__ and named:
            values = inspect.signature(getattr(harness_ext, name)).parameters
            for parameter in named:
                parameter.default = repr(values[parameter.name].default)
