"""Has an allocation spread the sparsity over the layers, rounds its ratios to patterns, and checks what they add up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from harness_ext.errors import BadOptionError, PluginError, did_you_mean, shown
from harness_ext.method.allocation import Allocation
from harness_ext.method.pruner import ModelPruner, PruningMethod
from harness_ext.method.shapes import LayerShape
from harness_ext.method.sparsity import Sparsity, rounding_slack

UNIFORM = "uniform"  # the allocation of pruners that treat the model as a whole


def check_allocation(allocation: Allocation, pruner: PruningMethod, sparsity: Sparsity) -> None:
    """What can be checked before any weight is loaded.

    Raises:
        PluginError: the allocation breaks its contract.
        BadOptionError: it does not go with the pruner or the sparsity, or refuses what it was given itself.
    """
    allocation.check_class()
    _check_together(allocation, pruner, sparsity)
    allocation.check(pruner)


def allocate(
    allocation: Allocation, pruner: PruningMethod, sparsity: Sparsity, layers: Sequence[LayerShape], measured: Mapping[int, Any]
) -> dict[str, Sparsity]:
    """The sparsity of each layer, by its name, in the order of the layers.

    Where ``sparsity`` is a pattern ``n:m``, a layer's ratio becomes a pattern of the same ``m``. First, all ``n`` are rounded down. Then
    they are raised by one, largest remainder first, where that brings the total nearer to what was asked for. Some ``n`` are raised by more
    than one if many others are at ``m - 1``: while the total is missed by more than half a step of the largest layer. A layer whose ``n``
    is 0 stays dense.

    What was asked for may be removed of all layers together, or of those that do not get 0: an allocation may leave layers out. Where both
    are within rounding, as with a few small layers, the nearer one is meant.

    Args:
        layers: all layers to be pruned, in the order of the model; at least one.
        measured: what ``allocation.measure`` returned, by the number of the block.

    Raises:
        BadOptionError: as :func:`check_allocation`, or a pattern whose ``m`` does not divide the inputs of a layer.
        PluginError: the allocation did not return a sparsity for each layer, or they add up to something else than was asked for.
    """
    _check_together(allocation, pruner, sparsity)
    allocated = _check_result(allocation, allocation.spread(sparsity, layers, measured), sparsity, layers)
    kept = [layer for layer in layers if not _is_zero(allocated[layer.name])]
    if 0 < len(kept) < len(layers) and _is_total(allocated, sparsity, kept) and _is_nearer(allocated, sparsity, kept, layers):
        spread = _spread(allocation, {layer.name: allocated[layer.name] for layer in kept}, sparsity, kept)
        return {layer.name: spread.get(layer.name, Sparsity(0.0)) for layer in layers}
    return _spread(allocation, allocated, sparsity, layers)


def _spread(
    allocation: Allocation, spread: Mapping[str, float | Sparsity], sparsity: Sparsity, layers: Sequence[LayerShape]
) -> dict[str, Sparsity]:
    """The sparsities of layers that are to lose together what was asked for."""
    _check_divisibility(spread, sparsity, layers)
    if sparsity.pattern is None:
        sparsities = {name: value if isinstance(value, Sparsity) else Sparsity(value) for name, value in spread.items()}
        _check_total(allocation, sum(sparsities[layer.name].removed_of(layer.size) for layer in layers), sparsity, layers)
        return sparsities
    _check_total(allocation, round(sum(_removed(spread[layer.name], layer.size) for layer in layers)), sparsity, layers)
    rounded = _round(spread, sparsity, sparsity.pattern[1], layers)
    step = max((layer.size / sparsity.pattern[1] for layer in layers if not isinstance(spread[layer.name], Sparsity)), default=0)
    _check_total(allocation, sum(rounded[layer.name].removed_of(layer.size) for layer in layers), sparsity, layers, step / 2)
    return rounded


def check_pattern(sparsity: Sparsity, layers: Sequence[LayerShape]) -> None:
    """Checks that a pattern divides the inputs of every layer.

    Raises:
        BadOptionError: it does not.
    """
    _check_divisibility(dict.fromkeys((layer.name for layer in layers), sparsity), sparsity, layers)


def _check_together(allocation: Allocation, pruner: PruningMethod, sparsity: Sparsity) -> None:
    if isinstance(pruner, ModelPruner) and allocation.name != UNIFORM:
        raise BadOptionError(
            f"allocation={allocation.name!r}: pruner {pruner.name!r} treats the model as a whole and takes no allocation but {UNIFORM!r}"
        )
    if sparsity.pattern and not allocation.patterns:
        raise BadOptionError(
            f"sparsity={sparsity}: allocation {allocation.name!r} cannot spread a pattern: want a ratio such as {sparsity.ratio:g}"
        )


def _check_result(allocation: Allocation, result: Any, sparsity: Sparsity, layers: Sequence[LayerShape]) -> dict[str, float | Sparsity]:
    """What ``spread`` returned, in the order of the layers."""
    blame = f"allocation {allocation.name!r} broke its contract"
    if not isinstance(result, Mapping):
        raise PluginError(f"{blame}: want a mapping from the names of the layers, not {type(result).__name__}")
    names = [layer.name for layer in layers]
    if others := [name for name in result if name not in set(names)]:
        raise PluginError(f"{blame}: {others[0]!r} is not a layer to be pruned.{did_you_mean(str(others[0]), names)}")
    if missing := [name for name in names if name not in result]:
        raise PluginError(f"{blame}: {len(missing)} of {len(names)} layers have no sparsity, the first is {missing[0]!r}")
    for name in names:
        value = result[name]
        if not isinstance(value, Sparsity) and (not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) < 1):
            raise PluginError(f"{blame}: want for {name} a ratio in [0, 1) or a harness_ext.Sparsity, not {shown(value)}")
        if sparsity.pattern and isinstance(value, Sparsity) and value.ratio > 0 and not value.pattern:
            raise PluginError(
                f"{blame}: sparsity={sparsity} is a pattern, and the Sparsity of {name} is the plain ratio {value}: "
                f"want a pattern such as {sparsity}, or the ratio as a number, which is rounded to one"
            )
    return {name: value if isinstance(value := result[name], Sparsity) else float(value) for name in names}


def _check_divisibility(spread: Mapping[str, float | Sparsity], sparsity: Sparsity, layers: Sequence[LayerShape]) -> None:
    for layer in layers:
        value = spread[layer.name]
        chosen = value if isinstance(value, Sparsity) else sparsity
        if chosen.pattern and layer.columns % chosen.pattern[1]:
            raise BadOptionError(f"sparsity={chosen}: {layer.name} has {layer.columns} inputs, which {chosen.pattern[1]} does not divide")


def _is_zero(value: float | Sparsity) -> bool:
    return (value.ratio if isinstance(value, Sparsity) else value) == 0


def _is_total(spread: Mapping[str, float | Sparsity], sparsity: Sparsity, layers: Sequence[LayerShape]) -> bool:
    """Whether layers lose together what was asked for of them, before ratios are rounded to patterns."""
    return _missed(spread, sparsity, layers) <= rounding_slack(len(layers), sum(sparsity.removed_of(layer.size) for layer in layers))


def _is_nearer(
    spread: Mapping[str, float | Sparsity], sparsity: Sparsity, kept: Sequence[LayerShape], layers: Sequence[LayerShape]
) -> bool:
    """Whether what is removed is nearer to what was asked for of some layers than to that of all."""
    return _missed(spread, sparsity, kept) < _missed(spread, sparsity, layers)


def _missed(spread: Mapping[str, float | Sparsity], sparsity: Sparsity, layers: Sequence[LayerShape]) -> int:
    """By how many weights the layers miss together what was asked for of them."""
    removed = round(sum(_removed(spread[layer.name], layer.size) for layer in layers))
    return abs(removed - sum(sparsity.removed_of(layer.size) for layer in layers))


def _check_total(allocation: Allocation, removed: int, sparsity: Sparsity, layers: Sequence[LayerShape], more: float = 0) -> None:
    asked = sum(sparsity.removed_of(layer.size) for layer in layers)
    if abs(removed - asked) > rounding_slack(len(layers), asked) + more:
        raise PluginError(f"allocation {allocation.name!r}: the layers add up to {removed} weights to remove, {asked} were asked for")


def _removed(value: float | Sparsity, size: int) -> float:
    return value.removed_of(size) if isinstance(value, Sparsity) else value * size


def _round(spread: Mapping[str, float | Sparsity], sparsity: Sparsity, m: int, layers: Sequence[LayerShape]) -> dict[str, Sparsity]:
    """Ratios as patterns of ``m``; what is a Sparsity already stays as it is."""
    ratios = {name: value for name, value in spread.items() if not isinstance(value, Sparsity)}
    steps = {layer.name: layer.size // m for layer in layers if layer.name in ratios}
    zeros = {name: Sparsity(ratio).removed_of(m) for name, ratio in ratios.items()}
    fixed = sum(value.removed_of(layer.size) for layer in layers if isinstance(value := spread[layer.name], Sparsity))
    missing = sum(sparsity.removed_of(layer.size) for layer in layers) - fixed - sum(zeros[name] * steps[name] for name in ratios)
    _add_missing(zeros, ratios, steps, m, missing)
    return {name: value if isinstance(value, Sparsity) else _pattern(zeros[name], m) for name, value in spread.items()}


def _add_missing(zeros: dict[str, int], ratios: Mapping[str, float], steps: Mapping[str, int], m: int, missing: int) -> None:
    """Adds zeros to patterns of ``m`` by the largest remainders, while that brings the total nearer to what was asked for.

    Args:
        zeros: of the pattern of each layer; is changed.
        ratios: which the patterns replace.
        steps: how many weights one more zero removes.
        missing: how many weights are still to be removed.
    """
    largest = max(steps.values(), default=0)
    before = None
    while missing != before and (before is None or missing > largest / 2):  # one round is enough, unless layers are at m - 1
        before = missing
        for name in sorted(zeros, key=lambda name: zeros[name] - ratios[name] * m):  # a stable sort: equal ones by position
            step = steps[name]
            if zeros[name] < m - 1 and abs(missing - step) < abs(missing):
                zeros[name] += 1
                missing -= step


def _pattern(n: int, m: int) -> Sparsity:
    return Sparsity(n / m, (n, m)) if n else Sparsity(0.0)
