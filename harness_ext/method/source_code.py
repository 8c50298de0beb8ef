"""Identifies the code that a plugin's method runs: a digest of its source, and the versions of the libraries that it names."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from harness_ext.errors import PluginError, shown
from harness_ext.method.options import Configurable

OURS = __name__.partition(".")[0]  # the version of this package stands in every record
READ_WHOLE = 16 * 2**20  # bytes; a package may hold the weights of a model


def code_of(cls: type[Configurable]) -> dict[str, Any]:
    """What changes when the code of a method changes.

    The digest covers the whole package that the class is written in: all files of it, data files included, and of files above 16 MiB the
    size alone. It also covers the packages and modules beside it that it imports, if they belong to the same distribution, and the same
    for the base classes of the class.

    Returns:
        ``digest``: 16 hexadecimal digits, None for a class that no file holds; ``requires``: the version of each distribution in
        ``cls.requires``.

    Raises:
        PluginError: ``requires`` is not a tuple of names, or a distribution in it is not installed.
    """
    roots: dict[Path, None] = {}
    for base in cls.__mro__:
        if issubclass(base, Configurable) and base.__module__.partition(".")[0] != OURS:
            root = _root(base)
            if root is None:
                return {"digest": None, "requires": versions(cls)}
            roots |= dict.fromkeys(_with_neighbours(root))
    files = {path.relative_to(root.parent).as_posix(): path for root in roots for path in _files(root)}
    sha = hashlib.sha256()
    for name in sorted(files):
        sha.update(f"{name} {_digest_and_imports(files[name])[0]}\n".encode())
    return {"digest": sha.hexdigest()[:16], "requires": versions(cls)}


def versions(cls: type[Configurable]) -> dict[str, str]:
    """The version of each distribution that the class requires.

    Raises:
        PluginError: as :func:`code_of`.
    """
    check_requires(cls)
    found = {}
    for name in cls.requires:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise PluginError(f"{cls.kind} {cls.name!r} requires the distribution {shown(name)}, which is not installed") from None
    return found


def check_requires(cls: type[Configurable]) -> None:
    """Checks the class attribute ``requires``.

    Raises:
        PluginError: it is not a tuple of names.
    """
    if not isinstance(cls.requires, tuple) or not all(isinstance(name, str) and name for name in cls.requires):
        raise PluginError(f"{cls.__qualname__}.requires={cls.requires!r}: want a tuple of names of distributions, such as ('sparseml',)")


def _root(cls: type) -> Path | None:
    """The folder of the outermost package that a class is written in, or its file where that is a module of its own."""
    try:
        file = Path(inspect.getfile(cls)).resolve()
    except (OSError, TypeError):  # typed into an interpreter
        return None
    parts = cls.__module__.split(".")
    for depth in range(1, len(parts) + 1):
        module = sys.modules.get(".".join(parts[:depth]))
        main_file = getattr(module, "__file__", None)  # none of a namespace package, which distributions share
        if main_file and hasattr(module, "__path__"):
            return Path(main_file).resolve().parent
    return file


def _with_neighbours(root: Path) -> Iterator[Path]:
    """A package or module, and those beside it that it imports and that come with it, directly or through each other."""
    seen, waiting = set[Path](), [root]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        yield current
        imported = {name for path in _files(current) for name in _digest_and_imports(path)[1]}
        for name in sorted(imported - {OURS, current.stem}):
            module, package = root.parent / f"{name}.py", root.parent / name
            beside = package if (package / "__init__.py").is_file() else module if module.is_file() else None
            if beside is not None and _together(root, beside):
                waiting.append(beside)


def _together(root: Path, beside: Path) -> bool:
    """Whether two packages or modules in one folder are of the same distribution: in the folder of a project, yes."""
    if root.parent.name not in ("site-packages", "dist-packages"):
        return True
    mine, theirs = (set(_owners().get(path.stem, ())) for path in (root, beside))
    return bool(mine & theirs) or not (mine or theirs)


@functools.cache
def _owners() -> Mapping[str, list[str]]:
    """The distributions that each top-level name belongs to."""
    return metadata.packages_distributions()


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    return [
        path
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]


def _digest_and_imports(path: Path) -> tuple[str, frozenset[str]]:
    """The digest of a file and, of a Python file, the top-level names that it imports, anywhere in it."""
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4096)
def _read(path: Path, modified: int, size: int) -> tuple[str, frozenset[str]]:
    """The same for the time in nanoseconds at which the file was last modified, and its size: an edited file is read again."""
    if size > READ_WHOLE:
        return str(size), frozenset()
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest(), frozenset(_imports(content) if path.suffix == ".py" else ())


def _imports(source: bytes) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # a file that nothing imports
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
