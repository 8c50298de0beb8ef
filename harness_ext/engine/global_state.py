"""Global state that the code of others may change, put back afterwards: the environment variables and the random generators."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def kept_environment(**changes: str) -> Iterator[None]:
    """The environment variables are afterwards what they were.

    Args:
        changes: variables that are set meanwhile.
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
    """The global generators of Python, NumPy and torch, on the CPU and on every CUDA device, are afterwards what they were.

    Args:
        seed: of all of them meanwhile; None to leave them where they are.
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
