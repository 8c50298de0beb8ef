"""Parses arguments of commands as lm-eval does, and holds defaults that several commands share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from harness_ext.errors import BadOptionError, did_you_mean, one_line, shortened

DEFAULT_MODEL = "lab-m"
DTYPES = ("auto", "float32", "bfloat16", "float16")


def parse_options(options: Iterable[str]) -> dict[str, Any]:
    """Parses ``NAME=VALUE`` options into values of the types that lm-eval gives them.

    Raises:
        BadOptionError: ``=`` is missing, a name is given twice, or a name does not begin with ``pruner.``, ``calibration.`` or the like.
    """
    from lm_eval.utils import handle_arg_string

    from harness_ext.engine.plan import PREFIXES

    values: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or "." not in name or not name.startswith(PREFIXES):
            hint = did_you_mean(name.partition(".")[0] + ".", PREFIXES)
            raise BadOptionError(f"--option {shortened(option)}: want {', '.join(f'{prefix}NAME=VALUE' for prefix in PREFIXES)}.{hint}")
        if name in values:
            raise BadOptionError(f"--option {shortened(option)}: {shortened(name)} is given twice")
        values[name] = handle_arg_string(value)
    return values


def parse_mapping(option: str, text: str) -> dict[str, Any]:
    """Parses ``--model_args``, ``--gen_kwargs`` or ``--metadata`` as lm-eval does: a JSON object, or ``NAME=VALUE,NAME=VALUE``.

    Args:
        option: name of the option, for errors.

    Raises:
        BadOptionError: the text has neither form.
    """
    from lm_eval._cli.utils import key_val_to_dict

    example = "want a JSON object such as '{\"facts_items\": 512}', or NAME=VALUE,NAME=VALUE"
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith(("{", "[")):
            raise BadOptionError(f"{option} {shortened(text)}: not JSON: {error}") from error
        try:
            value = key_val_to_dict(text)
        except ValueError as problem:
            raise BadOptionError(f"{option} {shortened(text)}: {one_line(problem)}: {example}") from problem
    if not isinstance(value, dict):
        raise BadOptionError(f"{option} {shortened(text)}: {example}")
    return value


def check_device(device: str, given: str) -> None:
    """Checks that this machine has a device.

    Args:
        given: the argument as the user wrote it. The message begins with it.

    Raises:
        BadOptionError: this is not the name of a device, or this machine has no such device.
    """
    import torch

    from harness_ext.engine.placement import parse_device

    chosen = parse_device(device, given)
    if chosen.type not in ("cuda", "mps", "meta"):
        return
    count = torch.cuda.device_count() if chosen.type == "cuda" else int(chosen.type == "mps" and torch.backends.mps.is_available())
    if (chosen.index or 0) >= count:
        raise BadOptionError(f"{given}: there is no such device here, there are {count} of {chosen.type}: want another, such as cpu")
