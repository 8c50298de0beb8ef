"""Chooses how many heads and channels to remove for a given share of the linear weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from harness_ext import BadOptionError, Sparsity, decimal_fraction
from harness_ext_pruners.backbone import nearest_integer
from harness_ext_pruners.families import Part


def nearest(who: str, sparsity: Sparsity, shares: Sequence[Fraction], made: Callable[[int], str], tolerance: float) -> int:
    """Which of the shares of the weights that can be removed is nearest to the ratio asked for; of two equally near ones the larger.

    Args:
        who: the pruner and what it removes, for errors.
        shares: above 0 and below 1.
        made: what a share is made of, such as ``1 of 4 blocks``.

    Raises:
        BadOptionError: the ratio is nearer to nothing or to everything, or further away than ``tolerance``. Names the nearest share.
    """
    ratio = sparsity.exact
    best = min(range(len(shares)), key=lambda index: (abs(shares[index] - ratio), -shares[index]))
    miss = abs(shares[best] - ratio)
    where = f"the nearest is {float(shares[best]):.6g}, {made(best)}"
    if ratio < miss or 1 - ratio <= miss:
        raise BadOptionError(f"sparsity={sparsity}: {who}, and this ratio rounds to {'none' if ratio < miss else 'all'} of them; {where}")
    if miss > decimal_fraction(tolerance):
        raise BadOptionError(f"sparsity={sparsity}: {who}; {where}, which is not within pruner.tolerance={tolerance:g}")
    return best


def choose(sparsity: Sparsity, parts: Sequence[Part], allowed: Sequence[Sequence[int]], total: int, tolerance: float) -> list[int]:
    """The number of units of each part to remove from every block.

    Heads go at the allowed ratio nearest to the one asked for from which channels, where they may go, can reach it to half a channel. If
    there is none, the nearest share of the weights counts.

    Args:
        parts: heads, channels, or both in this order.
        allowed: for each part, how many units may stay.
        total: selected linear weights of a block.
        tolerance: how far the share of the weights may be from the ratio.

    Raises:
        BadOptionError: as :func:`nearest`.
    """
    ratio = sparsity.exact
    channels = _part(parts, "channels")
    options = _options(ratio, _part(parts, "heads"), channels, allowed, total)
    if not options:
        raise BadOptionError(f"sparsity={sparsity}: pruner 'width' leaves at least one of {parts[0].units} {parts[0].title} in every block")
    shares = [Fraction(sum(part.weights * count for part, count in zip(parts, option, strict=True)), total) for option in options]
    half = Fraction(channels.weights, total) / 2 if channels else Fraction(0)
    for option, share in zip(options, shares, strict=True):
        if channels and abs(share - ratio) <= min(half, decimal_fraction(tolerance)):
            return list(option)

    def made(index: int) -> str:
        counts = " and ".join(f"{count} of {part.units} {part.title}" for part, count in zip(parts, options[index], strict=True))
        return f"{counts} in every block"

    return list(options[nearest("pruner 'width' takes whole heads and channels out", sparsity, shares, made, tolerance)])


def _part(parts: Sequence[Part], title: str) -> Part | None:
    return next((part for part in parts if part.title == title), None)


def _options(
    ratio: Fraction, heads: Part | None, channels: Part | None, allowed: Sequence[Sequence[int]], total: int
) -> list[tuple[int, ...]]:
    """The numbers of units to remove that come into question, those with the ratio of heads nearest to ``ratio`` first.

    Args:
        allowed: as for :func:`choose`.
        total: as for :func:`choose`.
    """
    if heads is None:
        counts = [0]
    else:
        removable = (heads.units - units for units in allowed[0])
        counts = sorted(removable, key=lambda count: (abs(Fraction(count, heads.units) - ratio), count))
    options: list[tuple[int, ...]] = []
    for count in counts:
        of_heads = (count,) if heads else ()
        if channels is None:
            options.append(of_heads)
            continue
        left = ratio * total - (count * heads.weights if heads else 0)
        best = nearest_integer(left / channels.weights)
        options += [(*of_heads, min(max(best, least), channels.units - 1)) for least in (0, 1)]
    return [option for option in options if any(option)]
