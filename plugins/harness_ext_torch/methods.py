"""Lists the methods of ``torch.nn.utils.prune`` in the installed torch that prune one tensor."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils import prune

from harness_ext import BadOptionError, UnknownNameError, one_line, shown


class Method(NamedTuple):
    """A function ``f(module, name, amount, ...)`` of ``torch.nn.utils.prune``."""

    function: Callable[..., nn.Module]
    wants: tuple[str, ...]
    """Its other arguments, all of which have to be given: ``n``, ``dim``."""
    draws: bool
    """Whether it draws at random; those that do not rank, and take scores for it."""

    @property
    def structured(self) -> bool:
        """Whether it removes slices along ``dim``, whole rows or columns, and counts these."""
        return "dim" in self.wants

    def mask(self, weight: torch.Tensor, amount: int, options: Mapping[str, Any]) -> torch.Tensor:
        """The mask of a method.

        Args:
            weight: [out_features, in_features]; it is not written into.
            amount: of weights, or of slices where ``structured``, that are to go.
            options: what ``wants`` names.

        Returns:
            bool tensor of the same shape, true where the weight stays.
        """
        module = nn.Module()
        module.weight = nn.Parameter(weight, requires_grad=False)
        self.function(module, "weight", amount=amount, **options)
        mask: torch.Tensor = module.weight_mask  # type: ignore[assignment]
        return mask != 0


def methods() -> dict[str, Method]:
    """All methods by name."""
    methods_of_torch = {}
    for name, function in inspect.getmembers(prune, inspect.isfunction):
        arguments = inspect.signature(function).parameters
        if name[0] != "_" and list(arguments)[:3] == ["module", "name", "amount"]:
            required = [argument for argument, of in list(arguments.items())[3:] if of.default is of.empty]
            methods_of_torch[name] = Method(function, tuple(required), draws="importance_scores" not in arguments)
    return methods_of_torch


def method_named(name: str) -> Method:
    """The method with that name.

    Raises:
        UnknownNameError: torch has none; lists those that it has.
    """
    available = methods()
    if name in available:
        return available[name]
    nearest = next((other for other in available if name.replace("-", "_").lower() in other), None)
    advice = f" Did you mean {nearest!r}?" if name and nearest else ""
    if name == "global_unstructured":
        advice = " Pruner 'magnitude' with allocation=global does this."
    raise UnknownNameError(
        f"pruner.method={shown(name)}: torch.nn.utils.prune has no such method for one weight.{advice} It has: {', '.join(available)}"
    )


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Tries the method on a small matrix.

    Args:
        options: those that were given.

    Raises:
        BadOptionError: an option is missing, or is not one of the method's, or has a value that it does not take.
    """
    method = method_named(name)
    for option in options:
        if option not in method.wants:
            raise BadOptionError(f"pruner.{option}={shown(options[option])}: {name} of torch takes {_words(method.wants)}")
    if missing := [option for option in method.wants if option not in options]:
        known = {"dim": "0 for whole rows (outputs) or 1 for whole columns (inputs)", "n": "the norm, such as 2"}
        raise BadOptionError(f"pruner.method={name} wants pruner.{missing[0]}: {known.get(missing[0], 'see torch.nn.utils.prune')}")
    if options.get("dim", 0) not in (0, 1):
        raise BadOptionError(f"pruner.dim={shown(options['dim'])}: want 0 for whole rows (outputs) or 1 for whole columns (inputs)")
    try:
        with torch.random.fork_rng(devices=[]):
            method.mask(torch.ones(4, 4), 2, options)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        given = ", ".join(f"pruner.{option}={shown(value)}" for option, value in options.items())
        raise BadOptionError(f"{given}: {name} of torch does not take this: {one_line(error)}") from error


def _words(options: tuple[str, ...]) -> str:
    return " and ".join(f"pruner.{option}" for option in options) or "no options"
