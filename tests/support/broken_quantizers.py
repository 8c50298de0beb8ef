"""Quantizers that break one rule each, and a list of them: the inherited test that finds it, the quantizer, and what is said."""

from __future__ import annotations

import sys
from typing import Any

import torch
from broken_statistics import NotNamed

from harness_ext import ChannelNorms, Hessian, NumericalError, Quantizer, Sparsity, inverse_factor


class Rounds(Quantizer):
    """Rounds to nearest."""

    name = "rounds"
    power: float = 1.0

    def quantize(self, weight, bits, sparsity, statistic):
        return self.nearest(weight, bits, sparsity)


class Nameless(Rounds):
    """Has a name that no command line takes."""

    name = "no name"


class AcceptsAll(Rounds):
    """Takes any option."""

    @classmethod
    def from_options(cls, options):
        return cls()


class OfFourBits(Rounds):
    """Has codes of four bits, whatever is asked for."""

    def quantize(self, weight, bits, sparsity, statistic):
        return self.nearest(weight, 4, sparsity)


class OneGroup(Rounds):
    """Has one group a row, whatever is asked for."""

    def quantize(self, weight, bits, sparsity, statistic):
        result = self.nearest(weight, bits, sparsity)
        return result._replace(scales=result.scales[:, :1], zero_points=result.zero_points[:, :1])


class AtMostFourBits(Rounds):
    """Has codes of at most four bits."""

    def quantize(self, weight, bits, sparsity, statistic):
        return self.nearest(weight, min(bits, 4), sparsity)


class OneStepUp(Rounds):
    """Rounds to the value above the nearest."""

    def quantize(self, weight, bits, sparsity, statistic):
        result = self.nearest(weight, bits, sparsity)
        return result._replace(codes=(result.codes + 1).clamp(max=2**bits - 1))


class IgnoresSparsity(Rounds):
    """Removes nothing."""

    def quantize(self, weight, bits, sparsity, statistic):
        return self.nearest(weight, bits, Sparsity(0))


class AtLeastOne(Rounds):
    """Removes one weight where none should go."""

    def quantize(self, weight, bits, sparsity, statistic):
        return self.nearest(weight, bits, sparsity if sparsity.ratio else Sparsity(1.5 / weight.numel()))


class Accepts27(Rounds):
    """Cuts off what a pattern does not divide."""

    def quantize(self, weight, bits, sparsity, statistic):
        divides = not sparsity.pattern or weight.shape[1] % sparsity.pattern[1] == 0
        return self.nearest(weight, bits, sparsity if divides else Sparsity(0))


class WritesWeight(Rounds):
    """Zeroes small weights in the weight that it was given."""

    def quantize(self, weight, bits, sparsity, statistic):
        weight[weight.abs() < 0.01] = 0
        return self.nearest(weight, bits, sparsity)


class WritesStatistic(Rounds):
    """Scales the statistic in place."""

    statistic = ChannelNorms

    def quantize(self, weight, bits, sparsity, statistic):
        statistic.squares.mul_(0.5)
        return self.nearest(weight, bits, sparsity)


def model_in_use() -> Any:
    """The model of the run that calls a quantizer, which no run hands over."""
    frame: Any = sys._getframe()
    while frame and not isinstance(frame.f_locals.get("model"), torch.nn.Module):
        frame = frame.f_back
    return frame and frame.f_locals["model"]


class SeedsTheWorld(Rounds):
    """Seeds the global generator."""

    def quantize(self, weight, bits, sparsity, statistic):
        torch.manual_seed(0)
        return self.nearest(weight, bits, sparsity)


class Embeddings(Rounds):
    """Changes the embeddings as well."""

    def quantize(self, weight, bits, sparsity, statistic):
        model_in_use().get_input_embeddings().weight.data[0] = 0
        return self.nearest(weight, bits, sparsity)


class LeavesHooks(Rounds):
    """Listens for ever."""

    def quantize(self, weight, bits, sparsity, statistic):
        model_in_use().lm_head.register_forward_hook(lambda *_: None)
        return self.nearest(weight, bits, sparsity)


class Upcasts(Rounds):
    """Leaves a model with an LM head of another dtype."""

    def quantize(self, weight, bits, sparsity, statistic):
        model_in_use().lm_head.float()
        return self.nearest(weight, bits, sparsity)


class Unseeded(Rounds):
    """Rounds at random."""

    def quantize(self, weight, bits, sparsity, statistic):
        return self.nearest(weight + 0.01 * torch.rand(weight.shape), bits, sparsity)


class InHalf(Rounds):
    """Computes in float16, and returns scales of float16."""

    def quantize(self, weight, bits, sparsity, statistic):
        result = self.nearest(weight, bits, sparsity)
        return result._replace(scales=result.scales.half())


