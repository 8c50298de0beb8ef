"""What is to be done to a model, checked in full before any weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness_ext.calibration import Calibration
from harness_ext.errors import BadOptionError, did_you_mean
from harness_ext.plugins import Origin, Plugins
from harness_ext.pruner import Pruner
from harness_ext.sparsity import Sparsity

PRUNER, CALIBRATION = "sparsegpt", "self"
ARGUMENTS = ("pruner", "sparsity", "modules", "calibration")
PREFIXES = ("pruner.", "calibration.")


@dataclass(frozen=True)
class Plan:
    """A pruner, how much it removes from which layers, and what it is calibrated on."""

    pruner: Pruner
    sparsity: Sparsity
    modules: str
    calibration: Calibration | torch.Tensor
    pruner_origin: Origin | None = None
    calibration_origin: Origin | None = None

    @property
    def needs_calibration(self) -> bool:
        return self.sparsity.ratio > 0 and (self.pruner.statistic is not None or self.pruner.calibrated)

    def describe(self) -> dict[str, Any]:
        """The plan as JSON values."""
        description: dict[str, Any] = {
            "pruner": self.pruner.name,
            "pruner_options": self.pruner.options(),
            "sparsity": str(self.sparsity),
            "modules": self.modules,
        }
        if self.needs_calibration:
            if isinstance(self.calibration, torch.Tensor):
                description |= {"calibration": "input_ids", "calibration_options": {}}
            else:
                description |= {"calibration": self.calibration.name, "calibration_options": self.calibration.options()}
        return description


def make_plan(
    plugins: Plugins,
    *,
    pruner: str | Pruner = PRUNER,
    sparsity: Sparsity | float | str = 0,
    modules: str = "all",
    calibration: str | Calibration | torch.Tensor = CALIBRATION,
    pruner_options: Mapping[str, Any] | None = None,
    calibration_options: Mapping[str, Any] | None = None,
) -> Plan:
    """Looks the names up and checks every option.

    Raises:
        BadOptionError: a name, an option or a value is wrong.
        PluginError: a pruner or a source, by name or as an instance, overrides nothing.
    """
    parsed = Sparsity.parse(sparsity)
    if not isinstance(modules, str) or not modules:
        raise BadOptionError(f"modules={modules!r}: want all, attention, ffn, or a glob such as '*.q_proj'")
    pruner_origin = calibration_origin = None
    if not isinstance(pruner, Pruner):
        _want_name("pruner", pruner)
        found, pruner_origin = plugins.pruners.get(pruner)
        pruner = found.from_options(pruner_options or {})
    elif pruner_options:
        raise BadOptionError("pruner options are given twice: pass them to the pruner itself")
    pruner.check_contract()
    if isinstance(calibration, torch.Tensor):
        _check_ids(calibration)
    elif not isinstance(calibration, Calibration):
        _want_name("calibration", calibration)
        options = dict(calibration_options or {})
        if calibration not in plugins.calibrations.items and (Path(calibration).suffix or Path(calibration).is_file()):
            if "path" in options:
                raise BadOptionError(f"calibration={calibration!r} and calibration.path={options['path']!r}: give one of them")
            calibration, options = "file", {"path": calibration, **options}
        source, calibration_origin = plugins.calibrations.get(calibration)
        calibration = source.from_options(options)
    if calibration_options and calibration_origin is None:
        raise BadOptionError("calibration options do not go with token ids or a source object: pass them to the source itself")
    if isinstance(calibration, Calibration):
        calibration.check_contract()
        calibration.check()
    if modules != "all" and pruner.rung() == "prune_model":
        raise BadOptionError(f"modules={modules!r}: pruner {pruner.name!r} treats the model as a whole and takes no choice of modules")
    return Plan(pruner, parsed, modules, calibration, pruner_origin, calibration_origin)


def take_plan(plugins: Plugins, arguments: dict[str, Any]) -> Plan:
    """Takes our arguments out of a model's keyword arguments and leaves the rest.

    Raises:
        BadOptionError: also for an argument that is left and nearly has the name of one of ours, since lm-eval would pass it on to
            ``from_pretrained``.
    """
    own: dict[str, Any] = {name: arguments.pop(name) for name in ARGUMENTS if name in arguments}
    for prefix in PREFIXES:
        options = {name: arguments.pop(name) for name in list(arguments) if name.startswith(prefix)}
        own[prefix[:-1] + "_options"] = {name.removeprefix(prefix): value for name, value in options.items()}
    for name in arguments:
        head, dot, _ = name.partition(".")
        if dot:
            raise BadOptionError(
                f"no argument {name!r}.{did_you_mean(head, [p[:-1] for p in PREFIXES])} Dotted arguments begin with pruner. or calibration."
            )
    return make_plan(plugins, **own)


def _want_name(argument: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise BadOptionError(f"{argument}={value!r}: want the name of a {argument}; harness-ext plugins lists them")


def _check_ids(ids: torch.Tensor) -> None:
    if ids.ndim != 2 or ids.dtype != torch.int64 or 0 in ids.shape:
        raise BadOptionError(f"calibration: want int64 token ids [samples, length], not {ids.dtype} {tuple(ids.shape)}")
