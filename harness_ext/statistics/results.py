"""What the results of this package have in common."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from harness_ext.statistics.checks import plain


@dataclass(frozen=True)
class Result:
    """A result: a frozen dataclass that ``to_dict`` makes ready for JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, in plain Python types; there is no NaN or infinity among them: what is not known is None."""
        found: dict[str, Any] = plain(asdict(self))
        return found


@dataclass(frozen=True)
class Estimate(Result):
    """A value and its confidence interval.

    Args:
        low, high: the ends; None where there is none, which only the retained fraction of a dense score near chance comes to.
        method: how the interval was made, in words.
    """

    value: float
    low: float | None
    high: float | None
    level: float
    method: str


def bounded(value: float) -> float | None:
    """The number, or None for an infinite one."""
    return float(value) if math.isfinite(value) else None


def percent(share: float) -> str:
    """``5 %``, ``2.5 %``."""
    return f"{100 * share:.6g} %"
