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
        fields: dict[str, Any] = plain(asdict(self))
        return fields


@dataclass(frozen=True)
class Estimate(Result):
    """A value and its confidence interval.

    Args:
        low, high: the ends; None where there is none: only the retained fraction of a dense score near chance has none.
        method: how the interval was made, in words.
        caveat: what the interval does not hold, or None; see ``caveat_of_two``.
    """

    value: float
    low: float | None
    high: float | None
    level: float
    method: str
    caveat: str | None = None


def caveat_of_two(count: int, what: str = "calibration seeds") -> str | None:
    """What to say beside an interval over that many calibration seeds (or models), or None.

    With two of them, Student's t has one degree of freedom and needs normal values. Two values that are spread evenly lie close to each
    other too often. See docs/statistics.md for the simulation.
    """
    return f"over two {what}: a 95 % interval held the truth in 92 % of simulations; use three or more" if count == 2 else None


def bounded(value: float) -> float | None:
    """The number, or None for an infinite one."""
    return float(value) if math.isfinite(value) else None


def percent(share: float) -> str:
    """``5 %``, ``2.5 %``."""
    return f"{100 * share:.6g} %"
