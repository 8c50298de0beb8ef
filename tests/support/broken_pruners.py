"""Pruners that break one rule each, and a list of them: the inherited test that finds it, the pruner, and what is said."""

from __future__ import annotations

import torch
from broken_statistics import NotNamed

from harness_ext import ChannelNorms, Hessian, ModelPruner, NumericalError, Pruner, Sparsity, inverse_factor
from harness_ext.engine.layers import find_blocks


class Good(Pruner):
    """Magnitude."""

    name = "good"
    power: float = 1.0

    def score(self, weight, statistic):
        return weight.abs()


class Nameless(Good):
    """Has a name that no command line takes."""

    name = "no name"


class Undocumented(Good):
    name = "undocumented"


class AcceptsAll(Good):
    """Takes any option."""

    @classmethod
    def from_options(cls, options):
        return cls()


class ChangesOptions(Good):
    """Cuts off an option that is out of range."""

    def __post_init__(self):
        object.__setattr__(self, "power", self.power + 1)


class Between(Good):
    """Removes more than the floor of each row, and less than the floor of the matrix."""

    def prune(self, weight, sparsity, statistic):
        rows, columns = weight.shape
        count = (rows * sparsity.removed_of(columns) + sparsity.removed_of(weight.numel())) // 2
        zeros = weight.abs().flatten().argsort()[:count]
        return weight.flatten().index_fill(0, zeros, 0).view_as(weight)


class TooFew(Good):
    """Removes half of what it should."""

    def prune(self, weight, sparsity, statistic):
        return weight.masked_fill(Sparsity(sparsity.ratio / 2).mask(weight.abs()), 0)


class AtLeastOne(Good):
    """Removes one weight where none should go."""

    def prune(self, weight, sparsity, statistic):
        removed = sparsity.mask(weight.abs())
        removed[0, 0] = True
        return weight.masked_fill(removed, 0) if not sparsity.ratio else weight.masked_fill(sparsity.mask(weight.abs()), 0)


class NoPatterns(Good):
    """Takes a pattern for its ratio."""

    def prune(self, weight, sparsity, statistic):
        return weight.masked_fill(Sparsity(sparsity.ratio).mask(weight.abs()), 0)


class WritesStatistic(Good):
    """Divides the statistic in place, which its neighbours read too."""

    statistic = ChannelNorms

    def score(self, weight, statistic):
        return weight.abs() * statistic.squares.mul_(0.5)


class WritesWeight(Good):
    """Zeroes the weight that it was given."""

    def prune(self, weight, sparsity, statistic):
        return weight.masked_fill_(sparsity.mask(weight.abs()), 0)


class SeedsTheWorld(Good):
    """Seeds the global generator."""

    def score(self, weight, statistic):
        torch.manual_seed(0)
        return torch.rand(weight.shape)


class Whole(ModelPruner):
    """Prunes all layers by magnitude."""

    name = "whole"
    calibrated = True

    def prune_model(self, model, sparsity, calibration, modules="all"):
        for block in find_blocks(model):
            for layer in block.layers:
                layer.write(layer.weight.masked_fill(sparsity.mask(layer.weight.abs()), 0))


class Embeddings(Whole):
    """Prunes the embeddings as well."""

    def prune_model(self, model, sparsity, calibration, modules="all"):
        super().prune_model(model, sparsity, calibration)
        model.get_input_embeddings().weight.data[0] = 0


class WritesTokens(Whole):
    """Shuffles the calibration tokens in place."""

    def prune_model(self, model, sparsity, calibration, modules="all"):
        super().prune_model(model, sparsity, calibration)
        calibration.copy_(calibration.flip(0))


class LeavesHooks(Whole):
    """Listens for ever."""

    def prune_model(self, model, sparsity, calibration, modules="all"):
        super().prune_model(model, sparsity, calibration)
        model.lm_head.register_forward_hook(lambda *_: None)


class Upcasts(Whole):
    """Leaves a model of another dtype."""

    def prune_model(self, model, sparsity, calibration, modules="all"):
        super().prune_model(model.float(), sparsity, calibration)


class Unseeded(Good):
    """Draws from the global generator."""

    def score(self, weight, statistic):
        return torch.rand(weight.shape)


class Doubles(Good):
    """Gives back another dtype than it was given."""

    def prune(self, weight, sparsity, statistic):
        return weight.masked_fill(sparsity.mask(weight.abs()), 0).double()


class Divides(Good):
    """Divides by the norms of inputs, which may be zero."""

    statistic = ChannelNorms

    def score(self, weight, statistic):
        return weight.abs() / statistic.norms * statistic.norms


