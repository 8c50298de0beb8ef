"""Checks that llm-compressor is installed, and runs it without output and without changes of global state."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib import import_module, metadata

from harness_ext import HarnessExtError, NumericalError, PluginError, kept_environment, kept_generators, one_line

INSTALL = "pip install 'lm-eval-pruned[llmcompressor]'"
SERIES = "0.14"
DISABLED, LEVEL = "LLM_COMPRESSOR_LOG_DISABLED", "LLM_COMPRESSOR_LOG_LEVEL"  # its own variables


def version() -> str:
    """The installed version of llm-compressor, or an empty text."""
    try:
        return metadata.version("llmcompressor")
    except metadata.PackageNotFoundError:
        return ""


def require() -> None:
    """Checks before any weight is loaded that llm-compressor can be used.

    Raises:
        PluginError: llm-compressor is not installed, or in another version, or cannot be imported.
    """
    found = version()
    if not found.startswith(f"{SERIES}."):
        instead = f"{found} is installed" if found else "it is not installed"
        raise PluginError(f"pruner 'llmcompressor' needs llm-compressor {SERIES}, and {instead}: {INSTALL}")
    try:
        _load()
    except Exception as error:  # whatever its imports run into beside other versions than its own
        reason = f"{type(error).__name__}: {one_line(error, whole=True)}"
        raise PluginError(f"llm-compressor {found} cannot be imported ({reason}): {INSTALL} in an environment of its own") from error


@contextmanager
def llmcompressor() -> Iterator[None]:
    """Around every use of llm-compressor: the environment and the global random generators are what they were afterwards, what it does is
    the same each time, and nothing is written to standard output.

    Raises:
        NumericalError: a Hessian could not be factorised; llm-compressor itself takes the identity for its inverse and goes on.
        PluginError: anything else that failed inside llm-compressor, in its own words.
    """
    with ExitStack() as stack:
        warnings = stack.enter_context(_warnings())
        stack.enter_context(kept_environment())
        stack.enter_context(kept_generators(seed=0))
        stack.enter_context(redirect_stdout(sys.stderr))
        try:
            yield
        except HarnessExtError:
            raise
        except Exception as error:
            raise PluginError(f"llm-compressor {version()} failed: {type(error).__name__}: {one_line(error, whole=True)}") from error
    if failed := [message for message in warnings if "invert hessian" in message]:
        raise NumericalError(
            f"llm-compressor could not factorise {len(failed)} Hessians and went on without them: raise the dampening_frac of SparseGPT, "
            "or give it more calibration tokens"
        )


def _load() -> None:
    """Imports it. At its first import it would put a log on standard output, unless the user has said what it should log."""
    first = "llmcompressor" not in sys.modules
    with kept_environment(), redirect_stdout(sys.stderr):
        os.environ.setdefault(LEVEL, "ERROR")
        import_module("llmcompressor.modifiers.pruning")
    if first:
        from llmcompressor.logger import LoggerConfig, configure_logger

        configure_logger(LoggerConfig(console_log_level=None))


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collects the warnings that are logged within the context."""
    from loguru import logger

    messages: list[str] = []
    disabled = os.environ.get(DISABLED, "").lower() == "true"
    logger.enable("llmcompressor")
    sink = logger.add(lambda message: messages.append(str(message)), level="WARNING", format="{message}")
    try:
        yield messages
    finally:
        logger.remove(sink)
        if disabled:
            logger.disable("llmcompressor")
