"""Calibration sources that break one rule each, and a list of them: the inherited test that finds it, the source, and what is said."""

from __future__ import annotations

from typing import ClassVar

import torch

from harness_ext import Calibration


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
