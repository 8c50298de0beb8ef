"""What a sweep is asked for, and the list of trials that this makes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from harness_ext.engine.plan import Plan, take_plan
from harness_ext.errors import BadOptionError, did_you_mean
from harness_ext.method.sparsity import Sparsity
from harness_ext.plugins import Plugins, Registry

MOST_OF_A_RANGE = 1000
OF_THE_MODEL = ("dtype", "revision", "trust_remote_code")
NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+\."


@dataclass(frozen=True)
class Sweep:
    """All that was asked for; every list field is one factor of the grid."""

    tasks: tuple[str, ...]
    pretrained: tuple[str, ...]
    sparsity: tuple[Sparsity, ...]
    pruner: tuple[str, ...] = ("sparsegpt",)
    allocation: tuple[str, ...] = ("uniform",)
    modules: tuple[str, ...] = ("all",)
    calibration: tuple[str, ...] = ("self",)
    seeds: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """By dotted name, such as ``pruner.block_size``; each goes to those methods that take it."""
    precision: str = "float32"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    limit: float | None = None
    batch_size: str | None = None
    device: str | None = None
    dtype: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    include_path: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrialSpec:
    """One model, pruned in one way or dense.

    Args:
        arguments: what ``lm_eval --model pruned-hf --model_args`` would be given.
        plan: what they mean.
    """

    arguments: Mapping[str, Any]
    plan: Plan

    @property
    def pretrained(self) -> str:
        return str(self.arguments["pretrained"])

    @property
    def is_dense(self) -> bool:
        return self.plan.sparsity.ratio == 0

    def __str__(self) -> str:
        if self.is_dense:
            return f"{self.pretrained} dense"
        parts = [self.pretrained, self.plan.pruner.name, str(self.plan.sparsity)]
        parts += [str(self.arguments[name]) for name in ("allocation", "modules", "calibration") if name in self.arguments]
        parts += [f"seed {self.arguments['calibration.seed']}"] if "calibration.seed" in self.arguments else []
        return " ".join(parts)


def parse_sparsities(values: Iterable[str | int | float]) -> tuple[Sparsity, ...]:
    """Ratios, ``n:m`` patterns and ranges ``start:stop:step``, which hold their end, in texts that may join several with commas.

    Raises:
        BadOptionError: anything else, or a value that is given twice.
    """
    found: list[Sparsity] = []
    for value in values:
        if not isinstance(value, str):
            found.append(Sparsity.parse(value))
            continue
        for part in value.split(","):
            found += _range(part) if part.count(":") == 2 else [_single(part, value)]
    _refuse_twice("sparsity", [str(sparsity) for sparsity in found])
    return tuple(found)


def _single(part: str, whole: str) -> Sparsity:
    if not re.fullmatch(rf"{NUMBER}|\d+:\d+", part.strip()):
        within = f" in {whole!r}" if part != whole else ""
        raise BadOptionError(
            f"--sparsity {part.strip()!r}{within}: want a ratio such as 0.5, a pattern such as 2:4, or start:stop:step such as 0:0.9:0.1"
        )
    return Sparsity.parse(part.strip())


def _range(part: str) -> list[Sparsity]:
    """In decimal arithmetic: 0:0.9:0.1 has 0.3 in it, and 0.9."""
    try:
        start, stop, step = (Decimal(text.strip()) for text in part.split(":"))
    except InvalidOperation:
        raise BadOptionError(f"--sparsity {part!r}: want three numbers in start:stop:step, such as 0:0.9:0.1") from None
    if not (start.is_finite() and stop.is_finite() and step.is_finite()):
        raise BadOptionError(f"--sparsity {part!r}: want three numbers in start:stop:step, such as 0:0.9:0.1")
    if step <= 0 or stop < start:
        raise BadOptionError(f"--sparsity {part!r}: in start:stop:step the step must be above 0, and the stop at or above the start")
    count = int((stop - start) / step) + 1
    if count > MOST_OF_A_RANGE:
        raise BadOptionError(f"--sparsity {part!r}: {count} values, the most is {MOST_OF_A_RANGE}: want a larger step")
    return [Sparsity.parse(float(start + step * index)) for index in range(count)]


def trials(sweep: Sweep, plugins: Plugins) -> list[TrialSpec]:
    """The trials in a fixed order, each checked in full; the dense one of each model comes first.

    A method that reads no calibration text has one trial, whatever the sources and seeds.

    Raises:
        BadOptionError: the grid is empty, a value is given twice, or a combination is one that cannot be.
    """
    for name in ("pretrained", "pruner", "allocation", "modules", "calibration", "seeds", "tasks"):
        values = [str(value) for value in getattr(sweep, name)]
        _refuse_twice(name, values)
        if not values and name != "seeds":
            raise BadOptionError(f"--{name}: nothing given, so that there is nothing to do: want at least one")
        if any(not value.strip() for value in values):
            raise BadOptionError(f"--{name}: an empty name in {','.join(values)!r}")
    if not sweep.sparsity:
        raise BadOptionError("--sparsity: nothing given, so that there is nothing to do: want for example 0:0.9:0.1")
    if sweep.seeds and "calibration.seed" in sweep.options:
        raise BadOptionError("calibration.seed is given twice: by --seeds and as an option")
    _check_options(sweep, plugins)
    found: dict[str, TrialSpec] = {}
    for pretrained in sweep.pretrained:
        for arguments in [{"sparsity": 0}, *_pruned(sweep, plugins)]:
            trial = _trial(sweep, plugins, {"pretrained": pretrained, **arguments})
            found.setdefault(json.dumps(dict(trial.arguments), sort_keys=True, default=str), trial)
    return list(found.values())


def _pruned(sweep: Sweep, plugins: Plugins) -> list[dict[str, Any]]:
    return [
        {
            "pruner": pruner,
            "sparsity": str(sparsity) if sparsity.pattern else sparsity.ratio,
            "modules": modules,
            "allocation": allocation,
            "calibration": calibration,
        }
        | ({"precision": sweep.precision} if sweep.precision != "float32" else {})
        | _options("pruner", plugins.pruners, pruner, sweep.options)
        | _options("allocation", plugins.allocations, allocation, sweep.options)
        | _options("calibration", plugins.calibrations, calibration, sweep.options)
        | ({"calibration.seed": seed} if seed is not None else {})
        for pruner in sweep.pruner
        for allocation in sweep.allocation
        for modules in sweep.modules
        for calibration in sweep.calibration
        for seed in (sweep.seeds or (None,))
        for sparsity in sweep.sparsity
        if sparsity.ratio > 0
    ]


def _trial(sweep: Sweep, plugins: Plugins, arguments: dict[str, Any]) -> TrialSpec:
    """Leaves out of the arguments what makes no difference."""
    plan = trial_from(arguments, plugins).plan
    if not plan.needs_calibration:
        arguments = {name: value for name, value in arguments.items() if name.partition(".")[0] != "calibration"}
    defaults = {"modules": "all", "allocation": "uniform"}
    kept = {name: value for name, value in arguments.items() if defaults.get(name) != value}
    for name in OF_THE_MODEL:
        if getattr(sweep, name):
            kept[name] = getattr(sweep, name)
    return TrialSpec(kept, plan)


def trial_from(arguments: Mapping[str, Any], plugins: Plugins) -> TrialSpec:
    """A trial from the arguments of another, as a worker gets them.

    Raises:
        BadOptionError: as :func:`harness_ext.engine.plan.take_plan`.
    """
    beside = ("pretrained", *OF_THE_MODEL)
    return TrialSpec(dict(arguments), take_plan(plugins, {name: value for name, value in arguments.items() if name not in beside}))


def _options(kind: str, registry: Registry[Any], name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of a kind that the method of that name takes."""
    takes = _takes(registry, name)
    return {key: value for key, value in options.items() if key.startswith(f"{kind}.") and key.removeprefix(f"{kind}.") in takes}


