"""Allocations that break one rule each, and a list of them: the inherited test that finds it, the allocation, and what is said."""

from __future__ import annotations

import torch
from broken_pruners import Spread
from broken_statistics import NotNamed

from harness_ext import Allocation, NumericalError, Sparsity


class Even(Allocation):
    """The same for all."""

    name = "even"
    slope: float = 0.0

    def spread(self, sparsity, layers, measured):
        return {layer.name: sparsity for layer in layers}


class NoDocstring(Even):
    name = "undocumented"


class AcceptsAnything(Even):
    """Takes any option."""

    @classmethod
    def from_options(cls, options):
        return cls()


class TooLittle(Even):
    """Asks for nine tenths of what was asked for."""

    def spread(self, sparsity, layers, measured):
        return {layer.name: sparsity.ratio * 0.9 for layer in layers}


class AllPatternsAlike(Even):
    """Gives ratios that no pattern has, of another total."""

    def spread(self, sparsity, layers, measured):
        return {layer.name: 0.8 if sparsity.pattern else sparsity for layer in layers}


class RatioOfPattern(Even):
    """Makes a ratio of any pattern."""

    def spread(self, sparsity, layers, measured):
        return {layer.name: Sparsity(sparsity.ratio) for layer in layers}


class WholeModelOnly(Even):
    """Takes for granted that all layers are there."""

    def spread(self, sparsity, layers, measured):
        return dict.fromkeys([f"model.layers.{i}.mlp.{name}_proj" for i in range(2) for name in ("gate", "up", "down")], sparsity) | {
            layer.name: sparsity for layer in layers
        }


class WritesWeights(Even):
    """Takes magnitudes in place."""

    def measure(self, block, pruner):
        return sum(float(measured.weight.abs_().sum()) for measured in block)


class Draws(Even):
    """Draws from the global generator."""

    def spread(self, sparsity, layers, measured):
        shift = float(torch.rand(())) * 0.01
        return {layer.name: sparsity.ratio + (shift if layer.block == 0 else -shift) for layer in layers}


class ByNorm(Even):
    """Refuses what it cannot divide by."""

    statistic = Spread

    def measure(self, block, pruner):
        for measured in block:
            statistic = measured.statistic
            if statistic.tokens < 16:
                raise NumericalError("few tokens")
            if (statistic.squares == 0).any():
                raise NumericalError("a dead input")
            if (measured.weight == 0).all(1).any():
                raise NumericalError("a dead row")
            if (statistic.squares - statistic.sums.square() / statistic.tokens < 1e-4).any():
                raise NumericalError("an input never changes")


class Alone(Even):
    """Has a statistic that only one process can measure."""

    statistic = NotNamed

    def measure(self, block, pruner):
        return None


BROKEN_ALLOCATIONS = [
    ("test_its_statistic_can_be_measured_by_several_processes", Alone, "NotNamed names nothing additive"),
    ("test_it_has_a_name_and_a_docstring_and_overrides_a_method", NoDocstring, "want a docstring"),
    ("test_its_options_are_checked_and_come_back", AcceptsAnything, "an option 'slope_' was accepted"),
    ("test_the_layers_add_up_to_what_was_asked_for", TooLittle, r"allocation 'even': the layers add up to \d+ weights to remove, \d+ were"),
    ("test_it_spreads_patterns_or_refuses_them", AllPatternsAlike, "the layers add up to"),
    (
        "test_it_refuses_a_pattern_that_does_not_divide_the_row",
        RatioOfPattern,
        "want a BadOptionError, not PluginError: .* plain ratio",
    ),
    ("test_it_spreads_over_a_part_of_the_model", WholeModelOnly, r"modules=\*\.q_proj: PluginError: .*is not a layer to be pruned"),
    ("test_it_writes_into_nothing_that_it_is_given", WritesWeights, "it wrote into the weights or the statistics that it was given"),
    ("test_it_gives_the_same_sparsities_twice", Draws, "a global random generator"),
    ("test_it_takes_inputs_that_are_always_zero", ByNorm, "a dead input"),
    ("test_it_takes_rows_that_are_zero", ByNorm, "a dead row"),
    ("test_it_takes_inputs_that_never_change", ByNorm, "an input never changes"),
    ("test_it_takes_fewer_tokens_than_inputs", ByNorm, "few tokens"),
]
