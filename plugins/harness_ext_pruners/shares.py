"""How many heads and channels make up a ratio of the linear weights."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from harness_ext import BadOptionError, Sparsity
from harness_ext_pruners.backbone import asked, nearest_integer
from harness_ext_pruners.families import Part


def choose(sparsity: Sparsity, parts: Sequence[Part], allowed: Sequence[Sequence[int]], total: int, blocks: int) -> list[int]:
    """The number of units of each part to remove from every block.

    Heads go at the allowed ratio nearest to the one asked for from which channels, where they may go, can reach it to half a channel.

    Args:
        parts: heads, channels, or both in this order.
        allowed: for each part, how many units may stay.
        total: selected linear weights of a block.
        blocks: heads alone may miss the ratio by half of a block's share.

    Raises:
        BadOptionError: nothing comes near enough; names the nearest ratio that can be had.
    """
    ratio = asked(sparsity)
    channels = parts[-1] if parts[-1].title == "channels" else None
    heads = parts[0] if parts[0].title == "heads" else None
    tolerance = Fraction(channels.weights, total) / 2 if channels else Fraction(1, 2 * blocks)
    removable = [heads.units - units for units in allowed[0]] if heads else [0]
    options: list[tuple[int, ...]] = []
    for gone in sorted(removable, key=lambda gone: (abs(Fraction(gone, heads.units) - ratio) if heads else 0, gone)):
        first = (gone,) if heads else ()
        if channels:
            best = nearest_integer((ratio * total - (gone * heads.weights if heads else 0)) / channels.weights)
            options += [(*first, min(max(best, least), channels.units - 1)) for least in (0, 1)]
        else:
            options.append(first)

    def share(option: tuple[int, ...]) -> Fraction:
        return Fraction(sum(part.weights * count for part, count in zip(parts, option, strict=True)), total)

    options = [option for option in options if any(option)]
    for option in options:
        if abs(share(option) - ratio) <= tolerance:
            return list(option)
    if not options:
        raise BadOptionError(f"sparsity={sparsity}: pruner 'width' leaves at least one of {parts[0].units} {parts[0].title} in every block")
    nearest = min(options, key=lambda option: abs(share(option) - ratio))
    made = " and ".join(f"{count} of {part.units} {part.title}" for part, count in zip(parts, nearest, strict=True))
    raise BadOptionError(
        f"sparsity={sparsity}: pruner 'width' cannot come near this ratio of the weights it was given; "
        f"the nearest is {float(share(nearest)):.6g}, {made} in every block"
    )
