"""The code that comes with a checkpoint: the Python files that ``trust_remote_code=True`` runs."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def copy_code(source: Path, out: Path) -> None:
    """Copies the files that the configurations of a checkpoint name in ``auto_map``, and those that these import relatively.

    Args:
        source: the folder of the checkpoint.
        out: the folder to copy to; a file that is there stays as it is.
    """
    for file in sorted(_needed(source)):
        target = out / file
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, target)


def _needed(source: Path) -> set[Path]:
    """Relative paths."""
    left = {Path(*reference.split(".")[:-1]).with_suffix(".py") for reference in _references(source)}
    needed: set[Path] = set()
    while left:
        file = left.pop()
        if file not in needed and ".." not in file.parts and not file.is_absolute() and (source / file).is_file():
            needed.add(file)
            left |= set(_imported(source, file))
    return needed


def _references(source: Path) -> Iterator[str]:
    """Names of classes such as ``modeling_mine.MineForCausalLM``, without those that are in another repository."""
    for config in sorted(source.glob("*.json")):
        try:
            content = json.loads(config.read_text(encoding="utf-8"))
        except ValueError:
            continue  # a file of something else; what transformers reads, it has read by now
        auto_map = content.get("auto_map") if isinstance(content, dict) else None
        yield from (name for name in _texts(auto_map) if re.fullmatch(r"\w+(\.\w+)+", name))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _imported(source: Path, file: Path) -> Iterator[Path]:
    """The files that a module imports relatively, for packages with their ``__init__.py``."""
    try:
        module_tree = ast.parse((source / file).read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return  # code that this Python cannot run, and did not
    for node in ast.walk(module_tree):
        if not isinstance(node, ast.ImportFrom) or not node.level or node.level > len(file.parts):
            continue
        base = file.parents[node.level - 1]
        module = base.joinpath(*(node.module or "").split("."))
        for path in (module, *(module / name.name for name in node.names)):
            yield from (path.parent / f"{path.name}.py", path / "__init__.py")
