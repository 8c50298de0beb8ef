"""Plugins that break one rule each, and lists of them: the inherited test that finds it, the plugin, and what is said."""

from __future__ import annotations

from typing import ClassVar

import torch

from harness_ext import Allocation, Calibration, ChannelNorms, Hessian, NumericalError, Pruner, Sparsity, inverse_factor
from harness_ext.layers import find_blocks


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


class Whole(Pruner):
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


BROKEN_PRUNERS = [
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


BROKEN_ALLOCATIONS = [
    ("test_it_has_a_name_and_a_docstring_and_overrides_spread", NoDocstring, "want a docstring"),
    ("test_its_options_are_checked_and_come_back", AcceptsAnything, "an option 'slope_' was accepted"),
    ("test_the_layers_add_up_to_what_was_asked_for", TooLittle, r"allocation 'even': the layers add up to \d+ weights to remove, \d+ were"),
    ("test_it_spreads_patterns_or_refuses_them", AllPatternsAlike, "the layers add up to"),
    ("test_it_refuses_a_pattern_that_does_not_divide_the_row", RatioOfPattern, "sparsity=2:7 was accepted: want a BadOptionError"),
    ("test_it_spreads_over_a_part_of_the_model", WholeModelOnly, r"modules=\*\.q_proj: PluginError: .*is not a layer to be pruned"),
    ("test_it_writes_into_nothing_that_it_is_given", WritesWeights, "it wrote into the weights or the statistics that it was given"),
    ("test_it_gives_the_same_sparsities_twice", Draws, "a global random generator"),
    ("test_it_takes_inputs_that_are_always_zero", ByNorm, "a dead input"),
    ("test_it_takes_rows_that_are_zero", ByNorm, "a dead row"),
    ("test_it_takes_inputs_that_never_change", ByNorm, "an input never changes"),
    ("test_it_takes_fewer_tokens_than_inputs", ByNorm, "few tokens"),
]


class Fixed(Calibration):
    """The first tokens of the vocabulary."""

    name = "fixed"
    step: int = 1

    def input_ids(self, model, tokenizer):
        starts = torch.arange(self.samples)[:, None] + self.seed
        return (starts + torch.arange(self.length_for(model)) * self.step) % 50


class Blank(Fixed):
    name = "blank"


class AcceptsSteps(Fixed):
    """Takes any option."""

    @classmethod
    def from_options(cls, options):
        return cls()


class Unchecked(Fixed):
    """Forgets the checks of its base."""

    def __post_init__(self):
        pass


class OneShort(Fixed):
    """Forgets a sample."""

    def input_ids(self, model, tokenizer):
        return super().input_ids(model, tokenizer)[1:]


class AnyLength(Fixed):
    """Does not ask what the model can take."""

    def input_ids(self, model, tokenizer):
        return torch.ones(self.samples, self.length, dtype=torch.int64)


class Foreign(Fixed):
    """Knows one vocabulary only."""

    def input_ids(self, model, tokenizer):
        return super().input_ids(model, tokenizer) + 900


class Seedless(Fixed):
    """Does not care for the seed."""

    def input_ids(self, model, tokenizer):
        return super().input_ids(model, tokenizer) - self.seed


class Drawn(Fixed):
    """Draws from the global generator."""

    def input_ids(self, model, tokenizer):
        return torch.randint(50, (self.samples, self.length_for(model)))


class Trains(Fixed):
    """Leaves the model in training mode."""

    def input_ids(self, model, tokenizer):
        model.train()
        return super().input_ids(model, tokenizer)


class WritesModel(Fixed):
    """Changes the model that it samples from."""

    def input_ids(self, model, tokenizer):
        model.lm_head.weight.data.mul_(2)
        return super().input_ids(model, tokenizer)


class Counts(Fixed):
    """Gives the next tokens each time."""

    asked: ClassVar[list[int]] = []

    def input_ids(self, model, tokenizer):
        self.asked.append(1)
        return super().input_ids(model, tokenizer) + len(self.asked)


BROKEN_CALIBRATIONS = [
    ("test_it_has_a_name_and_a_docstring_and_overrides_a_method", Blank, "want a docstring"),
    ("test_its_options_are_checked_and_come_back", AcceptsSteps, "its options .* come back as"),
    ("test_it_refuses_no_samples_too_short_ones_and_seeds_out_of_range", Unchecked, r"call super\(\)\.__post_init__\(\)"),
    ("test_it_gives_as_many_tokens_as_were_asked_for", OneShort, r"which is \(5, 8\), not \(4, 8\)"),
    ("test_it_refuses_sequences_that_the_model_cannot_take", AnyLength, r"calibration\.length=385 was accepted, the model takes 384"),
    ("test_it_does_without_a_tokenizer_or_says_that_it_needs_one", Foreign, "the model's vocabulary goes from 0 to 63"),
    ("test_it_gives_the_same_tokens_twice_and_others_for_another_seed", Seedless, r"calibration\.seed=1 gives the tokens of seed=0"),
    ("test_it_gives_the_same_tokens_twice_and_others_for_another_seed", Drawn, "a global random generator"),
    ("test_it_leaves_the_model_and_the_tokenizer_alone", Trains, "it changed training from False to True"),
    ("test_it_leaves_the_model_and_the_tokenizer_alone", WritesModel, r"it wrote into lm_head\.weight"),
    ("test_a_run_is_calibrated_on_it", Counts, "a run was calibrated on other tokens"),
]

BROKEN_TASKS = [
    ("test_a_plugin_registers_the_folder", "good", "no plugin registers it"),
    ("test_its_definitions_are_sound", "metric", "lm-eval has no metric 'accuracy_score'"),
    ("test_its_documents_are_sound", "choice_twice", "document 6: the choice 'Lima' stands more than once"),
    ("test_a_model_that_knows_every_answer_scores_one", "oracle_fails", "a model that knows every answer scores 0"),
    ("test_a_model_that_guesses_scores_chance", "guess_wins", "a guess scores 1.0000"),
]
