"""The rules of allocations, as tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from harness_ext.engine.checks import tensors_of, untouched
from harness_ext.engine.layers import find_blocks
from harness_ext.errors import BadOptionError, HarnessExtError
from harness_ext.method.allocation import Allocation, Measured
from harness_ext.method.pruner import PruningMethod
from harness_ext.method.shapes import LayerShape
from harness_ext.method.sparsity import Sparsity
from harness_ext.testing.contracts import degenerate, given
from harness_ext.testing.contracts.additivity import check_additive
from harness_ext.testing.contracts.given import fail, told_in_one_line
from harness_ext.testing.contracts.plugin import PluginContract


class AllocationContract(PluginContract, degenerate.DegenerateCases):
    """Tests of an allocation. A class whose name begins with ``Test`` inherits them:

        class TestMine(AllocationContract):
            allocation = Mine

    The engine spreads the sparsity over a small model with random weights, as in a run.
    """

    allocation: Any = None
    """The class, its registered name (which also tests the entry point), or a method that returns an instance."""
    pruner: Any = "magnitude"
    """A pruner to combine with the allocation."""
    ratios: tuple[float, ...] = (0.1, 0.5, 0.9)
    patterns: tuple[str, ...] = ("1:4", "2:4")
    several_processes: bool = True
    """Whether several processes can measure the statistic. If False, a run with several processes is an error."""

    def allocation_for(self, model: Any, sparsity: Sparsity) -> Allocation:
        """The allocation under test. Override this where its options depend on the model or the sparsity."""
        return given.make(Allocation, given.plugins().allocations, self.allocation, self.options)

    # --- the rules

    def test_its_statistic_can_be_measured_by_several_processes(self) -> None:
        if self.several_processes:
            check_additive(self._allocation().measures(self._pruner()), self._who())

    def test_the_layers_add_up_to_what_was_asked_for(self) -> None:
        self._spread_all(self.ratios)

    def test_it_spreads_patterns_or_refuses_them(self) -> None:
        if self._allocation().patterns:
            self._spread_all(self.patterns)
            return
        for pattern in self.patterns:
            self._check_refused(pattern)

    def test_it_refuses_a_pattern_that_does_not_divide_the_row(self) -> None:
        self._check_refused("2:7")

    def test_it_spreads_over_a_part_of_the_model(self) -> None:
        for modules in ("ffn", "*.q_proj", "*.layers.1.*"):
            with told_in_one_line(f"modules={modules}"):
                self._prune(given.small_model(), 0.5, modules=modules)

    def test_it_writes_into_nothing_that_it_is_given(self) -> None:
        pruner = self._pruner()
        with told_in_one_line():
            allocation, layers, blocks = self._allocation(), [], {}
            for index, block in enumerate(find_blocks(given.small_model())):
                kind = allocation.measures(pruner)
                looked_at = [_measured(index, layer, kind) for layer in block.layers]
                tensors = [tensor for measured in looked_at for tensor in (measured.weight, *tensors_of(measured.statistic))]
                if allocation.reads_weights():
                    with untouched(tensors, "the weights or the statistics that it was given", f"allocation {allocation.name!r}"):
                        blocks[index] = allocation.measure(looked_at, pruner)
                layers += [measured.layer for measured in looked_at]
            order, keys = list(layers), list(blocks)
            allocation.spread(Sparsity(0.5), layers, blocks)
            if layers != order or list(blocks) != keys:
                fail(f"allocation {allocation.name!r}: it wrote into the layers or the measurements that spread was given")

    def test_it_gives_the_same_sparsities_twice(self) -> None:
        sparsities = []
        for seed in (1, 2):
            with self._own_generators(seed):
                sparsities.append(self._asked(self._prune(given.small_model(), 0.5)))
        if name := next((name for name in sparsities[0] if sparsities[0][name] != sparsities[1][name]), None):
            fail(f"{self._who()}: {name} gets {sparsities[0][name]}, and {sparsities[1][name]} when it is done again")

    # --- how they are tested

    def _allocation(self) -> Allocation:
        return self.allocation_for(given.small_model(), Sparsity(0.5))

    def _pruner(self) -> PruningMethod:
        return given.make(PruningMethod, given.plugins().pruners, self.pruner, {})

    def _plugin(self) -> Allocation:
        return self._allocation()

    def _prune(self, model: Any, sparsity: float | str, ids: torch.Tensor | None = None, modules: str = "all") -> Mapping[str, Any]:
        allocation = self.allocation_for(model, Sparsity.parse(sparsity))
        ids = given.token_ids() if ids is None else ids
        return given.prune(model, pruner=self._pruner(), sparsity=sparsity, allocation=allocation, calibration=ids, modules=modules)

    def _asked(self, record: Mapping[str, Any]) -> dict[str, str]:
        return {name: entry["asked"] for name, entry in record["layers"].items()}

    def _take(self, case: Callable[[], tuple[Any, torch.Tensor]]) -> None:
        model, ids = case()
        with told_in_one_line():
            self._prune(model, 0.5, ids)

    def _spread_all(self, sparsities: tuple[float | str, ...]) -> None:
        """Spreads each sparsity; the engine checks the totals. The allocation may refuse some sparsities, but not all."""
        refused = []
        for sparsity in sparsities:
            try:
                self._prune(given.small_model(), sparsity)
            except BadOptionError as error:
                refused.append(str(error))
            except HarnessExtError as error:
                fail(f"sparsity={sparsity}: {type(error).__name__}: {error}")
        if len(refused) == len(sparsities):
            fail(f"{self._who()}: every sparsity was refused: {refused[0]}")

    def _check_refused(self, pattern: str) -> None:
        model = given.small_model()
        before = given.snapshot(model)
        try:
            self._prune(model, pattern)
        except BadOptionError:
            if name := given.first_difference(before, given.snapshot(model)):
                fail(f"{self._who()}: sparsity={pattern} was refused after {name} was changed")
            return
        except HarnessExtError as error:
            fail(f"{self._who()}: sparsity={pattern}: want a BadOptionError, not {type(error).__name__}: {error}")
        fail(f"{self._who()}: sparsity={pattern} was accepted: want a BadOptionError")


def _measured(index: int, layer: Any, kind: Any) -> Measured:
    statistic = None
    if kind is not None:
        statistic = kind(layer.in_features, layer.weight.device)
        statistic.update(torch.randn(64, layer.in_features, generator=torch.Generator().manual_seed(index)))
    return Measured(LayerShape(layer.name, index, layer.kind, *layer.weight.shape), layer.weight.clone(), statistic)
