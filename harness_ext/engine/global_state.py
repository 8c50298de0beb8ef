"""Restores global state: environment variables, random generators, and how precisely torch multiplies."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import numpy as np
import torch

T = TypeVar("T")


@contextmanager
def kept_environment(**changes: str) -> Iterator[None]:
    """Restores the environment variables afterwards.

    Args:
        changes: variables to set within the context.

    Examples:
        >>> import os
        >>> from harness_ext import kept_environment
        >>> with kept_environment(MY_VARIABLE="1"):
        ...     os.environ["MY_VARIABLE"]
        '1'
        >>> "MY_VARIABLE" in os.environ
        False
    """
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def kept_generators(seed: int | None = None) -> Iterator[None]:
    """Restores the global random generators of Python, NumPy and torch, on the CPU and on every CUDA device, afterwards.

    Args:
        seed: seeds all of them within the context; None leaves their state.

    Examples:
        >>> import torch
        >>> from harness_ext import kept_generators
        >>> with kept_generators(seed=0):
        ...     first = torch.rand(1)
        >>> with kept_generators(seed=0):
        ...     again = torch.rand(1)
        >>> bool(first == again)
        True
    """
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            if seed is not None:
                random.seed(seed)
                np.random.seed(seed)
                torch.manual_seed(seed)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def seed_for(weight: torch.Tensor, seed: int) -> int:
    """A seed for one linear layer, from its weight and the seed of a run: layers of one shape get different random numbers.

    Args:
        weight: of the layer, in a dtype that NumPy has.
        seed: at least 0 and below 2^32.

    Returns:
        a number below 2^32, the same on every device.

    Examples:
        >>> import torch
        >>> from harness_ext import seed_for
        >>> generator = torch.Generator().manual_seed(seed_for(torch.zeros(2, 3), seed=0))
        >>> seed_for(torch.zeros(2, 3), seed=0) == seed_for(torch.ones(2, 3), seed=0)
        False
    """
    content = hashlib.sha256(weight.cpu().contiguous().numpy().tobytes()).digest()
    return seed ^ int.from_bytes(content[:4], "little")


@contextmanager
def full_float32() -> Iterator[None]:
    """Has torch multiply float32 numbers as such within the context, not rounded to TensorFloat32 or bfloat16, and restores what the caller
    had set. Where torch has settings for each backend (from 2.9 on) they are restored too; the older ones cannot be read if both were used.
    """
    precision, cudnn = _readable(torch.get_float32_matmul_precision), _readable(lambda: torch.backends.cudnn.allow_tf32)
    backends = [place for place in _float32_settings() if hasattr(place, "fp32_precision")]
    before = [place.fp32_precision for place in backends]
    if precision is not None:
        torch.set_float32_matmul_precision("highest")
    if cudnn is not None:
        torch.backends.cudnn.allow_tf32 = False
    for place in backends:
        place.fp32_precision = "ieee"
    try:
        yield
    finally:
        if precision is not None:
            torch.set_float32_matmul_precision(precision)
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = cudnn
        for place, value in zip(backends, before, strict=True):
            place.fp32_precision = value


def _float32_settings() -> list[Any]:
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    names = ("matmul", "conv", "rnn")
    return [getattr(backend, name) for backend in (cuda, cudnn, mkldnn) for name in names if hasattr(backend, name)]


def _readable(read: Callable[[], T]) -> T | None:
    """A setting, or None where torch refuses to tell it because it was set by other means."""
    with suppress(RuntimeError):
        return read()
    return None
