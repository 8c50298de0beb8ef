"""Measures and prunes the layers of a block in the order of their use, in one pass of the calibration tokens ("true sequential").

Every batch is on its way through the block at the same time, and waits in front of the layers that are to be pruned next until these have
been measured on all batches and pruned. What follows sees what they make of it.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import torch
from greenlet import getcurrent, greenlet
from torch import nn

from harness_ext.engine.layers import LinearLayer
from harness_ext.engine.walk import Kinds, Stages, Walk
from harness_ext.errors import UnsupportedModelError


def stages(walk: Walk, index: int, kinds: Kinds, *, finish: bool) -> Stages:
    """Runs a block, which must be in place, once, and gives the layers that read one tensor, with the statistics of it, in the order of
    their use. They are to be pruned before the next are asked for.

    The batches that wait hold what the block has computed of them so far: at the last layer of an FFN its inputs of all calibration tokens.

    Args:
        index: the number of the block.
        finish: whether to go on to the block's end, so that its output is the next block's input.

    Raises:
        NumericalError: an input is NaN or infinite, or an output.
        UnsupportedModelError: the layers are not used once each, in the same order in all batches.
    """
    groups = walk.order(index)
    first = {layer.name: layer for layers in groups.values() for layer in layers if layer.name in groups}
    batches = range(len(walk.hidden))
    runs = [_start(lambda batch=batch: walk.put(batch, walk.call(index, batch))) for batch in batches]  # type: ignore[misc]
    handles = [first[owner].module.register_forward_pre_hook(_wait(first[owner])) for owner in groups]
    try:
        for owner, layers in groups.items():
            reading = walk.new_reading(first[owner], kinds)
            for run in runs:
                with walk.stopwatch("forward"), torch.no_grad():
                    stop = run.switch()  # None at the end of the block
                if stop is None or stop[0] != owner:
                    raise UnsupportedModelError(f"{owner} is not used in the same order in all batches: true_sequential has none for it")
                with walk.stopwatch("statistics"):
                    reading.update(stop[1])
                del stop
            with walk.stopwatch("statistics"):
                found = reading.finish()
            del reading
            yield layers, found
            del found
        if finish:
            with walk.stopwatch("forward"), torch.no_grad():
                for run in runs:
                    run.switch()
            walk.check(index)
    finally:
        for handle in handles:
            handle.remove()
        for run in runs:
            if run:  # begun and not at its end
                run.throw()


def _start(call: Callable[[], None]) -> greenlet:
    """A run that stops where it waits, and goes on when it is switched to, in the context variables of now."""
    run = greenlet(call)
    run.gr_context = contextvars.copy_context()
    return run


def _wait(layer: LinearLayer) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """A hook that hands the layer's input to whoever switched to the run, and waits to be switched to again."""

    def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
        run = getcurrent()
        if run.parent is not None:  # a call of the block from elsewhere does not wait
            run.parent.switch((layer.name, args[0]))

    return hook
