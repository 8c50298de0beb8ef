"""How much to remove: a ratio of the weights, or n of every m consecutive inputs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch

from harness_ext.errors import BadOptionError, NumericalError, shown

Group = Literal["row", "matrix"]
FEW_ROWS = 32  # up to here a device other than the CPU sorts rows; with more of them, selecting in all at once keeps it busy


@dataclass(frozen=True)
class Sparsity:
    """A ratio in [0, 1) of weights to remove, or an ``n:m`` pattern: ``n`` zeros in every ``m`` consecutive inputs of a row.

    ``n`` counts zeros, as in Wanda and SparseGPT. ALPS and hardware vendors count the weights that are kept; 2:4 is the same in both.

    Raises:
        BadOptionError: a ratio outside [0, 1), an ``n`` outside 1 to ``m - 1``, or a ratio that is not that of the pattern.

    Examples:
        >>> import torch
        >>> from harness_ext import Sparsity
        >>> Sparsity(0.7).removed_of(10), Sparsity.parse("2:4").removed_of(12)
        (7, 6)
        >>> scores = torch.tensor([[4.0, 1.0, 3.0, 2.0], [8.0, 7.0, 6.0, 5.0]])
        >>> Sparsity(0.5).mask(scores)
        tensor([[ True,  True,  True,  True],
                [False, False, False, False]])
        >>> Sparsity(0.5).mask(scores, per="row")
        tensor([[False,  True, False,  True],
                [False, False,  True,  True]])
        >>> Sparsity.parse("1:2").mask(scores)
        tensor([[False,  True, False,  True],
                [False,  True, False,  True]])
    """

    ratio: float
    """The share of weights to remove, in [0, 1)."""
    pattern: tuple[int, int] | None = None
    """``(n, m)``, or None for a ratio."""

    def __post_init__(self) -> None:
        if self.pattern is None:
            if not 0 <= self.ratio < 1:
                raise BadOptionError(f"sparsity={shown(self.ratio)}: want a ratio in [0, 1) such as 0.7, or a pattern such as 2:4")
        elif not 0 < self.pattern[0] < self.pattern[1]:
            raise BadOptionError(f"sparsity={self}: in n:m, n zeros of every m weights, n must be between 1 and m - 1")
        elif self.ratio != self.pattern[0] / self.pattern[1]:
            raise BadOptionError(
                f"sparsity={self}: the ratio of this pattern is {self.pattern[0] / self.pattern[1]:g}, not {shown(self.ratio)}"
            )

    @classmethod
    def parse(cls, value: Sparsity | float | str) -> Sparsity:
        """Reads a ratio, or a text such as ``0.7`` or ``2:4``.

        Raises:
            BadOptionError: anything else, also 124, which YAML makes of an unquoted 2:4.
        """
        if isinstance(value, Sparsity):
            return value
        if isinstance(value, str):
            if match := re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", value):
                n, m = int(match[1]), int(match[2])
                return cls(n / m if m else 0.0, (n, m))
            try:
                value = float(value)
            except ValueError:
                raise BadOptionError(f"sparsity={shown(value)}: want a ratio in [0, 1) such as 0.7, or a pattern such as 2:4") from None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BadOptionError(f"sparsity={shown(value)}: want a ratio in [0, 1) such as 0.7, or a pattern such as 2:4")
        if value >= 1:
            percent = f"; for {value:g} percent say {value / 100:g}" if 1 < value < 100 else ""
            n, m = divmod(value, 60) if isinstance(value, int) else (0, 0)
            yaml = f". YAML reads an unquoted {n}:{m} as the base-60 number {value}: quote it" if 0 < n < m else ""
            raise BadOptionError(f"sparsity={shown(value)}: want a ratio in [0, 1) such as 0.7, or a pattern such as 2:4{percent}{yaml}")
        return cls(float(value))

    def __str__(self) -> str:
        if self.pattern:
            return f"{self.pattern[0]}:{self.pattern[1]}"
        short = f"{self.ratio:g}"
        return short if float(short) == self.ratio else repr(float(self.ratio))

    @property
    def exact(self) -> Fraction:
        """The ratio as the fraction that its decimal number stands for: 7/10 for 0.7."""
        return decimal_fraction(self.ratio)

    def removed_of(self, size: int) -> int:
        """The number of weights to remove from a group of ``size``: exactly ``floor(ratio * size)`` in decimal arithmetic."""
        return math.floor(self.exact * size) if self.pattern is None else size // self.pattern[1] * self.pattern[0]

    def mask(self, scores: torch.Tensor, per: Group = "matrix") -> torch.Tensor:
        """Selects the weights with the lowest scores.

        Args:
            scores: [out_features, in_features], any floating dtype. Weights with larger scores are kept; of equal scores the first go.
            per: the group in which scores are compared. A pattern compares the ``m`` weights of each group.

        Returns:
            bool tensor of the same shape, true for weights to remove.

        Raises:
            BadOptionError: a pattern whose ``m`` does not divide the row, or ``per`` is neither.
            NumericalError: a score is NaN.
        """
        if scores.isnan().any():
            raise NumericalError("scores are NaN")
        if self.pattern is not None:
            self.check_row(scores.shape[1])
            groups = scores.reshape(-1, self.pattern[1])
        elif per == "row":
            groups = scores
        elif per == "matrix":
            groups = scores.reshape(1, -1)
        else:
            raise BadOptionError(f"per={shown(per)}: want row or matrix")
        return lowest(groups, self.removed_of(groups.shape[1])).view(scores.shape)

    def check_row(self, weights: int) -> None:
        """Checks that a row of ``weights`` weights can be cut into the groups of a pattern.

        Raises:
            BadOptionError: ``m`` does not divide ``weights``.
        """
        if self.pattern is not None and weights % self.pattern[1]:
            raise BadOptionError(f"sparsity={self}: a row of {weights} weights cannot be cut into groups of {self.pattern[1]}")


def decimal_fraction(number: float) -> Fraction:
    """The fraction that a decimal number stands for: 7/10 for 0.7, which the nearest float is not.

    Examples:
        >>> from harness_ext import decimal_fraction
        >>> decimal_fraction(0.7)
        Fraction(7, 10)
    """
    return Fraction(repr(float(number)))


def rounding_slack(layers: int, asked: int) -> float:
    """How many weights the zeros of all layers together may differ from ``asked``: one for each layer, or a thousandth of ``asked``."""
    return max(layers, 0.001 * asked)


def lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Marks the ``count`` lowest scores of every row. Of equal scores the first are marked.

    Args:
        scores: [rows, size], any floating dtype, no NaN.
        count: how many to mark in each row, from 0 to ``size``.

    Returns:
        bool tensor of the same shape.
    """
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = _kth_lowest(scores, count, sort=scores.device.type != "cpu" and len(scores) <= FEW_ROWS)
    below, ties = scores < threshold, scores == threshold
    missing = count - below.sum(1, keepdim=True)
    # On a CPU a look is cheaper than a cumulative sum; elsewhere it would wait for the device.
    if scores.device.type != "cpu" or (ties.sum(1, keepdim=True) != missing).any():
        ties &= ties.cumsum(1) <= missing
    return below | ties


def _kth_lowest(scores: torch.Tensor, count: int, *, sort: bool) -> torch.Tensor:
    """The ``count``-th lowest score of every row, counted from 1: [rows, 1].

    Args:
        sort: whether to sort the rows, which takes memory for a copy of them and as many indices. On a CUDA device ``kthvalue`` gives each
            row to one multiprocessor: a row of 1.4 million scores took it 7.15 ms on an H100, and a sort 0.18 ms.
    """
    return scores.sort(dim=1).values[:, count - 1 : count] if sort else scores.kthvalue(count, dim=1, keepdim=True).values
