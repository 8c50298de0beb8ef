"""The modifiers of llm-compressor that prune in one shot, by name, with options, or from a recipe."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness_ext import BadOptionError, Sparsity, UnknownNameError, one_line, shown
from harness_ext_llmcompressor.isolation import llmcompressor


def names() -> dict[str, type[Any]]:
    """The modifiers that prune in one shot, by short names such as ``sparsegpt``: those with a sparsity and a structure of their masks."""
    return {name: found for name, found in _all().items() if {"sparsity", "mask_structure"} <= found.model_fields.keys()}


def modifier_named(name: str) -> type[Any]:
    """The modifier of that short name.

    Raises:
        UnknownNameError: there is none, or one that prunes nothing in one shot.
    """
    able = names()
    if name in able:
        return able[name]
    others, available = _all(), ", ".join(sorted(able))
    if name in others:
        raise UnknownNameError(f"pruner.modifier={shown(name)}: {_idle(others[name])}. Want {available}{_ours(name)}")
    near = next((other for other in able if other in name.replace("-", "").lower()), None)
    advice = f" Did you mean {near!r}?" if near else ""
    raise UnknownNameError(
        f"pruner.modifier={shown(name)}: llm-compressor has no such modifier for pruning.{advice} Available: {available}"
    )


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Looks at the options of a modifier by making one.

    Raises:
        BadOptionError: an option that the modifier does not have, or a value that it refuses.
    """
    build(name, options, Sparsity(0.5), [])


def build(name: str, options: Mapping[str, Any], sparsity: Sparsity, targets: list[str]) -> Any:
    """A modifier that prunes the modules of these names.

    Raises:
        BadOptionError: as :func:`check_options`.
    """
    chosen = modifier_named(name)
    for option, value in options.items():
        if option not in chosen.model_fields:
            raise BadOptionError(f"pruner.{option}={shown(value)}: {chosen.__name__} of llm-compressor has no such argument")
    structure = {"mask_structure": str(sparsity)} if sparsity.pattern else {}
    ratio = math.nextafter(sparsity.ratio, 1)  # since it computes int(0.29 * 100), which is 28
    try:
        return chosen(targets=targets, sparsity=ratio, **structure, **options)
    except ValueError as error:  # pydantic's is one
        raise BadOptionError(f"pruner.modifier={shown(name)}: {one_line(error)}") from error


def read_recipe(path: Path) -> list[Any]:
    """The modifiers of a recipe, made anew: each can be used once.

    Args:
        path: a YAML, JSON or Markdown file.

    Raises:
        BadOptionError: there is no such file, llm-compressor cannot read it, it has no modifier, or one of another kind than those for
            pruning in one shot, or one with a sparsity profile.
    """
    what = f"pruner.recipe={shown(str(path))}"
    if not os.path.isfile(path):
        raise BadOptionError(f"{what}: there is no such file")
    from llmcompressor.recipe import Recipe

    with llmcompressor():
        try:
            modifiers = list(Recipe.create_instance(str(path)).modifiers)
        except Exception as error:  # of pydantic, yaml, json and its own
            raise BadOptionError(f"{what}: llm-compressor cannot read it: {one_line(error)}") from error
    if not modifiers:
        raise BadOptionError(f"{what}: want a recipe with at least one modifier, in a group *_modifiers of a stage *_stage")
    able = names()
    for modifier in modifiers:
        kind = type(modifier)
        if kind not in able.values():
            raise BadOptionError(
                f"{what}: {_idle(kind)}. Want {', '.join(sorted(found.__name__ for found in able.values()))}{_ours(_short(kind))}"
            )
        if modifier.sparsity_profile:
            raise BadOptionError(
                f"{what}: sparsity_profile={shown(modifier.sparsity_profile)} fails in llm-compressor: "
                f"use pruner={_short(kind)},allocation={modifier.sparsity_profile}"
            )
        if not isinstance(modifier.sparsity, float):
            raise BadOptionError(f"{what}: want for the sparsity of {kind.__name__} a ratio, not {shown(modifier.sparsity)}")
    return modifiers


def of_modifier(modifier: Any) -> Sparsity:
    """What a modifier removes from each of its layers."""
    structure = str(modifier.mask_structure)
    return Sparsity(float(modifier.sparsity)) if structure.startswith("0:") else Sparsity.parse(structure)


def layers_of(modifiers: Iterable[Any], model: Any) -> dict[str, Sparsity]:
    """What the modifiers, one after the other, leave of each linear layer that they match, by the name of the layer."""
    from compressed_tensors.utils import match_named_modules, match_targets
    from torch import nn

    layers = {}
    for modifier in modifiers:
        targets = [modifier.targets] if isinstance(modifier.targets, str) else modifier.targets
        for name, module in match_named_modules(model, targets):
            for part, layer in match_named_modules(module, ["Linear"]):  # a target may be a whole decoder layer
                full = f"{name}.{part}"  # as it names them itself: with a dot at the end, so that only a regular expression ignores them
                if isinstance(layer, nn.Linear) and not match_targets(full, layer, modifier.ignore):
                    layers[full.rstrip(".")] = of_modifier(modifier)
    return layers


def _all() -> dict[str, type[Any]]:
    """All modifiers of its module for pruning."""
    from llmcompressor import modifiers
    from llmcompressor.modifiers import pruning

    kinds = [value for value in vars(pruning).values() if isinstance(value, type) and issubclass(value, modifiers.Modifier)]
    return {_short(kind): kind for kind in kinds}


def _short(kind: type[Any]) -> str:
    return kind.__name__.removesuffix("Modifier").removesuffix("Pruning").lower()


def _idle(kind: type[Any]) -> str:
    return f"{kind.__name__} of llm-compressor sets no weight to zero in one shot"


def _ours(name: str) -> str:
    return ", or pruner=magnitude" if name == "magnitude" else ""
