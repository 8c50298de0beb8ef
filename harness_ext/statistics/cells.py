"""The cells of a grid of sparsities: in which of them a score crosses a threshold, and where to measure next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness_ext.statistics.checks import Array
from harness_ext.statistics.curves import isotonic

Cell = tuple[float, float | None]  # two neighbours of the grid; None: beyond the last sparsity

NARROWEST = 0.01  # a cell that is no wider is not halved
TINY = 1e-9  # two mean scores that differ by less are the same but for rounding


def cells(sparsities: Array) -> list[Cell]:
    """All cells of a grid, the last one from the largest sparsity on."""
    grid = sparsities.tolist()
    return list(zip(grid, [*grid[1:], None], strict=True))


def crossing(sparsities: Array, scores: Array, drop: float) -> tuple[float | None, Cell]:
    """Where the monotone fit falls below ``1 - drop`` of the dense score.

    The dense score is the measured one, not the fitted one: the fit at 0 can only be above it.

    Args:
        sparsities: [sparsities], rising from 0.
        scores: [sparsities], the measured mean scores; the dense score is above 0.

    Returns:
        the sparsity, with the fit taken to be straight between the measured sparsities (None: not within the grid), and its cell.
    """
    fitted = isotonic(scores)
    threshold = (1 - drop) * scores[0]
    before = int((fitted >= threshold - TINY).sum()) - 1  # the last sparsity at which the score is held
    low, high = cells(sparsities)[before]
    if high is None:
        return None, (low, high)
    share = (fitted[before] - threshold) / (fitted[before] - fitted[before + 1])
    return low + min(max(float(share), 0.0), 1.0) * (high - low), (low, high)


def cells_at_the_ends(sparsities: Array, intervals: Sequence[tuple[float, float]]) -> tuple[Cell, Cell]:
    """The first and the last cell of the grid in which a falling score may cross a threshold.

    From the dense model up, the score is held as long as its interval is at 0 or above: the first cell begins at the last sparsity of that
    walk. From the last sparsity down, the score is lost as long as its interval is below 0: the last cell ends at the last sparsity of
    that walk. No correction for the number of sparsities is due: each walk stops at the first interval that does not decide, so for a
    falling curve it is wrong only if the interval at one given sparsity is (Maurer, Hothorn and Lehmacher, 1995: a priori ordered tests).

    Args:
        sparsities: [sparsities], rising from 0.
        intervals: of the score less the threshold, at each sparsity but 0.
    """
    first = last = 0
    while first < len(intervals) and intervals[first][0] >= -TINY:
        first += 1
    last = len(intervals)
    while last > 0 and intervals[last - 1][1] < -TINY:
        last -= 1
    every = cells(sparsities)
    return every[first], every[last]


def midpoints(deciding: Iterable[Cell], narrowest: float = NARROWEST) -> tuple[float, ...]:
    """The midpoints of the cells that are wider than ``narrowest``, rising; a cell without an end ends at a sparsity of 1."""
    ends = [(low, 1.0 if high is None else high) for low, high in deciding]
    return tuple(sorted({round((low + high) / 2, 6) for low, high in ends if high - low > narrowest + TINY}))
