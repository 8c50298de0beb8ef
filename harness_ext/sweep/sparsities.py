"""Reads the sparsities of a sweep: ratios, patterns and ranges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation

from harness_ext.errors import BadOptionError, shown
from harness_ext.method.sparsity import Sparsity

MOST_OF_A_RANGE = 1000
NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+\."


def parse_sparsities(values: Iterable[str | int | float]) -> tuple[Sparsity, ...]:
    """Ratios, ``n:m`` patterns and ranges ``start:stop:step``, which hold their end, in texts that may join several with commas.

    Raises:
        BadOptionError: anything else, or a value that is given twice.
    """
    sparsities: list[Sparsity] = []
    for value in values:
        if not isinstance(value, str):
            sparsities.append(Sparsity.parse(value))
            continue
        for part in value.split(","):
            sparsities += _range(part) if part.count(":") == 2 else [_single(part, value)]
    refuse_twice("--sparsity", [str(sparsity) for sparsity in sparsities])
    return tuple(sparsities)


def refuse_twice(option: str, values: Sequence[str]) -> None:
    """Refuses a list with a value that it has twice.

    Raises:
        BadOptionError: names the first such value.
    """
    for index, value in enumerate(values):
        if value in values[:index]:
            raise BadOptionError(f"{option}: {value} is given twice")


def _single(part: str, whole: str) -> Sparsity:
    if not re.fullmatch(rf"{NUMBER}|\d+:\d+", part.strip()):
        within = f" in {shown(whole)}" if part != whole else ""
        raise BadOptionError(
            f"--sparsity {shown(part.strip())}{within}: want a ratio such as 0.5, a pattern such as 2:4, or start:stop:step such as "
            "0:0.9:0.1"
        )
    return Sparsity.parse(part.strip())


def _range(part: str) -> list[Sparsity]:
    """In decimal arithmetic: 0:0.9:0.1 has 0.3 in it, and 0.9."""
    try:
        start, stop, step = (Decimal(text.strip()) for text in part.split(":"))
    except InvalidOperation:
        raise BadOptionError(f"--sparsity {shown(part)}: want three numbers in start:stop:step, such as 0:0.9:0.1") from None
    if not (start.is_finite() and stop.is_finite() and step.is_finite()):
        raise BadOptionError(f"--sparsity {shown(part)}: want three numbers in start:stop:step, such as 0:0.9:0.1")
    if step <= 0 or stop < start:
        raise BadOptionError(f"--sparsity {shown(part)}: in start:stop:step the step must be above 0, and the stop at or above the start")
    count = int((stop - start) / step) + 1
    if count > MOST_OF_A_RANGE:
        raise BadOptionError(f"--sparsity {shown(part)}: {count} values, the most is {MOST_OF_A_RANGE}: want a larger step")
    return [Sparsity.parse(float(start + step * index)) for index in range(count)]
