"""Several processes that prune one model together (torchrun, ``accelerate launch``): each measures a share of the calibration tokens.

Statistics are summed over the processes, so all prune from the same numbers. The weights of the first process are sent to the others, so
all end with the same bits. In a single process each function here returns its argument.
"""

from __future__ import annotations

import atexit
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from harness_ext.errors import BadOptionError, PluginError
from harness_ext.method.statistic import Statistic

T = TypeVar("T")


def count() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process writes and logs for all of them."""
    return count() == 1 or dist.get_rank() == 0


@contextmanager
def left_at_exit() -> Iterator[None]:
    """A group of gloo that is formed in this context is destroyed before Python ends. A group that exists is left as it is.

    A thread of gloo drops the tensors of the last collective. If it does so while Python ends, torch aborts the process. To destroy a
    group is to wait for its threads. What was registered with ``atexit`` before finds no group.
    """
    if not dist.is_available() or dist.is_initialized():
        yield
        return
    # Its default arguments are the group that exists at the import. They would keep the threads of that group.
    importlib.import_module("torch.distributed.nn.functional")
    try:
        yield
    finally:  # an error may come after the group
        if dist.is_initialized():
            atexit.register(_leave)


def _leave() -> None:
    # A group of NCCL waits for what other processes do, and would not end after an error in this one.
    if dist.is_initialized() and dist.get_backend() == dist.Backend.GLOO:
        dist.destroy_process_group()


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
    """Sums a statistic over all processes, in place.

    Raises:
        PluginError: the class of the statistic names nothing in ``additive``.
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
    """Whether ``holds`` is true in all processes. Every process must call this, so that none waits for one that raised an error."""
    return all(gather(holds))


def gather(value: T) -> list[T]:
    """The values of all processes, in the order of the processes. Every process must call this."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: T) -> T:
    """The value of the first process, any object that can be pickled."""
    if count() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def broadcast_tensor(tensor: torch.Tensor) -> None:
    """Overwrites a tensor with that of the first process."""
    if count() > 1:
        whole = tensor.contiguous()
        dist.broadcast(whole, src=0)
        tensor.copy_(whole)


def _device(device: torch.device) -> torch.device:
    return device if dist.get_backend() == "nccl" else torch.device("cpu")