class Huge(Rounds):
    """Has values that float16 does not hold."""

    def quantize(self, weight, bits, sparsity, statistic):
        result = self.nearest(weight, bits, sparsity)
        return result._replace(scales=result.scales * 1e9)


class DividesByNorms(Rounds):
    """Divides by the norms of inputs, which may be zero."""

    statistic = ChannelNorms

    def quantize(self, weight, bits, sparsity, statistic):
        return self.nearest(weight / statistic.norms * statistic.norms, bits, sparsity)


class DividesByRows(Rounds):
    """Divides by the largest weight of a row, which may be zero."""

    def quantize(self, weight, bits, sparsity, statistic):
        largest = weight.abs().amax(1, keepdim=True)
        return self.nearest(weight / largest * largest, bits, sparsity)


class Undamped(Rounds):
    """Inverts the Hessian as it is."""

    statistic = Hessian

    def quantize(self, weight, bits, sparsity, statistic):
        inverse_factor(statistic.matrix, 0.0)
        return self.nearest(weight, bits, sparsity)


class Spread(ChannelNorms):
    """The sum of each input besides its norm."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.sums = self.squares.clone()

    def update(self, inputs):
        super().update(inputs)
        self.sums += inputs.sum(0)


class Standardises(Rounds):
    """Wants inputs that change."""

    statistic = Spread

    def quantize(self, weight, bits, sparsity, statistic):
        deviations = (statistic.squares / statistic.tokens - (statistic.sums / statistic.tokens).square()).clamp(min=1e-9)
        if (deviations < 1e-6).any():
            raise NumericalError("an input never changes")
        return self.nearest(weight, bits, sparsity)


class Alone(Rounds):
    """Has a statistic that only one process can measure."""

    statistic = NotNamed


BROKEN_QUANTIZERS = [
    ("test_its_statistic_can_be_measured_by_several_processes", Alone, "NotNamed names nothing additive"),
    ("test_it_has_a_name_and_a_docstring_and_overrides_a_method", Nameless, "want for its name a text without spaces"),
    ("test_its_options_are_checked_and_come_back", AcceptsAll, "an option '.*_' was accepted"),
    ("test_it_takes_every_number_of_bits", OfFourBits, r"bits=2: PluginError: .*q_proj: want codes from 0 to 3, which 2 bits hold"),
    ("test_it_keeps_to_the_group_size", OneGroup, r"group_size=1: PluginError: .*want scales of shape \(16, 16\), not \(16, 1\)"),
    ("test_more_bits_lose_less", AtMostFourBits, r"is 0\.\d+ with 2 bits, 0\.\d+ with 4 and 0\.\d+ with 8"),
    ("test_it_removes_exactly_what_was_asked_for", IgnoresSparsity, r"sparsity 0\.29 is 7\d removed weights of 256, its mask has 0"),
    ("test_it_removes_nothing_from_a_layer_whose_sparsity_is_zero", AtLeastOne, r"sparsity 0 is 0 removed weights of 256, its mask has 1"),
    ("test_it_refuses_a_pattern_that_does_not_divide_the_row", Accepts27, "sparsity=2:7 of 16 inputs was accepted"),
    ("test_it_writes_into_nothing_that_it_is_given", WritesWeight, "it wrote into the weight that it was given"),
    ("test_it_writes_into_nothing_that_it_is_given", WritesStatistic, "it wrote into the statistic that it was given"),
    ("test_it_writes_into_nothing_that_it_is_given", SeedsTheWorld, "a global random generator"),
    ("test_it_writes_into_nothing_that_it_is_given", Embeddings, r"it changed model\.embed_tokens\.weight"),
    ("test_it_writes_into_nothing_that_it_is_given", LeavesHooks, "it left a hook on lm_head"),
    ("test_it_gives_the_same_weights_twice_bit_for_bit", Unseeded, r"q_proj\.weight is not the same when it is done again"),
    ("test_it_takes_models_and_arithmetic_of_every_dtype", Huge, r"q_proj: the new weight has NaN or infinite values in torch\.float16"),
    ("test_it_takes_models_and_arithmetic_of_every_dtype", Upcasts, r"lm_head\.weight was torch\.bfloat16 and is not any more"),
    ("test_it_works_where_the_model_is", InHalf, r"a weight in torch\.float32 came back with scales in torch\.float16"),
    ("test_it_is_no_worse_than_rounding_to_nearest", OneStepUp, r"the output error of the layers of lab-xs is \d.*, that of rounding to"),
    ("test_it_takes_inputs_that_are_always_zero", DividesByNorms, "scores are NaN"),
    ("test_it_takes_rows_that_are_zero", DividesByRows, "scores are NaN"),
    ("test_it_takes_inputs_that_never_change", Standardises, "an input never changes"),
    ("test_it_takes_fewer_tokens_than_inputs", Undamped, "cannot be factorised"),
]
