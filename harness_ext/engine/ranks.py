"""Several processes that prune one model together (torchrun, ``accelerate launch``): each sees a share of the calibration tokens.

Statistics are added up over the processes, so that all prune from the same numbers, and the first one's weights are handed to the
others, so that all end with the same bits. In a single process every function here gives back what it was given.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist

from harness_ext.errors import BadOptionError, PluginError
from harness_ext.method.statistic import Statistic

T = TypeVar("T")


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process speaks for all."""
    return count() == 1 or dist.get_rank() == 0


def share(input_ids: torch.Tensor) -> torch.Tensor:
    """This process's share of the sequences, int64 [samples, length].

    Raises:
        BadOptionError: there are fewer sequences than processes.
    """
    if count() == 1:
        return input_ids
    if len(input_ids) < count():
        raise BadOptionError(f"calibration.samples={len(input_ids)}: want at least one sequence for each of {count()} processes")
    return input_ids.tensor_split(count())[dist.get_rank()]


def all_reduce(statistic: Statistic, layer: str) -> None:
    """Adds a statistic up over all processes, in place.

    Raises:
        PluginError: its class does not name what adds up.
    """
    if count() == 1:
        return
    if not statistic.additive:
        raise PluginError(f"{layer}: {type(statistic).__qualname__} names nothing additive: it cannot be measured by several processes")
    tokens = torch.tensor(statistic.tokens, device=_device(statistic.device))
    dist.all_reduce(tokens)
    statistic.tokens = int(tokens)
    for name in statistic.additive:
        dist.all_reduce(getattr(statistic, name))


def all_true(holds: bool) -> bool:
    """Whether it holds in all processes. All must ask, so that none waits for one that has raised an error."""
    if count() == 1:
        return holds
    answers: list[bool | None] = [None] * count()
    dist.all_gather_object(answers, holds)
    return all(answers)


def broadcast(value: T) -> T:
    """The first process's value: any object that can be pickled."""
    if count() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def broadcast_tensor(tensor: torch.Tensor) -> None:
    """Overwrites a tensor with the first process's."""
    if count() > 1:
        whole = tensor.contiguous()
        dist.broadcast(whole, src=0)
        tensor.copy_(whole)


def _device(device: torch.device) -> torch.device:
    return device if dist.get_backend() == "nccl" else torch.device("cpu")
