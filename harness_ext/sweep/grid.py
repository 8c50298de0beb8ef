"""The trials that a sweep is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness_ext.engine.plan import ALLOCATION, PRECISION, Plan, take_plan
from harness_ext.errors import BadOptionError, did_you_mean, shortened
from harness_ext.method.quantizer import Quantizer
from harness_ext.plugins import Plugins, Registry
from harness_ext.sweep.fields import MODEL_FIELDS, Sweep

DEFAULTS = {"modules": "all", "allocation": ALLOCATION, "precision": PRECISION, "true_sequential": False}


@dataclass(frozen=True)
class TrialSpec:
    """One model, pruned or quantised in one way, or dense.

    Args:
        arguments: the model arguments, as ``lm_eval --model pruned-hf --model_args`` takes them.
        plan: the pruning that they ask for.
    """

    arguments: Mapping[str, Any]
    plan: Plan

    @property
    def pretrained(self) -> str:
        return str(self.arguments["pretrained"])

    @property
    def is_dense(self) -> bool:
        return not self.plan.changes

    def __str__(self) -> str:
        if self.is_dense:
            return f"{self.pretrained} dense"
        parts = [self.pretrained, self.plan.pruner.name, self.plan.amount.removeprefix("sparsity ")]
        parts += [str(self.arguments[name]) for name in ("allocation", "modules", "calibration") if name in self.arguments]
        parts += [f"seed {self.arguments['calibration.seed']}"] if "calibration.seed" in self.arguments else []
        parts += ["true_sequential"] if self.plan.true_sequential else []
        return " ".join(parts)


def trials(sweep: Sweep, plugins: Plugins) -> list[TrialSpec]:
    """The trials in a fixed order, each checked in full. The dense trial of each model comes first.

    A pruner that reads no calibration text has one trial for all calibration sources and seeds. A pruner that measures no layer has one
    trial with and without ``true_sequential``. A pruner that is not a quantizer has one trial for all bits. Where nothing is removed,
    there is one trial for all allocations.

    Raises:
        BadOptionError: an option that no method takes, or a combination that is impossible.
    """
    _check_options(sweep, plugins)
    _check_bits(sweep, plugins)
    by_arguments: dict[str, TrialSpec] = {}
    for pretrained in sweep.pretrained:
        for arguments in [{"sparsity": 0}, *_pruned(sweep, plugins)]:
            trial = _trial(sweep, plugins, {"pretrained": pretrained, **arguments})
            by_arguments.setdefault(json.dumps(dict(trial.arguments), sort_keys=True, default=str), trial)
    pruned = [trial for trial in by_arguments.values() if not trial.is_dense]
    if pruned and True in sweep.true_sequential and not any(trial.plan.true_sequential for trial in pruned):
        names = ", ".join(sweep.pruner)
        raise BadOptionError(f"--true-sequential: no pruner of this sweep ({names}) measures its layers: want one such as sparsegpt")
    return list(by_arguments.values())


def _pruned(sweep: Sweep, plugins: Plugins) -> list[dict[str, Any]]:
    return [
        {
            "pruner": pruner,
            "sparsity": str(sparsity) if sparsity.pattern else sparsity.ratio,
            **({} if bits is None else {"bits": bits}),
            "modules": modules,
            "allocation": allocation if sparsity.ratio > 0 else ALLOCATION,
            "calibration": calibration,
            "precision": sweep.precision,
            "true_sequential": true_sequential,
        }
        | _options("pruner", plugins.pruners, pruner, sweep.options)
        | (_options("allocation", plugins.allocations, allocation, sweep.options) if sparsity.ratio > 0 else {})
        | _options("calibration", plugins.calibrations, calibration, sweep.options)
        | ({"calibration.seed": seed} if seed is not None else {})
        for pruner in sweep.pruner
        for allocation in sweep.allocation
        for modules in sweep.modules
        for calibration in sweep.calibration
        for seed in (sweep.seeds or (None,))
        for true_sequential in sweep.true_sequential
        for bits in (sweep.bits if is_quantizer(plugins, pruner) else (None,))
        for sparsity in sweep.sparsity
        if sparsity.ratio > 0 or bits is not None
    ]


def is_quantizer(plugins: Plugins, name: str) -> bool:
    """Whether a pruner takes bits."""
    entry = plugins.pruners.items.get(name)
    return entry is not None and issubclass(entry[0], Quantizer)


def _check_bits(sweep: Sweep, plugins: Plugins) -> None:
    """Bits and quantizers go together.

    Raises:
        BadOptionError: one of them is there, and the other is not; or a pruner or an allocation has no sparsity to work with.
    """
    quantizers = [name for name in sweep.pruner if is_quantizer(plugins, name)]
    if sweep.bits and not quantizers:
        known = ", ".join(sorted(name for name in plugins.pruners.items if is_quantizer(plugins, name)))
        raise BadOptionError(
            f"--bits {','.join(map(str, sweep.bits))}: no pruner of this sweep ({', '.join(sweep.pruner)}) quantises weights: want one of "
            f"{known}"
        )
    if quantizers and not sweep.bits:
        raise BadOptionError(f"--pruner {quantizers[0]}: quantises weights: want --bits, such as --bits 2,3,4,8")
    if sweep.bits and not any(sparsity.ratio > 0 for sparsity in sweep.sparsity):
        if others := [name for name in sweep.pruner if name not in quantizers]:
            raise BadOptionError(
                f"--pruner {others[0]}: removes weights, and there is no sparsity: want --sparsity, such as --sparsity 0,0.5"
            )
        if spread := [name for name in sweep.allocation if name != ALLOCATION]:
            raise BadOptionError(
                f"--allocation {spread[0]}: spreads a sparsity, and there is none; every layer gets the same bits: want --sparsity as well"
            )


def _trial(sweep: Sweep, plugins: Plugins, arguments: dict[str, Any]) -> TrialSpec:
    """Leaves out of the arguments what makes no difference."""
    of_model = sweep.of_model()
    try:
        plan = trial_from(arguments | of_model, plugins).plan
    except BadOptionError:
        if not arguments.get("true_sequential"):
            raise
        return _trial(sweep, plugins, arguments | {"true_sequential": False})  # a pruner that measures no layer
    if not plan.needs_calibration:
        arguments = {name: value for name, value in arguments.items() if name.partition(".")[0] != "calibration"}
    decisive = {name: value for name, value in arguments.items() if name not in DEFAULTS or value != DEFAULTS[name]}
    return TrialSpec(decisive | of_model, plan)


def trial_from(arguments: Mapping[str, Any], plugins: Plugins) -> TrialSpec:
    """A trial from its model arguments.

    Raises:
        BadOptionError: an argument of the pruning is wrong, or one of the model is, or does not go with pruning.
    """
    of_model = dict(arguments)
    plan = take_plan(plugins, of_model)
    if of_model.keys() - {"pretrained", *MODEL_FIELDS}:
        from harness_ext.host.model_arguments import check_model_arguments
        from harness_ext.host.preflight import check_arguments

        check_model_arguments(of_model, plan)
        if plan.changes:
            check_arguments(of_model)
    return TrialSpec(dict(arguments), plan)


def _options(kind: str, registry: Registry[Any], name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a kind that the method of that name takes."""
    takes = _takes(registry, name)
    return {key: value for key, value in options.items() if key.startswith(f"{kind}.") and key.removeprefix(f"{kind}.") in takes}


def _takes(registry: Registry[Any], name: str) -> Sequence[str]:
    """The options of a method. A name that is not registered may be a file, which is read by the method ``file`` or ``list``."""
    entry = registry.items.get(name) or registry.items.get({"calibration": "file", "allocation": "list"}.get(registry.kind, ""))
    return list(entry[0].defaults()) if entry else []


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
                raise BadOptionError(
                    f"--option {shortened(key)}: no {kind} of this sweep takes it.{did_you_mean(option, known)} They take: {takes}"
                )