def _takes(registry: Registry[Any], name: str) -> Sequence[str]:
    found = registry.items.get(name) or registry.items.get({"calibration": "file", "allocation": "list"}.get(registry.kind, ""))
    return list(found[0].defaults()) if found else []


def _check_options(sweep: Sweep, plugins: Plugins) -> None:
    """Every option must be one that at least one of the methods takes."""
    for kind, registry, names in (
        ("pruner", plugins.pruners, sweep.pruner),
        ("allocation", plugins.allocations, sweep.allocation),
        ("calibration", plugins.calibrations, sweep.calibration),
    ):
        known = {option for name in names for option in _takes(registry, name)}
        for key in sweep.options:
            option = key.removeprefix(f"{kind}.")
            if key != option and option not in known and all(name in registry.items or kind != "pruner" for name in names):
                takes = ", ".join(sorted(known)) or "no options"
                raise BadOptionError(f"--option {key}: no {kind} of this sweep takes it.{did_you_mean(option, known)} They take: {takes}")


def _refuse_twice(name: str, values: Sequence[str]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise BadOptionError(f"--{name}: {value} is given twice")


def split(values: Iterable[Any]) -> tuple[str, ...]:
    """The names in texts that may join several with commas; a path that has a comma in its name and exists is left whole."""
    return tuple(part.strip() for value in values for part in ([str(value)] if Path(str(value)).exists() else str(value).split(",")))
