"""From a YAML file and the command line to a :class:`~harness_ext.sweep.grid.Sweep`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from harness_ext.errors import BadOptionError, did_you_mean
from harness_ext.host.arguments import DTYPES, parse_options
from harness_ext.sweep.grid import Sweep, parse_sparsities, split

LISTS = ("pretrained", "pruner", "allocation", "modules", "calibration", "tasks", "include_path")
TEXTS = ("precision", "device", "dtype", "revision", "out")
FIELDS = (*LISTS, *TEXTS, "sparsity", "seeds", "options", "metadata", "limit", "batch_size", "trust_remote_code")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML as in version 1.2, where 2:4 and 0:1:0.1 are texts and not numbers of base 60."""


NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in NUMBERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"), list("-+.0123456789")
)


def read(path: Path) -> dict[str, Any]:
    """The fields of a file.

    Raises:
        BadOptionError: no such file, not YAML, not a mapping, or a field that does not exist.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise BadOptionError(f"--config {path}: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise BadOptionError(f"--config {path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise BadOptionError(f"--config {path}: want a mapping of fields such as 'sparsity: 0:0.9:0.1'")
    for name in found:
        if name not in FIELDS:
            raise BadOptionError(f"--config {path}: no field {name!r}.{did_you_mean(str(name), FIELDS)} Fields: {', '.join(FIELDS)}")
    return found


def sweep_from(given: Mapping[str, Any]) -> Sweep:
    """Checks the fields, as a file or the command line gives them.

    Raises:
        BadOptionError: the first that is wrong.
    """
    fields: dict[str, Any] = {name: split(_listed(name, given[name])) for name in LISTS if name in given}
    fields |= {name: _text(name, given[name]) for name in TEXTS if name in given and name != "out"}
    for name in ("tasks", "pretrained", "sparsity"):
        if name not in given:
            raise BadOptionError(f"--{name}: nothing given: want it on the command line or in the file of --config")
    fields["sparsity"] = parse_sparsities(_listed("sparsity", given["sparsity"]))
    fields["seeds"] = _seeds(_listed("seeds", given.get("seeds", [])))
    fields["options"] = _options(given.get("options", {}))
    fields["metadata"] = _metadata(given.get("metadata", {}))
    fields["limit"] = _limit(given.get("limit"))
    fields["batch_size"] = _batch_size(given.get("batch_size"))
    fields["trust_remote_code"] = _flag("trust_remote_code", given.get("trust_remote_code", False))
    if fields.get("dtype") not in (None, *DTYPES):
        raise BadOptionError(f"--dtype {fields['dtype']}: want {', '.join(DTYPES)}.{did_you_mean(fields['dtype'], DTYPES)}")
    if fields.get("device"):
        import torch

        try:
            torch.device(fields["device"])
        except RuntimeError as error:
            raise BadOptionError(f"--device {fields['device']}: want a device such as cpu, cuda or cuda:1") from error
    return Sweep(**fields)


def _listed(name: str, value: Any) -> list[Any]:
    values = value if isinstance(value, list | tuple) else [value]
    for one in values:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise BadOptionError(f"{name}: {one!r}: want a name or a number, or a list of them")
    return list(values)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise BadOptionError(f"{name}: {value!r}: want a text")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadOptionError(f"{name}: {value!r}: want true or false")
    return value


def _seeds(values: list[Any]) -> tuple[int, ...]:
    parts = [part.strip() for value in values for part in str(value).split(",")]
    for part in parts:
        if not part.isdecimal():
            raise BadOptionError(f"--seeds {part!r}: want whole numbers such as 0,1,2")
    return tuple(int(part) for part in parts)


def _options(value: Any) -> dict[str, Any]:
    """From ``NAME=VALUE`` texts, or a mapping of names that begin with pruner., calibration. or allocation."""
    if isinstance(value, Mapping):
        checked = parse_options([f"{name}=0" for name in value])
        return {name: value[name] for name in checked}
    return parse_options([str(one) for one in _listed("options", value)])


def _metadata(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise BadOptionError(f"--metadata {value}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadOptionError(f"--metadata {value}: want a JSON object, such as '{{\"facts_items\": 512}}'")
    return value


def _limit(value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if isinstance(value, bool) or not number > 0 or (number >= 1 and number != int(number)):
        raise BadOptionError(f"--limit {value}: want a number of items, or a share of them below 1")
    return number


def _batch_size(value: Any) -> str | None:
    if value is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]*|auto(:[0-9]+)?", str(value)):
        raise BadOptionError(f"--batch-size {value}: want a number such as 16, or auto")
    return str(value)
