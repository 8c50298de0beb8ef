"""Finds what chooses the experts of a decoder block: routers, and what weighs a shared expert. They stay dense."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from harness_ext.engine.experts import listed_experts, stored_experts
from harness_ext.engine.kinds import kind_of
from harness_ext.engine.linear import inputs, is_linear, outputs
from harness_ext.errors import UnsupportedModelError

NAMES = ("router", "gate", "gating", "wg")  # what modules are called that choose experts


class Routers:
    """The modules of a block that choose experts.

    A router writes one number for each expert, or one number for a shared expert. It is called so, or is in a module that is, or in one
    of a class of routers, which may have several layers. Without such a name, it is the only linear layer beside the experts that writes
    one number for each of them. The gate of a gated FFN is none: another linear layer beside it leads from its outputs back to its inputs.

    Args:
        block: the decoder block.
        name: its full name, for messages.

    Raises:
        UnsupportedModelError: several layers beside experts could be the router.
    """

    def __init__(self, block: nn.Module, name: str) -> None:
        self.block = block
        self.listed = listed_experts(block, name)
        self.stored = {path: found for path, module in block.named_modules() if (found := list(stored_experts(path, module)))}
        self._groups: dict[str, tuple[str, int]] = {}  # by the module that holds experts: their kind, and how many there are
        for path, matrices in self.stored.items():
            self._groups[path] = kind_of(block, path), matrices[0].place.of
        for path, (group, _, count) in self.listed.items():
            self._groups.setdefault(group, (kind_of(block, path), count))
        self._counts: dict[str, set[int]] = {}  # by kind
        for kind, count in self._groups.values():
            self._counts.setdefault(kind, set()).add(count)
        self._unnamed = {path for group in self._groups for path in self._without_a_name(group, name)}

    def expert_of(self, path: str) -> tuple[str, int, int, str] | None:
        """For a module of an expert in a list: the list, the number in it, how many there are, and the path in the expert."""
        parts = path.split(".")
        for depth in range(1, len(parts)):
            if found := self.listed.get(".".join(parts[:depth])):
                return *found, ".".join(parts[depth:])
        return None

    def has(self, path: str, width: int, kind: str) -> bool:
        """Whether a module is a router, or a part of one.

        Args:
            path: of the module in the block.
            width: how many features it writes.
            kind: of the module; those of another kind than the experts choose none.
        """
        counts = self._counts.get(kind)
        if not counts or self.expert_of(path):
            return False
        return self._is_named(path, width, counts) or path in self._unnamed or (width == 1 and not self._is_of_ffn(path))

    def _is_named(self, path: str, width: int, counts: set[int]) -> bool:
        """Whether a module is of a class of routers, or is called so and writes scores, or is in such a module."""
        parts = path.split(".")
        around = [".".join(parts[:depth]) for depth in range(1, len(parts))]
        if any("Router" in self._class(name) for name in (*around, path)):
            return True
        if any(self._is_called_so(name) and any(size in counts for size in self._widths(name)) for name in around):
            return True
        called = "gate" in parts[-1] or self._is_called_so(path)
        return called and (width == 1 or width in counts) and not self._is_of_ffn(path)

    def _is_called_so(self, path: str) -> bool:
        leaf = path.rpartition(".")[2]
        return leaf in NAMES or "router" in leaf.lower() or "Gating" in self._class(path)

    def _class(self, path: str) -> str:
        return type(self.block.get_submodule(path)).__name__

    def _widths(self, path: str) -> Iterator[int]:
        """How many features the matrices in a module write."""
        for module in self.block.get_submodule(path).modules():
            if is_linear(module):
                yield outputs(module)
            else:
                yield from (len(parameter) for parameter in module.parameters(recurse=False) if parameter.ndim >= 2)

    def _is_of_ffn(self, path: str) -> bool:
        """Whether a linear layer leads into an FFN: another one beside it reads as much as it writes, or half, and writes what it reads."""
        module, (parent, _, leaf) = self.block.get_submodule(path), path.rpartition(".")
        if not is_linear(module):
            return False
        beside = {name: other for name, other in self.block.get_submodule(parent).named_children() if name != leaf and is_linear(other)}
        width, states = outputs(module), inputs(module)
        if not any(inputs(other) in (width, width / 2) and outputs(other) == states for other in beside.values()):
            return False
        if leaf in NAMES and any(group.startswith(f"{parent}.".lstrip(".")) for group in self._groups):
            up = beside.get(leaf.replace("gate", "up"))  # beside experts, the FFN may be a shared expert that is as wide as they are many
            return up is not None and outputs(up) == width and inputs(up) == states
        return True

    def _without_a_name(self, group: str, block: str) -> list[str]:
        """The linear layer beside experts that alone writes a number for each of them, if nothing that is called a router does."""
        kind, count = self._groups[group]
        for path, module in self.block.named_modules():
            if path and not self.expert_of(path) and path not in self._groups:
                own = [outputs(module)] if is_linear(module) else [len(p) for p in module.parameters(recurse=False) if p.ndim >= 2]
                if count in own and kind_of(self.block, path) == kind and self._is_named(path, count, {count}):
                    return []
        parent = group.rpartition(".")[0]
        names = [".".join(filter(None, (parent, name))) for name, _ in self.block.get_submodule(parent).named_children()]
        linear = [path for path in names if is_linear(module := self.block.get_submodule(path)) and outputs(module) == count]
        found = [path for path in linear if kind_of(self.block, path) == kind and not self._is_of_ffn(path)]
        if len(found) > 1:
            which = " and ".join(f"{block}.{path}" for path in found)
            raise UnsupportedModelError(f"{which}: it cannot be told which of them chooses the experts of {block}.{group}")
        return found
