"""Finds the matrices of a decoder block of which several are in one parameter, such as those of experts, and says where each is.

Experts are stored in one of three forms:

* as parameters [experts, outputs, inputs], or [experts, inputs, outputs] (transformers 5);
* as parameters [experts * width, hidden size], one expert below the other (DBRX);
* as a list or a dictionary of modules with linear layers, one module for each expert.

A linear layer of several groups of channels, each with a matrix of its own (DeepSeek V4), has them one below the other too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from harness_ext.engine.kinds import kind_of
from harness_ext.engine.linear import inputs, is_linear, outputs
from harness_ext.errors import UnsupportedModelError

GATE_UP = "gate_up_proj"  # the two matrices of a gated FFN in one, which are layers of their own here
DOWN = re.compile(r"down|w2|wo|c_proj|fc2|output")  # what the matrix is called that leads back to the hidden states
COUNTS = ("num_experts", "moe_num_experts", "num_local_experts", "n_routed_experts", "num_routed_experts")
GROUPS = "n_groups"  # what a linear layer calls the number of its groups

IMPLEMENTATION = "_experts_implementation_internal"  # of a config; the public name sets those of its parts as well
SEEN = ("eager", "grouped_mm")  # implementations of transformers that multiply the parameters themselves, or views of them


class Expert(NamedTuple):
    """Whose matrix a linear layer is."""

    group: str
    """The full name of the module that holds the experts."""
    number: int
    of: int
    """How many experts there are to choose from."""
    role: str
    """What the layer is in its expert, such as ``gate_proj``."""
    reads: str
    """Layers of one expert with the same value read the same tensor. Empty where that is not known beforehand."""


class Place(NamedTuple):
    """Where a matrix is in a parameter that holds several of one shape."""

    number: int
    of: int
    """How many there are."""
    transposed: bool
    """Whether each is stored as [inputs, outputs]."""
    rows: slice
    """The rows of the matrix that are meant, as [outputs, inputs]."""

    def stack(self, parameter: torch.Tensor) -> torch.Tensor:
        """A view of the parameter as [matrices, :, :]."""
        return parameter if parameter.ndim == 3 else parameter.view(self.of, -1, parameter.shape[-1])

    def view(self, parameter: torch.Tensor) -> torch.Tensor:
        """A view of the matrix as [outputs, inputs]."""
        matrix = self.stack(parameter)[self.number]
        return (matrix.T if self.transposed else matrix)[self.rows]


class Stored(NamedTuple):
    """A matrix among those that a module has in its parameters."""

    role: str
    """What it is in its expert; empty where a module has one matrix for each."""
    parameter: str
    reads: str
    place: Place


def stored_experts(name: str, module: nn.Module) -> Iterator[Stored]:
    """The matrices of the experts whose weights are parameters of a module, expert by expert; none for other modules.

    Args:
        name: of the module within its block.
    """
    parameters = _stacked(name, module)
    count = min((len(stack) for stack in parameters.values()), default=0)
    transposed = _transposed(module, parameters)
    for expert in range(count):
        for parameter, stack in parameters.items():
            reads = "hidden" if not _is_down(parameter, parameters) else "inner"
            place = Place(expert, len(stack), transposed[parameter], slice(None))
            if parameter == GATE_UP:
                for role, rows in zip(("gate_proj", "up_proj"), _halves(module, place.view(stack)), strict=True):
                    yield Stored(role, parameter, reads, place._replace(rows=rows))
            else:
                yield Stored("" if parameter == "weight" else parameter, parameter, reads, place)


def listed_experts(block: nn.Module, name: str) -> dict[str, tuple[str, int, int]]:
    """The modules of a block that are experts in a list or a dictionary, by name: its name, the number in it, and how many there are.

    It is called so, or holds FFNs of one structure beside a linear layer that writes a number for each of them. Items without parameters
    (experts that return what they read) count as well.

    Args:
        name: of the block, for messages.

    Raises:
        UnsupportedModelError: modules of several kinds are called experts.
    """
    lists: dict[str, tuple[str, int, int]] = {}
    for path, module in block.named_modules():
        if not isinstance(module, nn.ModuleList | nn.ModuleDict) or len(module) < 2 or any(path.startswith(f"{item}.") for item in lists):
            continue
        items = dict(module.named_children())
        full = [item for item in items.values() if next(item.parameters(), None) is not None]
        kinds = sorted({type(item).__name__ for item in full})
        if "expert" in path.rpartition(".")[2].lower() and len(kinds) > 1:
            raise UnsupportedModelError(f"{name}.{path} holds experts of several kinds ({', '.join(kinds)}): they cannot be told apart")
        if ("expert" in path.lower() and len(kinds) == 1) or _is_mixture(block, path, full, len(items)):
            for number, key in enumerate(items):
                lists[f"{path}.{key}"] = path, number, len(items)
    return lists


def _is_mixture(block: nn.Module, path: str, items: list[nn.Module], count: int) -> bool:
    """Whether modules in a list are FFNs of one structure, beside a linear layer that writes one number for each item of the list."""
    shapes = {tuple((name, tuple(parameter.shape)) for name, parameter in item.named_parameters()) for item in items}
    if len(items) < 2 or len(shapes) > 1 or kind_of(block, f"{path}.0") != "ffn":
        return False
    layers = [module for module in items[0].modules() if is_linear(module)]
    if not any(inputs(one) == outputs(other) and inputs(other) == outputs(one) for one in layers for other in layers if one is not other):
        return False
    beside = [module for module in block.get_submodule(path.rpartition(".")[0]).children() if is_linear(module)]
    return any(outputs(module) == count and inputs(module) == inputs(layers[0]) for module in beside)


def in_groups(name: str, module: nn.Module) -> Iterator[Stored]:
    """The matrices of a linear layer that is one of several groups of channels; none for other modules."""
    groups = getattr(module, GROUPS, None)
    if isinstance(module, nn.Linear) and isinstance(groups, int) and groups > 1 and len(module.weight) % groups == 0:
        for number in range(groups):
            yield Stored("", "weight", "", Place(number, groups, False, slice(None)))


def _stacked(name: str, module: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters of a module that hold a matrix for each of several experts, as [experts, :, :]."""
    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd | nn.Embedding):
        return {}
    count = next((value for key in COUNTS if isinstance(value := getattr(module, key, None), int) and value > 1), 0)
    if not count and "expert" not in f"{name}.{type(module).__name__}".lower():
        return {}
    own = {key: parameter.detach() for key, parameter in module.named_parameters(recurse=False) if parameter.is_floating_point()}
    stacks = {key: parameter for key, parameter in own.items() if parameter.ndim == 3}
    if stacks:
        return stacks
    flat = {key: p for key, p in own.items() if p.ndim == 2 and count and len(p) % count == 0 and len(p) > count and "bias" not in key}
    return {key: parameter.view(count, -1, parameter.shape[1]) for key, parameter in flat.items()} if len(flat) > 1 else {}


