"""Checks that lm-eval can find a ``!function`` of a YAML. No code is run."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from pathlib import Path

from harness_ext.errors import did_you_mean

_REGISTRATION = re.compile(r"""register_(?:filter|metric|aggregation)\([^)]*?["']([^"']+)["']""")


def problem(reference: str, folder: Path) -> str | None:
    """The reason why lm-eval cannot find a function, or None if it can.

    Args:
        reference: module and name as in the YAML, such as ``utils.process_docs``.
        folder: folder of the YAML, where lm-eval looks for the module first.
    """
    module, _, name = reference.rpartition(".")
    if not module:
        return f"{reference!r} names no module: want one, such as utils.{reference}"
    beside = folder / f"{module.replace('.', '/')}.py"
    file = beside if beside.exists() else _installed(module)
    if file is None:
        return f"there is no module {module!r}: neither {beside} nor an installed one"
    if file.suffix != ".py":
        return None  # compiled: its names cannot be read
    try:
        names = names_in(file)
    except (SyntaxError, ValueError) as error:
        return f"the module {file} cannot be parsed: {error}"
    if names is None or name in names:
        return None
    return f"{file} has no {name!r}.{did_you_mean(name, names)}".rstrip()


@lru_cache(maxsize=4096)
def registered_beside(folder: Path) -> frozenset[str]:
    """Names of filters, metrics and aggregations that the modules in the folder of a YAML register with lm-eval."""
    registrations = (_REGISTRATION.findall(file.read_text(encoding="utf-8", errors="replace")) for file in sorted(folder.glob("*.py")))
    return frozenset(chain.from_iterable(registrations))


def _installed(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec and spec.origin else None


@lru_cache(maxsize=4096)
def names_in(file: Path) -> frozenset[str] | None:
    """Names that a module defines at its top level. None if only running it could tell (``import *``, ``globals()``)."""
    tree = ast.parse(file.read_bytes(), filename=str(file))
    dynamic = any(
        (isinstance(node, ast.ImportFrom) and node.names[0].name == "*") or (isinstance(node, ast.Name) and node.id in ("globals", "exec"))
        for node in ast.walk(tree)
    )
    names = set(_defined(tree.body))
    return None if dynamic or "__getattr__" in names else frozenset(names)


def _defined(body: Iterable[ast.AST]) -> Iterable[str]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        yield from _defined(ast.iter_child_nodes(node))
