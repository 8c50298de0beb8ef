"""The global random generators of Python, NumPy and torch, which tasks of lm-eval may draw from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

MOST_WORDS = 50_000  # lm-eval draws 16 for each time that it reads a name

RandomState = tuple[Any, Any, torch.Tensor, list[torch.Tensor]]


def set_seeds(plus: int = 0) -> None:
    """Sets the seeds to lm-eval's defaults, as ``simple_evaluate`` does, or to other seeds: these plus a number."""
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

    random.seed(DEFAULT_RANDOM_SEED + plus)
    np.random.seed(DEFAULT_OTHER_SEED + plus)
    torch.manual_seed(DEFAULT_OTHER_SEED + plus)


def random_state() -> RandomState:
    """The states of the global random generators of Python, NumPy and torch."""
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), on_devices


def set_random_state(state: RandomState) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    if state[3]:
        torch.cuda.set_rng_state_all(state[3])


def words_drawn(before: RandomState, after: RandomState) -> int | None:
    """How many 32-bit words were drawn from Python's generator; None if another generator, or more than the place in this one, changed."""
    same = all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True)) and torch.equal(before[2], after[2])
    if not same or not all(torch.equal(a, b) for a, b in zip(before[3], after[3], strict=True)):
        return None
    generator = random.Random()
    generator.setstate(before[0])
    for words in range(MOST_WORDS):
        if generator.getstate() == after[0]:
            return words
        generator.getrandbits(32)
    return None
