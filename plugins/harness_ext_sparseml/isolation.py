"""Checks that SparseML is installed, and runs it without telemetry and without changes of global state."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib import metadata
from typing import Any, ClassVar

import torch

from harness_ext import (
    HarnessExtError,
    NumericalError,
    PluginError,
    PruningMethod,
    kept_environment,
    kept_generators,
    one_line,
)

INSTALL = "pip install 'lm-eval-pruned[sparseml]' in an environment of its own"
FILE_LOGGERS = ("sparseml.core.logger.logger", "sparseml.pytorch.utils.logger")  # would write ./sparse_logs
LOGGERS = ("sparseml", "__main__", *FILE_LOGGERS)


def require(pruner: str) -> None:
    """Checks before any weight is loaded that SparseML can be used.

    Raises:
        PluginError: this Python is too new for SparseML, or it is not installed, or in another version.
    """
    if sys.version_info >= (3, 12):
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise PluginError(f"pruner {pruner!r}: SparseML 1.8 needs Python below 3.12, and this is Python {here}: use 3.10 or 3.11")
    found = version()
    if not found:
        raise PluginError(f"pruner {pruner!r} needs SparseML 1.8, which is not installed: {INSTALL}")
    if not found.startswith("1.8."):
        raise PluginError(f"pruner {pruner!r} needs SparseML 1.8, and {found} is installed: {INSTALL}")


def version() -> str:
    """The installed version of SparseML, or an empty text."""
    try:
        return metadata.version("sparseml")
    except metadata.PackageNotFoundError:
        return ""


class SparseMLMethod(PruningMethod):
    """What the pruners of SparseML share: they exist only where SparseML does."""

    requires: ClassVar[tuple[str, ...]] = ("sparseml",)

    def __post_init__(self) -> None:
        require(self.name)

    @property
    def notes(self) -> dict[str, str]:
        """The library that did it, for the pruning record."""
        return {"sparseml": version()}


@contextmanager
def sparseml() -> Iterator[None]:
    """Around every import and use of SparseML. Without it, importing SparseML posts an event to a statistics service, attaches handlers to
    the loggers ``sparseml`` and ``__main__`` and switches TF32 off, and a session writes ``./sparse_logs``. Environment variables, loggers,
    warning filters, TF32 and the global random generators are afterwards what they were.

    Raises:
        NumericalError: a matrix could not be factorised.
        PluginError: anything else that failed inside SparseML, by its own words.
    """
    with ExitStack() as stack, redirect_stdout(io.StringIO()):  # it prints what it could not import
        stack.enter_context(kept_environment(NM_DISABLE_ANALYTICS="1"))
        for kept in (_loggers, kept_generators, _precision, warnings.catch_warnings):
            stack.enter_context(kept())
        warnings.simplefilter("ignore")
        try:
            import sparseml  # noqa: F401 - sets the level of its logger, which is to be set anew

            logging.getLogger("sparseml").setLevel(logging.ERROR)
            yield
        except HarnessExtError:
            raise
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise NumericalError(f"SparseML cannot factorise the Hessian ({one_line(error, whole=True)})") from error
        except Exception as error:
            raise PluginError(f"SparseML {version()} failed: {type(error).__name__}: {one_line(error, whole=True)}") from error


@contextmanager
def _loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, list(logger.handlers), logger.propagate) for logger in loggers]
    for name in FILE_LOGGERS:  # SparseML opens a file where it finds no file handler
        logging.getLogger(name).addHandler(logging.FileHandler(os.devnull, delay=True))
    try:
        yield
    finally:
        for logger, (level, handlers, propagate) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.handlers[:] = handlers
            logger.propagate = propagate


@contextmanager
def _precision() -> Iterator[None]:
    """Turns TF32 off within the context. SparseML does so once, at its import."""
    backends: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed
