"""The errors that any module and any plugin may raise. Each message is one line: what was passed, the rule, and the nearest valid name.

HarnessExtError
 +-- BadOptionError             an option that does not exist, or a value out of its range (also a ValueError)
 |    +-- UnknownNameError      no pruner, calibration source or model of that name
 |    +-- MissingExtraError     a library of an extra that is not installed (also an ImportError)
 +-- PluginError                a plugin that does not load or breaks its contract
 +-- CalibrationError           calibration text that cannot be read or is too short
 +-- NumericalError             NaN or infinite values, or a matrix that cannot be factorised
 +-- UnsupportedModelError      a model that cannot be pruned block by block

Errors of one module are defined in it, such as WriteError in harness_ext.atomic.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

LONGEST = 200  # characters of what was passed, in a message


class HarnessExtError(Exception):
    """Base of all errors of this package."""


class BadOptionError(HarnessExtError, ValueError):
    """An option that does not exist, or a value out of its range."""


class UnknownNameError(BadOptionError):
    """No pruner, calibration source or model is registered under that name."""


class MissingExtraError(BadOptionError, ImportError):
    """A command or an option needs a library that is not installed, and that an extra of the distribution brings."""


class PluginError(HarnessExtError):
    """A plugin does not load, or breaks the contract of a hook."""


class CalibrationError(HarnessExtError):
    """Calibration text cannot be read, or is too short."""


class NumericalError(HarnessExtError):
    """NaN or infinite values in weights, activations or scores, or a matrix that cannot be factorised."""


class UnsupportedModelError(HarnessExtError):
    """A model that cannot be pruned decoder block by decoder block."""


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The nearest candidate, or None if none is near."""
    near = difflib.get_close_matches(name[:LONGEST], list(candidates), n=1, cutoff=0.6)
    return near[0] if near else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the nearest candidate, or nothing."""
    near = nearest(name, candidates)
    return f" Did you mean {near!r}?" if near is not None else ""


def shown(value: object) -> str:
    """The ``repr`` of a value for a message: at most 200 characters, the middle left out of longer ones.

    Examples:
        >>> from harness_ext import shown
        >>> f"sparsity={shown('half')}"
        "sparsity='half'"
        >>> len(shown("x" * 1000))
        200
    """
    writer = reprlib.Repr()
    writer.maxstring = writer.maxother = writer.maxlong = LONGEST
    return shortened(writer.repr(value))


def shortened(text: object) -> str:
    """A text, such as a path, for a message: one line of at most 200 characters, the middle left out of longer ones.

    Examples:
        >>> from harness_ext import shortened
        >>> shortened("two\\nlines")
        'two lines'
    """
    line = _joined(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2 - 3]} ... {line[-LONGEST // 2 + 2 :]}"


def one_line(error: BaseException, *, whole: bool = False) -> str:
    """The message of an error of another library, as one line; the name of the error if it has no message.

    Args:
        error: the error.
        whole: keep messages of more than 200 characters as they are.

    Examples:
        >>> from harness_ext import one_line
        >>> one_line(ValueError("bad value")), one_line(KeyError())
        ('bad value', 'KeyError')
        >>> len(one_line(ValueError("x" * 1000))), len(one_line(ValueError("x" * 1000), whole=True))
        (200, 1000)
    """
    return (_joined(error) if whole else shortened(error)) or type(error).__name__


def with_type(error: BaseException) -> str:
    """``TypeError: the message``, as one line, whole."""
    return f"{type(error).__name__}: {_joined(error)}"


def _joined(text: object) -> str:
    return " ".join(str(text).split())
