"""Restores global state that other people's code may change: environment variables and random generators."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def kept_environment(**changes: str) -> Iterator[None]:
    """Restores the environment variables afterwards.

    Args:
        changes: variables to set within the context.
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
