"""What a sweep is asked for: its fields, as a YAML file or the command line gives them, checked once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from harness_ext.engine.perplexity import BOS, Protocol
from harness_ext.engine.placement import parse_device
from harness_ext.engine.plan import ALLOCATION, CALIBRATION, PRECISION, PREFIXES, PRUNER
from harness_ext.engine.selection import SEPARATOR, parse_modules
from harness_ext.errors import BadOptionError, did_you_mean, one_line, shortened, shown
from harness_ext.host.arguments import parse_mapping, parse_options
from harness_ext.method.quantizer import FEWEST_BITS, MOST_BITS, parse_bits
from harness_ext.method.sparsity import Sparsity
from harness_ext.sweep.sparsities import parse_sparsities, refuse_twice

MODEL_FIELDS = ("dtype", "revision", "trust_remote_code")
"""Fields that are also model arguments of every trial."""
EVALUATION_FIELDS = ("num_fewshot", "apply_chat_template", "fewshot_as_multiturn", "system_instruction", "gen_kwargs")
"""Fields that ``lm_eval`` has under the same names, and that change prompts and answers."""


MAPPINGS = ("options", "model_args", "metadata", "gen_kwargs")
"""Fields that hold names with values."""
SOURCE = (Mapping, list, tuple)  # a repeated option is a tuple in typer before 0.27


def _listed(value: Any, info: ValidationInfo) -> list[Any]:
    values = value if isinstance(value, list | tuple) else [value]
    for part in values:
        if isinstance(part, bool) or not isinstance(part, str | int | float):
            raise BadOptionError(f"{_option(info.field_name)} {shown(part)}: want a name or a number, or a list of them")
    return list(values)


def _names(value: Any, info: ValidationInfo) -> tuple[str, ...]:
    option, names = _option(info.field_name), split(_listed(value, info))
    if not names:
        raise BadOptionError(f"{option}: nothing given, so that there is nothing to do: want at least one")
    if "" in names:
        raise BadOptionError(f"{option}: an empty name in {shown(','.join(names))}")
    refuse_twice(option, names)
    return names


def _modules(value: Any, info: ValidationInfo) -> tuple[str, ...]:
    """One choice of layers a value; in a text with commas, exclusions belong to what stands before them."""
    values = _listed(value, info)
    joined = [re.sub(r"\s*,\s*(?=!)", SEPARATOR, part) if isinstance(part, str) else part for part in values]
    names = tuple(parse_modules(name) for name in _names(joined, info))
    refuse_twice(_option(info.field_name), names)
    return names


def _folders(value: Any, info: ValidationInfo) -> tuple[str, ...]:
    folders = _names(value, info)
    for folder in folders:
        if not os.path.isdir(folder):
            raise BadOptionError(f"{_option(info.field_name)} {shortened(folder)}: no such folder")
    return folders


def _sparsities(value: Any, info: ValidationInfo) -> tuple[Sparsity, ...]:
    if not (values := _listed(value, info)):
        raise BadOptionError("--sparsity: nothing given, so that there is nothing to do: want for example 0:0.9:0.1")
    return parse_sparsities(values)


def _bits(value: Any, info: ValidationInfo) -> tuple[int, ...]:
    numbers: list[int] = []
    for part in split(_listed(value, info)):
        try:
            bits = parse_bits(part or "''")
        except BadOptionError:
            bits = None
        if bits is None:
            raise BadOptionError(f"--bits {shown(part)}: want whole numbers from {FEWEST_BITS} to {MOST_BITS}, such as 2,3,4,8")
        numbers.append(bits)
    if not numbers:
        raise BadOptionError("--bits: nothing given, so that there is nothing to do: want for example 2,3,4,8")
    refuse_twice("--bits", [str(bits) for bits in numbers])
    return tuple(numbers)


def _seeds(value: Any, info: ValidationInfo) -> tuple[int, ...]:
    parts = [part.strip() for text in _listed(value, info) for part in str(text).split(",")]
    for part in parts:
        if not re.fullmatch("[0-9]+", part):
            raise BadOptionError(f"--seeds {shown(part)}: want whole numbers such as 0,1,2")
    refuse_twice("--seeds", [str(int(part)) for part in parts])
    return tuple(int(part) for part in parts)


def _options(value: Any, info: ValidationInfo) -> dict[str, Any]:
    """From ``NAME=VALUE`` texts, a mapping of names that begin with pruner., calibration. or allocation., or a list of these."""
    if isinstance(value, Mapping):
        parse_options([f"{name}={part}" for name, part in value.items()])
        return dict(value)
    if _holds_sources(value):
        return {name: part for source in value for name, part in _options(source, info).items()}
    return parse_options([str(option) for option in _listed(value, info)])


def _mapping(value: Any, info: ValidationInfo) -> dict[str, Any]:
    """From a mapping, texts as lm-eval reads them (a JSON object, or ``NAME=VALUE,NAME=VALUE``), or a list of these."""
    if isinstance(value, Mapping):
        return {str(name): part for name, part in value.items()}
    if _holds_sources(value):
        return {name: part for source in value for name, part in _mapping(source, info).items()}
    mapping: dict[str, Any] = {}
    for text in _listed(value, info):
        mapping |= parse_mapping(_option(info.field_name), str(text))
    return mapping


def _holds_sources(value: Any) -> bool:
    """Whether a list is what :func:`over` makes: mappings and lists, of which the last that has a name decides its value."""
    return isinstance(value, list) and any(isinstance(part, SOURCE) for part in value)


def _limit(value: Any, info: ValidationInfo) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if isinstance(value, bool) or not number > 0 or (number >= 1 and number != int(number)):
        raise BadOptionError(f"--limit {shortened(value)}: want a number of items, or a share of them below 1")
    return number


def _width(value: Any, info: ValidationInfo) -> float:
    try:
        width = float(value)
    except (TypeError, ValueError):
        width = 0.0
    if isinstance(value, bool) or not 0 < width <= 1:
        raise BadOptionError(f"--refine {shortened(value)}: want a width in sparsity above 0 and at most 1, such as 0.05")
    return width


def _count(value: Any, info: ValidationInfo) -> int:
    if isinstance(value, bool) or not re.fullmatch("[0-9]+", str(value)):
        raise BadOptionError(f"{_option(info.field_name)} {shortened(value)}: want a whole number such as 0 or 5")
    return int(value)


def _batch_size(value: Any, info: ValidationInfo) -> str:
    if not re.fullmatch(r"[1-9][0-9]*|auto(:[0-9]+)?", str(value)):
        raise BadOptionError(f"--batch-size {shortened(value)}: want a number such as 16, or auto")
    return str(value)


def _device(value: Any, info: ValidationInfo) -> str:
    parse_device(str(value), f"--device {shortened(value)}")
    return str(value)


def _switches(value: Any, info: ValidationInfo) -> tuple[bool, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(part, bool) for part in values):
        raise BadOptionError(f"{_option(info.field_name)} {shown(value)}: want true or false, or a list of both")
    refuse_twice(_option(info.field_name), [str(part) for part in values])
    return tuple(values)


def _template(value: Any, info: ValidationInfo) -> bool | str:
    """True and false may come as texts from the command line; any other text is the name of a template."""
    switches = {"true": True, "false": False}
    return switches.get(value.lower(), value) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Values = Annotated[dict[str, Any], BeforeValidator(_mapping)]
Text = Annotated[str, Field(min_length=1, strict=True)]


class Sweep(BaseModel):
    """All that a sweep is asked for. The fields from ``pretrained`` to ``true_sequential`` are the axes of the grid.

    The other fields are those of ``lm_eval`` and of the model arguments of ``pruned-hf``, and hold for every trial.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    pretrained: Names
    sparsity: Annotated[tuple[Sparsity, ...], BeforeValidator(_sparsities)]
    bits: Annotated[tuple[int, ...], BeforeValidator(_bits)] = ()
    """For quantizers, each with each sparsity; other pruners have one trial for all."""
    pruner: Names = (PRUNER,)
    allocation: Names = (ALLOCATION,)
    modules: Annotated[tuple[str, ...], BeforeValidator(_modules)] = ("all",)
    calibration: Names = (CALIBRATION,)
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds)] = ()
    true_sequential: Annotated[tuple[bool, ...], BeforeValidator(_switches)] = (False,)
    options: Annotated[dict[str, Any], BeforeValidator(_options)] = {}
    """By dotted name, such as ``pruner.block_size``. Each goes to those methods that take it."""
    precision: Text = PRECISION
    model_args: Values = {}
    """Other arguments of ``pruned-hf``, for every trial."""
    tasks: Names = ()
    metadata: Values = {}
    include_path: Annotated[tuple[str, ...], BeforeValidator(_folders)] = ()
    limit: Annotated[float, BeforeValidator(_limit)] | None = None
    num_fewshot: Annotated[int, BeforeValidator(_count)] | None = None
    apply_chat_template: Annotated[bool | str, BeforeValidator(_template)] = False
    fewshot_as_multiturn: bool | None = None
    system_instruction: Text | None = None
    gen_kwargs: Values = {}
    batch_size: Annotated[str, BeforeValidator(_batch_size)] | None = None
    device: Annotated[str, BeforeValidator(_device)] | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    revision: Text | None = None
    trust_remote_code: bool = False
    perplexity: Text | None = None
    """A text file, or a name of the hub's, on which each trial measures its perplexity as well."""
    perplexity_window: Annotated[int, BeforeValidator(_count)] | None = None
    perplexity_bos: str = BOS[0]
    refine: Annotated[float, BeforeValidator(_width)] | None = None
    """The width, in sparsity, of the intervals of critical sparsities, for which more sparsities than those of the grid are measured."""
    out: Text | None = None
    """The folder for the records."""

    @model_validator(mode="after")
    def _together(self) -> Sweep:
        if not self.tasks and self.perplexity is None:
            raise BadOptionError("--tasks: nothing given: want it on the command line or in the file of --config, or --perplexity alone")
        if self.seeds and "calibration.seed" in self.options:
            raise BadOptionError("calibration.seed is given twice: by --seeds and as an option")
        if self.fewshot_as_multiturn and not self.apply_chat_template:
            raise BadOptionError("--fewshot_as_multiturn true: goes with --apply_chat_template")
        if self.refine is not None and self.bits:
            raise BadOptionError(f"--refine {self.refine:g}: does not go with --bits: it looks for critical sparsities")
        for name in ("perplexity_window", "perplexity_bos"):
            if self.perplexity is None and getattr(self, name) != type(self).model_fields[name].default:
                raise BadOptionError(f"--{name} {getattr(self, name)}: goes with --perplexity")
        Protocol(self.perplexity_window, self.perplexity_bos)
        for name in self.model_args:
            if name == "resume":
                raise BadOptionError("--model_args resume: a sweep keeps whole trials, and no checkpoints of the pruning")
            if name == "peft":
                raise BadOptionError("--model_args peft: a sweep loads a model once: want the model with the adapter merged into it")
            if name.startswith(PREFIXES):
                raise BadOptionError(f"--model_args {name}: want it as --option {name}={self.model_args[name]}")
            if name in type(self).model_fields:
                raise BadOptionError(f"--model_args {name}: want it as the option --{name} of the sweep")
        return self

    def of_model(self) -> dict[str, Any]:
        """The model arguments of every trial, dense or pruned, but ``pretrained``."""
        return {name: getattr(self, name) for name in MODEL_FIELDS if getattr(self, name)} | self.model_args

    @property
    def as_multiturn(self) -> bool | None:
        """``fewshot_as_multiturn`` as lm-eval's command line completes it."""
        return True if self.fewshot_as_multiturn is None and self.apply_chat_template else self.fewshot_as_multiturn

    def evaluation(self) -> dict[str, Any]:
        """The values of ``EVALUATION_FIELDS`` that are not lm-eval's defaults."""
        defaults = {name: type(self).model_fields[name].default for name in EVALUATION_FIELDS}
        return {name: getattr(self, name) for name in EVALUATION_FIELDS if getattr(self, name) != defaults[name]}


