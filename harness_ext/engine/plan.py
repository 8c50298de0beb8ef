"""What is to be done to a model, checked in full before any weight is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from harness_ext.engine.allocate import check_allocation
from harness_ext.engine.coverage import DENSE_LIMIT
from harness_ext.engine.selection import parse_modules
from harness_ext.errors import BadOptionError, did_you_mean, shown
from harness_ext.method.allocation import Allocation
from harness_ext.method.calibration import Calibration
from harness_ext.method.documents import Texts
from harness_ext.method.pruner import ModelPruner, PruningMethod, StructuredPruner
from harness_ext.method.quantizer import Quantizer, parse_bits
from harness_ext.method.sparsity import Sparsity
from harness_ext.plugins import Origin, Plugins, Registry

P = TypeVar("P", PruningMethod, Allocation, Calibration)

PRUNER, CALIBRATION, ALLOCATION, PRECISION = "sparsegpt", "self", "uniform", "float32"
PRECISIONS = ("float32", "float64")
EXPERTS = ("routed", "all")
MIN_EXPERT_TOKENS = 256
ARGUMENTS = (
    "pruner", "sparsity", "bits", "modules", "calibration", "allocation", "precision", "true_sequential", "resume", "experts",
    "min_expert_tokens", "strict", "dense_limit", "calibration_cache",
)  # fmt: skip
PREFIXES = ("pruner.", "calibration.", "allocation.")


@dataclass(frozen=True)
class Plan:
    """A pruner or quantizer, how much it removes from which layers or how many bits it leaves, and what it is calibrated on."""

    pruner: PruningMethod
    sparsity: Sparsity
    modules: str
    calibration: Calibration | torch.Tensor
    allocation: Allocation
    precision: str = PRECISION
    """The dtype of statistics and arithmetic: ``float32`` or ``float64``."""
    true_sequential: bool = False
    """Whether a layer is measured behind the pruned layers of its own block as well, not only of the blocks before."""
    resume: Path | None = None
    """Where checkpoints of the run are kept, one for each decoder block."""
    experts: str = EXPERTS[0]
    """The tokens that experts are measured on: those that are ``routed`` to each, or ``all``."""
    min_expert_tokens: int = MIN_EXPERT_TOKENS
    """The record names experts that were measured on fewer tokens."""
    strict: bool = False
    """Whether an expert that got no token is an error."""
    dense_limit: float = DENSE_LIMIT
    """How large a share of the selected weights of a block may be in parameters that are not matrices of linear layers."""
    calibration_cache: bool = True
    """Whether calibration tokens are kept on disk for later runs."""
    pruner_origin: Origin | None = None
    calibration_origin: Origin | None = None
    allocation_origin: Origin | None = None
    bits: int | None = None
    """The bits of a code, for a quantizer; None where weights are not quantised."""

    @property
    def changes(self) -> bool:
        """Whether the plan changes any weight; if not, the model stays dense."""
        return self.sparsity.ratio > 0 or self.bits is not None

    @property
    def amount(self) -> str:
        """How much is removed, in how many bits: ``sparsity 0.5``, ``4 bits`` or ``4 bits, sparsity 0.5``."""
        parts = [f"{self.bits} bits"] if self.bits is not None else []
        return ", ".join(parts + ([f"sparsity {self.sparsity}"] if self.sparsity.ratio > 0 or not parts else []))

    @property
    def needs_calibration(self) -> bool:
        measured = self.allocation.measures(self.pruner) is not None
        return self.changes and (measured or self.pruner.needs_calibration())

    @property
    def walked_modules(self) -> str:
        """The ``modules`` whose layers the engine looks for: all for a structured pruner, which selects by itself."""
        return "all" if isinstance(self.pruner, StructuredPruner) else self.modules

    def who(self) -> str:
        """The pruner and where it comes from, for errors."""
        return f"pruner {self.pruner.name!r}" + (f" of {self.pruner_origin}" if self.pruner_origin else "")

    @property
    def is_uniform(self) -> bool:
        """Whether every layer gets the same sparsity."""
        return self.allocation.name == ALLOCATION

    def describe(self) -> dict[str, Any]:
        """The plan as JSON values."""
        description: dict[str, Any] = {
            "pruner": self.pruner.name,
            "pruner_options": self.pruner.options(),
            "sparsity": str(self.sparsity),
            "modules": self.modules,
            "allocation": self.allocation.name,
            "allocation_options": self.allocation.options(),
            "precision": self.precision,
        }
        if self.bits is not None:
            description["bits"] = self.bits
        if self.true_sequential:
            description["true_sequential"] = True
        defaults = {"experts": EXPERTS[0], "min_expert_tokens": MIN_EXPERT_TOKENS, "strict": False, "dense_limit": DENSE_LIMIT}
        description |= {name: getattr(self, name) for name, default in defaults.items() if getattr(self, name) != default}
        if self.needs_calibration:
            if isinstance(self.calibration, torch.Tensor):
                description |= {"calibration": "input_ids", "calibration_options": {}}
            else:
                description |= {"calibration": self.calibration.name, "calibration_options": self.calibration.options()}
        return description


def make_plan(
    plugins: Plugins,
    *,
    pruner: str | PruningMethod = PRUNER,
    sparsity: Sparsity | float | str = 0,
    bits: int | str | None = None,
    modules: str | Sequence[str] = "all",
    calibration: str | Path | Calibration | torch.Tensor | Sequence[Any] = CALIBRATION,
    allocation: str | Allocation = ALLOCATION,
    precision: str = PRECISION,
    true_sequential: bool = False,
    resume: str | Path | None = None,
    experts: str = EXPERTS[0],
    min_expert_tokens: int = MIN_EXPERT_TOKENS,
    strict: bool = False,
    dense_limit: float = DENSE_LIMIT,
    calibration_cache: bool = True,
    pruner_options: Mapping[str, Any] | None = None,
    calibration_options: Mapping[str, Any] | None = None,
    allocation_options: Mapping[str, Any] | None = None,
) -> Plan:
    """Looks the names up and checks every option.

    Raises:
        BadOptionError: a name, an option or a value is wrong.
        PluginError: a pruner or a source, by name or as an instance, overrides nothing.
    """
    parsed, parsed_bits = Sparsity.parse(sparsity), parse_bits(bits)
    modules = parse_modules(modules)
    if precision not in PRECISIONS:
        raise BadOptionError(f"precision={shown(precision)}: want {' or '.join(PRECISIONS)}.{did_you_mean(str(precision), PRECISIONS)}")
    pruner, pruner_origin = _made(PruningMethod, plugins.pruners, pruner, pruner_options)
    if isinstance(allocation, str) and _is_file(allocation, plugins.allocations):
        allocation, allocation_options = "list", _with_path("allocation", allocation, allocation_options)
    allocation, allocation_origin = _made(Allocation, plugins.allocations, allocation, allocation_options)
    calibration, calibration_origin = _calibration(plugins, calibration, calibration_options)
    _check_bits(plugins, pruner, parsed, parsed_bits)
    if modules != "all" and isinstance(pruner, ModelPruner) and not isinstance(pruner, StructuredPruner):
        raise BadOptionError(f"modules={shown(modules)}: pruner {pruner.name!r} treats the model as a whole and takes no choice of modules")
    if not isinstance(true_sequential, bool):
        raise BadOptionError(f"true_sequential={shown(true_sequential)}: want True or False")
    if true_sequential and (isinstance(pruner, ModelPruner) or pruner.measures() is None):
        raise BadOptionError(f"true_sequential=True: pruner {pruner.name!r} measures no layer, so that their order makes no difference")
    _check_experts(experts, min_expert_tokens, strict, dense_limit)
    if not isinstance(calibration_cache, bool):
        raise BadOptionError(f"calibration_cache={shown(calibration_cache)}: want True or False")
    if isinstance(pruner, StructuredPruner) and parsed.pattern:
        raise BadOptionError(f"sparsity={parsed}: pruner {pruner.name!r} removes whole layers, heads or channels: want a ratio such as 0.5")
    if resume is not None:
        if not isinstance(resume, (str, Path)) or not str(resume):
            raise BadOptionError(f"resume={shown(resume)}: want a folder for the checkpoints of the run")
        if isinstance(pruner, ModelPruner):
            raise BadOptionError(
                f"resume={shown(str(resume))}: pruner {pruner.name!r} treats the model as a whole and leaves no checkpoints"
            )
    if parsed.ratio > 0:
        pruner.check_sparsity(parsed)
    check_allocation(allocation, pruner, parsed)
    if parsed_bits is not None and not parsed.ratio and allocation.name != ALLOCATION:
        raise BadOptionError(
            f"allocation={shown(allocation.name)} with bits={parsed_bits}: every layer gets the same bits, and there is no sparsity to "
            f"spread: want {ALLOCATION}, or a sparsity above 0"
        )
    return Plan(
        pruner, parsed, modules, calibration, allocation, precision, true_sequential, Path(resume).expanduser() if resume else None,
        experts, min_expert_tokens, strict, float(dense_limit), calibration_cache, pruner_origin, calibration_origin, allocation_origin,
        parsed_bits,
    )  # fmt: skip


def _check_bits(plugins: Plugins, pruner: PruningMethod, sparsity: Sparsity, bits: int | None) -> None:
    """Checks that bits go to a quantizer, and that a quantizer which is to do something gets them."""
    quantizers = sorted(name for name, (known, _) in plugins.pruners.items.items() if issubclass(known, Quantizer))
    if not isinstance(pruner, Quantizer):
        if bits is not None:
            raise BadOptionError(
                f"bits={bits}: pruner {pruner.name!r} removes weights and does not quantise them: want one of {', '.join(quantizers)}, "
                f"such as pruner={quantizers[0] if quantizers else 'gptq'},bits={bits}"
            )
        return
    if bits is not None:
        pruner.check_bits(bits)
    elif sparsity.ratio > 0:
        raise BadOptionError(
            f"sparsity={sparsity} without bits: {pruner.name!r} is a quantizer: want pruner={pruner.name},bits=4,sparsity={sparsity}, or a "
            f"pruner such as {PRUNER}"
        )


def _check_experts(experts: str, min_expert_tokens: int, strict: bool, dense_limit: float) -> None:
    if experts not in EXPERTS:
        raise BadOptionError(f"experts={shown(experts)}: want {' or '.join(EXPERTS)}.{did_you_mean(str(experts), EXPERTS)}")
    if isinstance(min_expert_tokens, bool) or not isinstance(min_expert_tokens, int) or min_expert_tokens < 0:
        raise BadOptionError(f"min_expert_tokens={shown(min_expert_tokens)}: want a number of tokens, or 0")
    if not isinstance(strict, bool):
        raise BadOptionError(f"strict={shown(strict)}: want True or False")
    if isinstance(dense_limit, bool) or not isinstance(dense_limit, int | float) or not 0 <= dense_limit <= 1:
        raise BadOptionError(f"dense_limit={shown(dense_limit)}: want a share of the weights from 0 to 1")


def take_plan(plugins: Plugins, arguments: dict[str, Any]) -> Plan:
    """Takes our arguments out of a model's keyword arguments and leaves the rest.

    Raises:
        BadOptionError: also for an argument that is left and nearly has the name of one of ours, since lm-eval would pass it on to
            ``from_pretrained``. Also for a method without a sparsity and bits, which would leave the model dense.
    """
    own: dict[str, Any] = {name: arguments.pop(name) for name in ARGUMENTS if name in arguments}
    for prefix in PREFIXES:
        options = {name: arguments.pop(name) for name in list(arguments) if name.startswith(prefix)}
        own[prefix[:-1] + "_options"] = {name.removeprefix(prefix): value for name, value in options.items()}
    for name in arguments:
        head, dot, _ = name.partition(".")
        if dot:
            near = did_you_mean(head, [p[:-1] for p in PREFIXES])
            raise BadOptionError(f"no argument {shown(name)}.{near} Dotted arguments begin with pruner., calibration. or allocation.")
    plan = make_plan(plugins, **own)
    _check_amount(own, arguments)
    return plan


def _check_amount(own: Mapping[str, Any], others: Iterable[str]) -> None:
    """Checks that what says how to prune comes with how much. ``sparsity=0`` says that the model stays dense."""
    how = [name for name in ("pruner", "modules", "allocation") if own.get(name) is not None]
    if how and own.get("sparsity") is None and own.get("bits") is None:
        for name in others:
            if hint := did_you_mean(name, ["sparsity", "bits"]):
                raise BadOptionError(f"no argument {shown(name)}.{hint}")
        raise BadOptionError(f"{how[0]}={shown(own[how[0]])}: says how to prune, and not how much: want for example sparsity=0.5 as well")


def _calibration(plugins: Plugins, given: Any, options: Mapping[str, Any] | None) -> tuple[Calibration | torch.Tensor, Origin | None]:
    """A source, or token ids, and where the source comes from, if ``given`` is its name or a file."""
    if isinstance(given, torch.Tensor | Calibration) and options:
        raise BadOptionError("calibration options do not go with token ids or a source object: pass them to the source itself")
    if isinstance(given, torch.Tensor):
        _check_ids(given)
        return given, None
    if isinstance(given, list | tuple):
        return Texts.of(given, options or {}), None
    if isinstance(given, Path):
        given = str(given)
    if isinstance(given, str) and _is_file(given, plugins.calibrations):
        if not os.path.isfile(given) and len(given.split()) > 1:
            raise BadOptionError(f"calibration={shown(given)}: no such file. Text itself is passed in a list: calibration=[TEXT, ...]")
        given, options = "file", _with_path("calibration", given, options)
    source, origin = _made(Calibration, plugins.calibrations, given, options)
    source.check()
    return source, origin


def _made(base: type[P], registry: Registry[type[P]], given: str | P, options: Mapping[str, Any] | None) -> tuple[P, Origin | None]:
    """An instance of a plugin's class, and where that comes from, if ``given`` is a name."""
    if isinstance(given, base):
        if options:
            raise BadOptionError(f"{registry.kind} options are given twice: pass them to the {registry.kind} itself")
        given.check_class()
        return given, None
    if not isinstance(given, str) or not given:
        raise BadOptionError(f"{registry.kind}={shown(given)}: want the name of a {registry.kind}; harness-ext plugins lists them")
    found, origin = registry.get(given)
    instance = found.from_options(options or {})
    instance.check_class()
    return instance, origin


def _is_file(name: str, registry: Registry[Any]) -> bool:
    """Whether a name is meant as that of a file: it has a suffix, or spaces, or is there."""
    return name not in registry.items and bool(Path(name).suffix or len(name.split()) > 1 or os.path.isfile(os.path.expanduser(name)))


def _with_path(argument: str, path: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    if options and "path" in options:
        raise BadOptionError(f"{argument}={shown(path)} and {argument}.path={shown(options['path'])}: give one of them")
    return {"path": path, **(options or {})}


def _check_ids(ids: torch.Tensor) -> None:
    if ids.ndim != 2 or ids.dtype != torch.int64 or 0 in ids.shape:
        raise BadOptionError(f"calibration: want int64 token ids [samples, length], not {ids.dtype} {tuple(ids.shape)}")
