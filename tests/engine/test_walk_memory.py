"""What a walk computes for one batch is gone before the next, also without a run of the garbage collector.

From Python 3.12 an error that a context manager made of a generator swallows is part of a reference cycle, with all tensors of the frames
that it came through. ``tests/repo/test_context_managers.py`` looks for such context managers with any Python.
"""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress

import pytest
import tiny
from torch import nn

from harness_ext import prune
from harness_ext.engine import walk
from harness_ext.errors import UnsupportedModelError

LENGTH = tiny.token_ids().shape[1]


@pytest.fixture(autouse=True)
def no_garbage_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def watch(model):
    """Weak references to all that linear layers read, and how many of them were alive at the start of each call of a block."""
    read, alive = [], []
    for block in model.model.layers:
        block.register_forward_pre_hook(lambda *_: alive.append(sum(reference() is not None for reference in read)))
        for layer in block.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_pre_hook(lambda _, args: read.append(weakref.ref(args[0])))
    return read, alive


@pytest.mark.parametrize("options", [{}, {"true_sequential": True}])
def test_nothing_that_a_batch_made_is_alive_when_the_next_begins(options, monkeypatch):
    monkeypatch.setattr(walk, "BATCH_TOKENS", LENGTH)
    model = tiny.model()
    read, alive = watch(model)
    prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(4), **options)
    assert len(alive) > 8
    assert len(read) > len(alive)
    assert not any(alive)


def test_nothing_is_alive_when_a_model_was_refused():
    model, calls = tiny.model(), []
    mlp = model.model.layers[1].mlp
    forward = mlp.forward

    def another_each_time(states):
        calls.append(None)
        return forward(states) + len(calls)

    mlp.forward = another_each_time
    hidden = []
    model.model.layers[1].register_forward_pre_hook(lambda _, args: hidden.append(weakref.ref(args[0])))
    with suppress(UnsupportedModelError):
        prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(4))
        pytest.fail("want the model refused")
    assert hidden
    assert not any(reference() is not None for reference in hidden)