def read(path: Path) -> dict[str, Any]:
    """The fields of a file, as YAML 1.2: there, 2:4 and 0:1:0.1 are texts and not numbers of base 60.

    Raises:
        BadOptionError: no such file, not YAML, or not a mapping.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        fields = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadOptionError(f"--config {shortened(path)}: {getattr(error, 'strerror', None) or error}") from error
    except YAMLError as error:
        raise BadOptionError(f"--config {shortened(path)}: not YAML: {one_line(error)}") from error
    if not isinstance(fields, dict):
        raise BadOptionError(f"--config {shortened(path)}: want a mapping of fields such as 'sparsity: 0:0.9:0.1'")
    return {str(name): value for name, value in fields.items()}


def over(typed: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a command line over those of a file.

    A field of the command line replaces that of the file. A field that holds names with values (``metadata``, ``option``, ...) replaces
    name by name: the file's other names stay.
    """
    fields = {**read, **typed}
    for name in MAPPINGS:
        if read.get(name) is not None and typed.get(name) is not None:
            fields[name] = [source if isinstance(source, SOURCE) else [source] for source in (read[name], typed[name])]
    return fields


def sweep_from(fields: Mapping[str, Any]) -> Sweep:
    """Checks the fields, as a file or the command line gives them. A field that is None was not given.

    Raises:
        BadOptionError: the first that is wrong; a field that does not exist comes first.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if "bits" in given:
        given.setdefault("sparsity", 0)
    try:
        return Sweep.model_validate(given)
    except ValidationError as error:
        raise _in_one_line(error) from None


def split(values: Iterable[Any]) -> tuple[str, ...]:
    """The names in texts that may join several with commas. A path that has a comma in its name and exists is left whole."""
    return tuple(part.strip() for value in values for part in ([str(value)] if os.path.exists(str(value)) else str(value).split(",")))


def _option(name: str | None) -> str:
    return f"--{(name or '').replace('_', '-')}"


def _in_one_line(error: ValidationError) -> BadOptionError:
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    problem, fields = problems[0], list(Sweep.model_fields)
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, BadOptionError):
        return cause
    name, value = str(problem["loc"][0]), problem["input"]
    if problem["type"] == "extra_forbidden":
        return BadOptionError(f"no field {shown(name)}.{did_you_mean(name, fields)} Fields: {', '.join(fields)}")
    if problem["type"] == "missing":
        return BadOptionError(f"{_option(name)}: nothing given: want it on the command line or in the file of --config")
    hint = did_you_mean(str(value), re.findall("'([^']+)'", str(problem.get("ctx", {}).get("expected", ""))))
    return BadOptionError(f"{_option(name)} {shown(value)}: {problem['msg'].replace('Input should be', 'want')}.{hint}")