def _is_down(parameter: str, parameters: dict[str, torch.Tensor]) -> bool:
    """Whether a matrix leads from the inner width of an expert back to the hidden states."""
    downs = [key for key in parameters if DOWN.search(key)]
    if not downs and len(parameters) > 1:
        downs = [list(parameters)[-1]]  # in the order of their use
    return parameter in downs


def _transposed(module: nn.Module, parameters: dict[str, torch.Tensor]) -> dict[str, bool]:
    """Whether each parameter is [experts, inputs, outputs]: as the module says, or as their shapes fit together.

    With ``h`` the hidden size and ``i`` the inner one, the way up is [i, h] or [2i, h], the way down [h, i]; transposed, [h, i] or [h, 2i],
    and [i, h]. Where ``i`` equals ``h``, or all are of one shape, they are taken to be [outputs, inputs], as in ``nn.Linear``.
    """
    declared = getattr(module, "is_transposed", None)
    if isinstance(declared, bool):
        return dict.fromkeys(parameters, declared)
    ups = [stack.shape[1:] for key, stack in parameters.items() if not _is_down(key, parameters)]
    downs = {key: stack.shape[1:] for key, stack in parameters.items() if _is_down(key, parameters)}
    if not ups or not downs:
        return dict.fromkeys(parameters, False)
    down = next(iter(downs.values()))
    if all(up == down for up in ups) and down[0] != down[1]:  # one below the other in the same order: only the way down is transposed
        return {key: key in downs for key in parameters}
    plain = all(up[1] == down[0] and up[0] in (down[1], 2 * down[1]) for up in ups)
    turned = all(up[0] == down[1] and up[1] in (down[0], 2 * down[0]) for up in ups)
    return dict.fromkeys(parameters, turned and not plain)


def _halves(module: nn.Module, matrix: torch.Tensor) -> tuple[slice, slice]:
    """The rows of the gate and of the way up in [outputs, inputs]: halves, or every other row (GPT-OSS)."""
    if getattr(module, "is_concatenated", True):
        half = len(matrix) // 2
        return slice(half), slice(half, None)
    return slice(None, None, 2), slice(1, None, 2)


@contextmanager
def visible_products(model: nn.Module) -> Iterator[None]:
    """Has the experts of a model computed in a way in which their products can be seen; other ways copy the weights first."""
    changed: dict[int, tuple[Any, str]] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        chosen = getattr(config, IMPLEMENTATION, None)
        if chosen is not None and chosen not in SEEN:
            changed[id(config)] = config, chosen
    try:
        for config, _ in changed.values():
            setattr(config, IMPLEMENTATION, "eager")
        yield
    finally:
        for config, chosen in changed.values():
            setattr(config, IMPLEMENTATION, chosen)
