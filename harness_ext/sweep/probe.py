"""Measures how fast a model computes, in about a second and without its weights: for the estimate of a sweep's cost."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from harness_ext.host.batch_size import default_batch_size
from harness_ext.sweep.fields import Sweep

LONG = 0.1  # seconds of a pass, from which on larger batches tell nothing new
SMALL = 100e6  # parameters of a model that is measured whole; of a larger one, one and two decoder blocks are
GENERATED_TOGETHER = 64  # sequences, of the calibration text that a model writes


@dataclass(frozen=True)
class Speed:
    """Seconds of a model: for one token of a forward pass, and for one step of generation of 64 sequences."""

    token: float
    step: float


def measure(sweep: Sweep, config: Any, parameters: int, length: int) -> Speed:
    """Runs forward passes of a model with arbitrary weights.

    Args:
        config: of the model.
        parameters: their number in the whole model.
        length: tokens of a typical prompt.
    """
    device = torch.device(sweep.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    batch = int(sweep.batch_size) if sweep.batch_size and sweep.batch_size.isdecimal() else default_batch_size(parameters)
    blocks = config.get_text_config().num_hidden_layers
    measured = (blocks,) if parameters <= SMALL or blocks <= 2 else (1, 2)
    speeds = []
    for count in measured:
        model = _arbitrary(config, count, sweep, device)
        step = min(_seconds(model, (GENERATED_TOGETHER, 1), device) for _ in range(2))
        speeds.append(Speed(_seconds_a_token(model, batch, length, device), step))
    first, last = speeds[0], speeds[-1]
    more = blocks - measured[0]
    return Speed(first.token + max(0.0, last.token - first.token) * more, first.step + max(0.0, last.step - first.step) * more)


def _arbitrary(config: Any, blocks: int, sweep: Sweep, device: torch.device) -> Any:
    """A model of that many decoder blocks whose weights are all the same."""
    from transformers import AutoModelForCausalLM

    smaller = deepcopy(config)
    smaller.get_text_config().num_hidden_layers = blocks
    named = sweep.dtype if sweep.dtype not in (None, "auto") else None
    dtype = getattr(torch, named) if named else getattr(config, "dtype", None) or torch.float32
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(smaller, dtype=dtype, trust_remote_code=sweep.trust_remote_code)
    model = model.to_empty(device=device).eval()
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data.fill_(0.01)
    return model


def _seconds_a_token(model: Any, batch: int, length: int, device: torch.device) -> float:
    """Of batches that grow to the size of those of an evaluation, as long as a pass is short."""
    shape = (1, min(16, length))
    while True:
        seconds = _seconds(model, shape, device)
        if seconds > LONG or shape == (batch, length):
            seconds = min(seconds, _seconds(model, shape, device))
        sequences, tokens = shape
        if seconds > LONG or shape == (batch, length):
            return seconds / (sequences * tokens)
        shape = (1, min(2 * tokens, length)) if tokens < length else (min(2 * sequences, batch), length)


def _seconds(model: Any, shape: tuple[int, int], device: torch.device) -> float:
    """The time of a forward pass. The first of a shape is slower than the others.

    On a CPU that other processes use as well, waiting for it does not count: a short pass that was interrupted tells nothing of a long one.
    """
    ids = torch.zeros(shape, dtype=torch.int64, device=device)
    with torch.no_grad():
        began, computed = time.perf_counter(), time.process_time()
        model(ids)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        passed = time.perf_counter() - began
    return min(passed, time.process_time() - computed) if device.type == "cpu" else passed  # the CPU time is of all threads together
