"""What there is to say about a method in one line: what it does, its paper, its options, and what it needs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from harness_ext.errors import HarnessExtError
from harness_ext.method.calibration import Calibration
from harness_ext.method.options import Configurable
from harness_ext.method.pruner import PruningMethod

ARXIV = re.compile(r"arxiv(?:\.org/abs/|\s*:?\s*)(\d{4}\.\d{4,5})", re.IGNORECASE)
LINK = re.compile(r"(?<![\w/.])(?:https?://)?((?:openreview\.net|doi\.org|aclanthology\.org|proceedings\.\w+\.\w+)/[^\s,;)]*[^\s,;).])")
DEPENDS = "depends on options"


@dataclass(frozen=True)
class Described:
    """A pruner, an allocation or a calibration source.

    Args:
        summary: the first sentence of its docstring.
        papers: links.
        options: defaults by name.
        calibration: ``yes``, ``no``, or ``depends on options``; None for a calibration source.
        missing: distributions in ``requires`` that are not installed.
    """

    name: str
    summary: str
    papers: tuple[str, ...]
    options: Mapping[str, Any]
    calibration: str | None
    missing: tuple[str, ...]


def describe(cls: type[Configurable]) -> Described:
    """Describes a method by its class."""
    text = " ".join((inspect.getdoc(cls) or "").split()) if "__doc__" in vars(cls) else ""
    summary = re.split(r"(?<=[^.])\.(?:\s|$)", text, maxsplit=1)[0].replace("``", "")
    return Described(cls.name, summary, papers(cls), cls.defaults(), _calibration(cls), missing(cls))


def papers(cls: type[Configurable]) -> tuple[str, ...]:
    """Links to the papers of a method: its attribute ``paper``, else those in the docstring of the class, else those of its module."""
    if cls.paper:
        return (cls.paper,)
    module = inspect.getmodule(cls)
    for text in (vars(cls).get("__doc__") or "", (module.__doc__ if module else "") or ""):
        found = [(match.start(), f"https://arxiv.org/abs/{match[1]}") for match in ARXIV.finditer(text)]
        found += [(match.start(), f"https://{match[1]}") for match in LINK.finditer(text)]
        if found:
            return tuple(dict.fromkeys(link for _, link in sorted(found)))
    return ()


def missing(cls: type[Configurable]) -> tuple[str, ...]:
    """The distributions that a method requires and that are not installed."""
    absent = []
    for name in cls.requires:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            absent.append(name)
    return tuple(absent)


def _calibration(cls: type[Configurable]) -> str | None:
    if issubclass(cls, Calibration):
        return None
    if not issubclass(cls, PruningMethod):
        measures = vars(cls).get("measures")
        return DEPENDS if measures else "yes" if getattr(cls, "statistic", None) is not None else "no"
    try:
        return "yes" if cls.from_options({}).needs_calibration() else "no"
    except HarnessExtError:  # an option has to be given, or a library is missing
        own = [vars(base) for base in cls.__mro__ if base.__module__ != PruningMethod.__module__]
        if any(name in names for names in own for name in ("measures", "needs_calibration")):
            return DEPENDS
        return "yes" if getattr(cls, "calibrated", cls.statistic is not None) else "no"