class DividesRows(Good):
    """Divides by the norms of rows, which may be zero."""

    def score(self, weight, statistic):
        return weight.abs() / weight.norm(dim=1, keepdim=True)


class Spread(ChannelNorms):
    """The sum of each input besides its norm."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.sums = self.squares.clone()

    def update(self, inputs):
        super().update(inputs)
        self.sums += inputs.sum(0)


class Standardises(Good):
    """Divides by the standard deviations of inputs, which may be zero."""

    statistic = Spread

    def score(self, weight, statistic):
        deviations = (statistic.squares / statistic.tokens - (statistic.sums / statistic.tokens).square()).clamp(min=1e-9)
        if (deviations < 1e-6).any():
            raise NumericalError("an input never changes")
        return weight.abs() * deviations


class Undamped(Good):
    """Inverts the Hessian as it is."""

    statistic = Hessian

    def score(self, weight, statistic):
        return weight.abs() / inverse_factor(statistic.matrix, 0.0).upper.diagonal()


class Backwards(Good):
    """Removes the largest weights."""

    def score(self, weight, statistic):
        return -weight.abs()


class Accepts27(Good):
    """Cuts off what a pattern does not divide."""

    def prune(self, weight, sparsity, statistic):
        if sparsity.pattern and weight.shape[1] % sparsity.pattern[1]:
            return weight.clone()
        return super().prune(weight, sparsity, statistic)


class Alone(Good):
    """Has a statistic that only one process can measure."""

    statistic = NotNamed


BROKEN_PRUNERS = [
    ("test_its_statistic_can_be_measured_by_several_processes", Alone, "NotNamed names nothing additive"),
    ("test_it_has_a_name_and_a_docstring_and_overrides_a_method", Nameless, "want for its name a text without spaces"),
    ("test_it_has_a_name_and_a_docstring_and_overrides_a_method", Undocumented, "want a docstring"),
    ("test_its_options_are_checked_and_come_back", AcceptsAll, "an option 'power_' was accepted"),
    ("test_its_options_are_checked_and_come_back", ChangesOptions, "its options .* come back as"),
    (
        "test_it_removes_exactly_what_was_asked_for",
        Between,
        r"layers\.0\.self_attn\.q_proj: sparsity 0\.29 is 74 zeros of 256, or 4 in",
    ),
    (
        "test_it_removes_exactly_what_was_asked_for",
        TooFew,
        r"broke its contract on .*\.q_proj: sparsity 0\.29 is 74",
    ),
    ("test_it_removes_nothing_from_a_layer_whose_sparsity_is_zero", AtLeastOne, r"q_proj: sparsity 0 is 0 zeros of 256, it left 1"),
    ("test_it_keeps_to_patterns", NoPatterns, r"pruner 'good' .*q_proj: want 1 zeros in every 4 inputs"),
    ("test_it_refuses_a_pattern_that_does_not_divide_the_row", Accepts27, "sparsity=2:7 of 16 inputs was accepted"),
    ("test_it_writes_into_nothing_that_it_is_given", WritesStatistic, "it wrote into the statistic that it was given"),
    ("test_it_writes_into_nothing_that_it_is_given", WritesWeight, "it wrote into the weight that it was given"),
    ("test_it_writes_into_nothing_that_it_is_given", SeedsTheWorld, "a global random generator"),
    ("test_it_writes_into_nothing_that_it_is_given", Embeddings, r"it changed model\.embed_tokens\.weight"),
    ("test_it_writes_into_nothing_that_it_is_given", WritesTokens, "it wrote into the calibration tokens"),
    ("test_it_writes_into_nothing_that_it_is_given", LeavesHooks, "it left a hook on lm_head"),
    ("test_it_gives_the_same_weights_twice_bit_for_bit", Unseeded, r"q_proj\.weight is not the same when it is done again"),
    ("test_it_takes_models_and_arithmetic_of_every_dtype", Upcasts, r"it changed model\.embed_tokens"),
    ("test_it_works_where_the_model_is", Doubles, r"a weight in torch\.float32 on cpu came back in torch\.float64"),
    ("test_it_takes_inputs_that_are_always_zero", Divides, "NumericalError: .*scores are NaN"),
    ("test_it_takes_rows_that_are_zero", DividesRows, "NumericalError: .*scores are NaN"),
    ("test_it_takes_inputs_that_never_change", Standardises, "an input never changes"),
    ("test_it_takes_fewer_tokens_than_inputs", Undamped, "cannot be factorised"),
    (
        "test_it_is_no_worse_than_random",
        Backwards,
        r"the output error of its layers of lab-xs is 0\.\d+, that of random 0\.",
    ),
]
