"""Checks the arguments of ``hf`` and those beside them that decide nothing about pruning, before anything is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from harness_ext.engine.plan import ARGUMENTS, Plan
from harness_ext.errors import BadOptionError, did_you_mean, shown
from harness_ext.host.arguments import DTYPES
from harness_ext.method.options import ELSEWHERE, Configurable

SWITCH = ("bool", "bool | None")  # annotations of lm-eval, which are not evaluated
OWN = ("share_prompts",)  # of pruned-hf, and not of the plan


def check_model_arguments(arguments: Mapping[str, Any], plan: Plan) -> None:
    """Checks names and values.

    Args:
        arguments: of ``pruned-hf``, without those of the plan.

    Raises:
        BadOptionError: a name resembles one of ours, or a value is none that its argument takes.
    """
    _refuse_misspelt(arguments, plan)
    _check_counts(arguments)
    _check_switches(arguments)
    for name in ("dtype", "softmax_dtype", "mixed_precision_dtype"):
        value = arguments.get(name)
        if isinstance(value, str) and value != "auto" and not isinstance(getattr(torch, value, None), torch.dtype):
            raise BadOptionError(f"{name}={shown(value)}: want {', '.join(DTYPES)}.{did_you_mean(value, DTYPES)}")


def _check_switches(arguments: Mapping[str, Any]) -> None:
    """Checks arguments that are true or false. A text such as ``no`` would count as true."""
    for name, parameter in inspect.signature(HFLM.__init__).parameters.items():
        if parameter.annotation in SWITCH and isinstance(arguments.get(name), str):
            raise BadOptionError(f"{name}={shown(arguments[name])}: want True or False")
    if not isinstance(arguments.get("share_prompts", True), bool):
        raise BadOptionError(f"share_prompts={shown(arguments['share_prompts'])}: want True or False")


def _check_counts(arguments: Mapping[str, Any]) -> None:
    """Checks the numbers of tokens among the arguments of ``hf``, which it uses only after the model was loaded and pruned.

    Raises:
        BadOptionError: one of them is no whole number, or too small.
    """
    for name, least in (("max_length", 1), ("prefix_token_id", 0)):
        value = arguments.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise BadOptionError(f"{name}={shown(value)}: want a whole number of at least {least}")


def _refuse_misspelt(arguments: Mapping[str, Any], plan: Plan) -> None:
    """Checks for arguments that ``hf`` does not know and that resemble one of ours. ``hf`` would pass them to ``from_pretrained``.

    Raises:
        BadOptionError: there is such an argument; the message has the nearest name.
    """
    known = {*inspect.signature(HFLM.__init__).parameters, *OWN}
    for name in sorted(arguments.keys() - known):
        if name in ("quantizer", "quantiser", "compressor"):
            raise BadOptionError(
                f"no argument {shown(name)}: quantizers are chosen by pruner, as in pruner=gptq,bits=4. Did you mean 'pruner'?"
            )
        if hint := did_you_mean(name, [*ARGUMENTS, "pretrained", *OWN]):
            raise BadOptionError(f"no argument {shown(name)}.{hint}")
        for part in (plan.pruner, plan.calibration, plan.allocation):
            option = ELSEWHERE.get(name, name)
            if isinstance(part, Configurable) and {name, option} & part.options().keys():
                raise BadOptionError(f"no argument {shown(name)}. Did you mean '{part.kind}.{name if name in part.options() else option}'?")
