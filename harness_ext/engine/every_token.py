"""Sends all tokens to all experts, so that each is measured on all of them. What the block computes stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from harness_ext.engine.calls import failing
from harness_ext.engine.layers import DecoderBlock
from harness_ext.errors import UnsupportedModelError

IDLE, ON_ALL, ON_ROUTED = "idle", "on all tokens", "on routed tokens"


class EveryToken:
    """Within this context, a block that is about to use its experts first computes each expert on all tokens, and forgets the results.

    The experts are computed by the model: by the module that is given the choice of experts, with another choice, or by the module of each
    expert, with all that the module around the list reads.

    Args:
        block: its layers that belong to experts say where the experts are.
    """

    def __init__(self, block: DecoderBlock) -> None:
        self._block = block
        self._stored = {layer.expert.group for layer in block.layers if layer.expert and layer.place}
        self._listed = {layer.expert.group for layer in block.layers if layer.expert and not layer.place}
        self._numbers = {layer.expert.group: 0 for layer in block.layers if layer.expert}
        for layer in block.layers:
            if layer.expert:
                self._numbers[layer.expert.group] = max(self._numbers[layer.expert.group], layer.expert.number + 1)
        self._state = dict.fromkeys(self._numbers, IDLE)

    def counts(self, group: str) -> bool:
        """Whether what these experts read now is to be measured.

        Raises:
            UnsupportedModelError: they compute the tokens that were sent to them, and have not computed all.
        """
        if self._state[group] == IDLE:
            raise UnsupportedModelError(
                f"experts=all: no module around {group} is given the choice of experts, so that it cannot be changed: want experts=routed"
            )
        return self._state[group] == ON_ALL

    def __enter__(self) -> EveryToken:
        self._stack = ExitStack()
        for group in self._stored:
            for module in self._around(group)[:-1]:
                self._listen(module, self._all_by_choice, group)
        for group in self._listed:
            self._listen(self._around(group)[1], self._all_by_call, group)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _around(self, group: str) -> list[nn.Module]:
        """The module that holds the experts, and those around it, up to the block."""
        parts = group.removeprefix(f"{self._block.name}.").split(".")
        return [self._block.module.get_submodule(".".join(parts[:depth])) for depth in range(len(parts), -1, -1)]

    def _listen(self, module: nn.Module, compute: Callable[..., bool], group: str) -> None:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._state[group] == IDLE:
                self._state[group] = ON_ALL
                with failing(f"experts=all: {group} cannot be computed on all tokens"):
                    self._state[group] = ON_ROUTED if compute(module, group, args, kwargs) else IDLE
                entered.append(self._state[group])
            else:
                entered.append(IDLE)

        def after(*_: Any) -> None:
            if entered.pop() == ON_ROUTED:
                self._state[group] = IDLE

        entered: list[str] = []
        self._stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        self._stack.callback(module.register_forward_hook(after).remove)

    def _all_by_choice(self, module: nn.Module, group: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Calls a module with one expert after the other in the place of those that were chosen, if it is given a choice with shares."""
        arguments: dict[int | str, Any] = dict(enumerate(args))
        arguments.update(kwargs)
        chosen = {key: value for key, value in arguments.items() if _is_choice(value)}
        if len(chosen) != 1:
            return False
        ((place, choice),) = chosen.items()
        tensors = {key: value for key, value in arguments.items() if isinstance(value, torch.Tensor) and key != place}
        shares = {key: value for key, value in tensors.items() if value.shape == choice.shape and value.is_floating_point()}
        if not shares:
            return False
        for number in range(self._numbers[group]):
            changed = {**arguments, place: torch.full_like(choice[:, :1], number)}
            changed |= {key: torch.ones_like(value[:, :1]) for key, value in shares.items()}
            module.forward(*(changed[index] for index in range(len(args))), **{key: changed[key] for key in kwargs})
        return True

    def _all_by_call(self, module: nn.Module, group: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Calls the module of each expert with all that the module around the list reads."""
        states = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
        for expert in self._around(group)[0].children():
            expert(states.reshape(-1, states.shape[-1]))
        return True


def _is_choice(value: Any) -> bool:
    """Whether an argument says which experts each token is sent to: integers [tokens, experts of a token]."""
    return isinstance(value, torch.Tensor) and value.ndim == 2 and value.dtype in (torch.int64, torch.int32)
