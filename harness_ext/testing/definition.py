"""Reads the YAML of a task: its own keys, and all keys with those of included files. No function is imported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from harness_ext.errors import one_line

FUNCTION = "!function"


class Function(str):
    """The name after a ``!function`` tag."""

    __slots__ = ()


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    pass


_Loader.add_constructor(FUNCTION, lambda loader, node: Function(loader.construct_scalar(node)))


class UnreadableError(Exception):
    """A file is not a YAML mapping. The message is one line."""


class UnreadableIncludeError(UnreadableError):
    """An include is not there or cannot be read, or leads back to the file itself. The message names the include."""


@dataclass
class Definition:
    """One YAML file.

    Attributes:
        path: Path of the file.
        own: Keys and values of the file, without includes.
        duplicates: Keys that occur twice in one mapping, as paths with dots.
        functions: The key and the name of each ``!function``. Duplicate keys count as well, because lm-eval imports all functions.
    """

    path: Path
    own: dict[str, Any]
    duplicates: list[str] = field(default_factory=list)
    functions: list[tuple[str, str]] = field(default_factory=list)

    @cached_property
    def includes(self) -> list[Path]:
        given = self.own.get("include", [])
        return [self.path.parent / str(path) for path in (given if isinstance(given, list) else [given])]


def files_below(folders: Iterable[Path]) -> list[Path]:
    """The YAML files that lm-eval reads, in its order."""
    skipped = {"__pycache__", ".ipynb_checkpoints"}
    files = (file for folder in folders for file in sorted(folder.rglob("*.yaml"), key=lambda file: file.as_posix()))
    return [file for file in files if not skipped & set(file.parts)]


def read(path: Path) -> Definition:
    """Reads a file without its includes.

    Raises:
        UnreadableError: the file is not UTF-8, not YAML, or not a mapping with text keys.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableError(f"cannot be read: {error}") from error
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        own = loader.construct_document(node) if node is not None else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnreadableError(f"not YAML: {one_line(error, whole=True)}") from error
    finally:
        loader.dispose()
    if not isinstance(own, dict) or not all(isinstance(key, str) for key in own):
        raise UnreadableError(f"a {type(own).__name__}, not a mapping: want keys such as task, doc_to_text and metric_list")
    return Definition(path, own, list(_duplicates(node)), list(_functions(node)))


def whole(definition: Definition, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Merges the keys of a file and its includes as lm-eval does. Keys of the file win, then keys of later includes.

    Raises:
        UnreadableIncludeError: an include does not exist, cannot be read, or includes the file itself.
    """
    merged: dict[str, Any] = {}
    here = definition.path.resolve()
    if here in seen:
        raise UnreadableIncludeError(f"the include {definition.path.name} leads back to itself")
    for include in definition.includes:
        if not include.is_file():
            raise UnreadableIncludeError(f"the include {include.name} is not there: no file {include}")
        try:
            merged |= whole(read(include), (*seen, here))
        except UnreadableIncludeError:
            raise
        except UnreadableError as error:
            raise UnreadableIncludeError(f"the include {include.name}: {error}") from error
    return merged | {key: value for key, value in definition.own.items() if key != "include"}


def _duplicates(node: yaml.Node | None, key: str = "") -> Iterator[str]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for name, value in node.value:
            place = f"{key}.{name.value}" if key else str(name.value)
            if place in seen:
                yield place
            seen.add(place)
            yield from _duplicates(value, place)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _duplicates(value, f"{key}.{number}")


def _functions(node: yaml.Node | None, key: str = "") -> Iterator[tuple[str, str]]:
    entries: list[tuple[Any, Any]] = []
    if isinstance(node, yaml.MappingNode):
        entries = [(name.value, value) for name, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        entries = list(enumerate(node.value))
    elif node is not None and node.tag == FUNCTION:
        yield key, str(node.value)
    for name, value in entries:
        yield from _functions(value, f"{key}.{name}" if key else str(name))
