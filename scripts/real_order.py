"""In what order abilities fail on the real model, and whether that is shown, after Holm's correction for all rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from real_scores import RECALL

from harness_ext.statistics import Curve, Disparity, disparity, holm, p_value

DROP = 0.05  # of the score corrected for chance, at which an ability fails
LEVEL = 0.05  # of corrected p-values


def order_rows(
    methods: Iterable[tuple[str, dict[str, Curve]]], abilities: Iterable[str], places: Callable[[Disparity], list[str]]
) -> list[list[str]]:
    """For each method and ability in context: where recall and the ability fail, p-values without and with correction, and what is shown.

    Args:
        methods: names, and a curve by ability. A method without recall or without an ability has no row for it.
        abilities: in context.
        places: where both fail, in words.
    """
    rows, p_values = [], []
    for method, measured in methods:
        for ability in abilities:
            if RECALL in measured and ability in measured:
                compare = partial(disparity, [measured[RECALL]], [measured[ability]], drop=DROP, corrected=True, names=(RECALL, ability))
                finding = compare()
                rows.append([method, ability, *places(finding), finding.finding.replace("in-context", ability)])
                p_values.append(p_value(lambda level, compare=compare: compare(level=level).shown))
    return [
        [*row[:-1], f"{p:.2g}", f"{corrected:.2g}", row[-1] if corrected <= LEVEL else "not shown"]
        for row, p, corrected in zip(rows, p_values, holm(p_values), strict=True)
    ]
