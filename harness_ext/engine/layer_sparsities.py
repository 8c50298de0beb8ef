"""Chooses the sparsity of each linear layer. An allocation that looks at weights or activations sees the dense model, block by block."""

from __future__ import annotations

from typing import Any

import torch

from harness_ext.engine import checks, ranks
from harness_ext.engine.allocate import allocate
from harness_ext.engine.calls import Route
from harness_ext.engine.fit import shapes_of
from harness_ext.engine.layers import DecoderBlock
from harness_ext.engine.listening import Stage
from harness_ext.engine.placement import Placement
from harness_ext.engine.plan import Plan
from harness_ext.engine.stopwatch import Stopwatch
from harness_ext.engine.terminal import progress
from harness_ext.engine.walk import Stages, Walk, batches_of, unmeasured
from harness_ext.errors import CalibrationError
from harness_ext.method.allocation import Measured
from harness_ext.method.shapes import LayerShape
from harness_ext.method.sparsity import Sparsity


def choose_sparsities(
    plan: Plan,
    blocks: list[DecoderBlock],
    placement: Placement,
    stopwatch: Stopwatch,
    input_ids: torch.Tensor | None,
    route: Route | None,
) -> dict[str, Sparsity]:
    """Asks the allocation of the plan for the sparsity of each selected layer, by its name.

    Args:
        blocks: all decoder blocks, with the selected layers.
        input_ids: int64 [samples, length], where the plan is calibrated.
        route: how blocks are called, where anything is measured.

    Raises:
        BadOptionError, PluginError: as :func:`harness_ext.engine.allocate.allocate`.
        NumericalError: an activation is not finite.
    """
    shapes = shapes_of(blocks)
    measured = _measure(plan, blocks, placement, stopwatch, input_ids, route, shapes) if plan.allocation.reads_weights() else {}
    return ranks.broadcast(allocate(plan.allocation, plan.pruner, plan.sparsity, shapes, measured))


def _measure(
    plan: Plan,
    blocks: list[DecoderBlock],
    placement: Placement,
    stopwatch: Stopwatch,
    input_ids: torch.Tensor | None,
    route: Route | None,
    shapes: list[LayerShape],
) -> dict[int, Any]:
    """What the allocation keeps of each block of the dense model, by the number of the block."""
    allocation, dtype = plan.allocation, getattr(torch, plan.precision)
    statistic = allocation.measures(plan.pruner)
    walk = None
    if statistic and input_ids is not None and route is not None:
        batches = batches_of(input_ids, placement.device)
        walk = Walk(placement, blocks, batches, dtype, stopwatch, route, every_token=plan.experts == "all")
    by_name = {shape.name: shape for shape in shapes}

    def ask(block: DecoderBlock, stages: Stages) -> Any:
        measured = _with_siblings(list(stages))
        statistics = {layer.name: next(iter(stage.statistics), None) for stage in measured for layer in stage.layers}
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


def _with_siblings(stages: list[Stage]) -> list[Stage]:
    """Stages with, for an expert that got no token, the statistics of all experts of its group together.

    Raises:
        CalibrationError: such statistics do not add up.
    """

    def roles(stage: Stage) -> set[tuple[str, str]]:
        return {(layer.expert.group, layer.expert.role) for layer in stage.layers if layer.expert}

    for stage in stages:
        for position, statistic in enumerate(stage.statistics if stage.tokens == 0 else ()):
            if not statistic.additive:
                raise CalibrationError(f"{stage.layers[0].name} got no calibration token: want experts=all, or more samples")
            for sibling in stages:
                if sibling.tokens and roles(sibling) & roles(stage):
                    statistic.tokens += sibling.tokens
                    for name in statistic.additive:
                        getattr(statistic, name).add_(getattr(sibling.statistics[position], name))
    return stages
