"""Chooses the sparsity of each linear layer. An allocation that looks at weights or activations sees the dense model, block by block."""

from __future__ import annotations

from typing import Any

import torch

from harness_ext.engine import checks, ranks
from harness_ext.engine.allocate import allocate
from harness_ext.engine.layers import DecoderBlock
from harness_ext.engine.placement import Placement
from harness_ext.engine.plan import Plan
from harness_ext.engine.stopwatch import Stopwatch
from harness_ext.engine.terminal import progress
from harness_ext.engine.walk import Stages, Walk, unmeasured
from harness_ext.method.allocation import LayerShape, Measured
from harness_ext.method.sparsity import Sparsity


def choose_sparsities(
    plan: Plan, blocks: list[DecoderBlock], placement: Placement, stopwatch: Stopwatch, input_ids: torch.Tensor | None
) -> dict[str, Sparsity]:
    """Asks the allocation of the plan for the sparsity of each selected layer, by its name.

    Args:
        blocks: all decoder blocks, with the selected layers.
        input_ids: int64 [samples, length], where the plan is calibrated.

    Raises:
        BadOptionError, PluginError: as :func:`harness_ext.engine.allocate.allocate`.
        NumericalError: an activation is not finite.
    """
    shapes = [
        LayerShape(layer.name, index, layer.kind, *layer.weight.shape) for index, block in enumerate(blocks) for layer in block.layers
    ]
    measured = _measure(plan, blocks, placement, stopwatch, input_ids, shapes) if plan.allocation.reads_weights() else {}
    return ranks.broadcast(allocate(plan.allocation, plan.pruner, plan.sparsity, shapes, measured))


def _measure(
    plan: Plan,
    blocks: list[DecoderBlock],
    placement: Placement,
    stopwatch: Stopwatch,
    input_ids: torch.Tensor | None,
    shapes: list[LayerShape],
) -> dict[int, Any]:
    """What the allocation keeps of each block of the dense model, by the number of the block."""
    allocation, dtype = plan.allocation, getattr(torch, plan.precision)
    statistic = allocation.measures(plan.pruner)
    walk = Walk(placement, blocks, input_ids, dtype, stopwatch) if statistic and input_ids is not None else None
    by_name = {shape.name: shape for shape in shapes}

    def ask(block: DecoderBlock, stages: Stages) -> Any:
        statistics = {layer.name: next(iter(measured), None) for layers, measured in stages for layer in layers}
        seen = [Measured(by_name[layer.name], layer.weight.to(dtype).contiguous(), statistics[layer.name]) for layer in block.layers]
        tensors = [layer.weight for layer in seen] + [tensor for layer in seen for tensor in checks.tensors_of(layer.statistic)]
        blame = f"allocation {allocation.name!r} broke its contract on {block.name}"
        with stopwatch("allocation"), checks.untouched(tensors, "a weight or a statistic that it was given", blame):
            return allocation.measure(seen, plan.pruner)

    results = {}
    last = max(index for index, block in enumerate(blocks) if block.layers)
    with progress(f"allocation {allocation.name}", last + 1) as advance:
        for index, block in enumerate(blocks[: last + 1]):
            if block.layers or walk:
                with placement.loaded(block, write=False):
                    if block.layers:
                        results[index] = ask(block, walk.measure(index, [statistic]) if walk and statistic else unmeasured(block))
                    if walk and index < last:
                        walk.advance(index)
            advance()
    return results
