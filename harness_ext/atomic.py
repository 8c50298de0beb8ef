"""Folders and files that are written whole or not at all: under another name beside them, then renamed."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from harness_ext.errors import BadOptionError, HarnessExtError, one_line, shortened


class WriteError(HarnessExtError):
    """A folder or file cannot be written: the disk is full, or the file system refuses."""


def check_folder(out: Path, *, replace: bool, called: str = "") -> None:
    """Checks that the folder ``out`` can be written. Deletes first what a killed process left beside it.

    Args:
        replace: accept a folder that exists.
        called: the start of a message: what a user calls the folder.

    Raises:
        BadOptionError: it exists and ``replace`` is not set, a file has its name, or its parent folder is not writable.
        WriteError: the file system refuses to tell.
    """
    target, called = out.resolve(), called or shortened(out)
    with writing(out):
        _recover(target)
        if target.exists() and not target.is_dir():
            raise BadOptionError(f"{called}: a file of that name exists: want the path of a folder")
        if target.exists() and not replace:
            raise BadOptionError(f"{called}: the folder exists")
        if not target.parent.is_dir():
            raise BadOptionError(f"{called}: want a path in a folder that exists")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise BadOptionError(f"{called}: no permission to write in {shortened(target.parent)}")


@contextmanager
def whole_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yields a new folder beside ``out``. It is renamed to ``out`` if the context ends without an error, and deleted otherwise.

    A killed process leaves no ``out`` or a whole one. The next write of ``out`` deletes what a killed process left beside it.

    Args:
        out: the folder to write, in a folder that exists.
        replace: replace a folder that exists, whatever is in it. Otherwise this is an error.

    Raises:
        BadOptionError: ``out`` exists, or its parent folder does not or is not writable.
        WriteError: the file system refuses.
    """
    check_folder(out, replace=replace)
    target = out.resolve()
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    lock = FileLock(f"{part}.lock", timeout=0)
    with writing(out):
        lock.acquire()  # tells other processes, as long as this one lives, that the folder is in use
    try:
        with writing(out):
            part.mkdir()
        yield part
        with writing(out):
            _open_to_readers(part)
            _flush(part)
            _rename(part, target, replace=replace)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def whole_file(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yields a new path beside ``path``. It is renamed to ``path`` if the context ends without an error, and deleted otherwise.

    A killed process leaves the old file or none, and perhaps a file named ``.*.part``.

    Args:
        flush: write the file to the disk before the rename, so that a crash of the machine leaves no half-written file.

    Raises:
        WriteError: the disk is full, or the file system refuses.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            if flush:
                _flush_entry(part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def write_file(path: Path, content: str) -> None:
    """Writes a text file whole or not at all, in UTF-8.

    Raises:
        WriteError: the disk is full, or the file system refuses.
    """
    with whole_file(path) as part:
        part.write_text(content, encoding="utf-8", newline="")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors of the file system into one line that names the path.

    Raises:
        WriteError: instead of an OSError or a SafetensorError.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error, whole=True)
        raise WriteError(f"{shortened(path)}: cannot be written: {reason}") from error


def _rename(part: Path, target: Path, *, replace: bool) -> None:
    """Gives ``part`` the name ``target``. A folder that it replaces is deleted afterwards, and keeps its name if this fails."""
    old = part.with_suffix(".old")
    if replace and target.exists():
        os.rename(target, old)
    try:
        os.rename(part, target)
    except OSError:
        if old.exists():
            os.rename(old, target)
        raise
    _flush_entry(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _open_to_readers(folder: Path) -> None:
    """Gives all files the permissions of new files. safetensors makes files that only their owner can read."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _flush(folder: Path) -> None:
    """Writes a folder to the disk, so that no rename that survives a crash of the machine shows half-written files."""
    for path in [*folder.rglob("*"), folder]:
        _flush_entry(path)


def _flush_entry(path: Path) -> None:
    directory = path.is_dir()
    with suppress(*[PermissionError] if directory else ()):  # some systems cannot open folders
        handle = os.open(path, os.O_RDONLY if directory else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _recover(target: Path) -> None:
    """Deletes what killed processes left beside ``target``, and restores the old folder if one was killed while it replaced it."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"([0-9a-f]{8})\.(part|part\.lock|old)")
    names = sorted(path.name for path in target.parent.iterdir()) if target.parent.is_dir() else []
    runs = {match[1] for match in map(pattern.fullmatch, names) if match}
    for run in sorted(runs):
        part = target.with_name(f".{target.name}.{run}.part")
        old = part.with_suffix(".old")
        lock = FileLock(f"{part}.lock", timeout=0)
        with suppress(Timeout, OSError), lock:  # the lock of a living process, or no permission
            if old.exists() and not target.exists():
                os.rename(old, target)
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)
