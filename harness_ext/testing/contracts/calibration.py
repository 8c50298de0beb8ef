"""The rules of calibration sources, as tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from harness_ext.errors import BadOptionError, HarnessExtError
from harness_ext.method.calibration import Calibration, check_ids, digest
from harness_ext.method.lengths import longest
from harness_ext.testing.contracts import given
from harness_ext.testing.contracts.given import fail, told_in_one_line
from harness_ext.testing.contracts.plugin import PluginContract

SAMPLES, LENGTH = 5, 8


class CalibrationContract(PluginContract):
    """Tests of a calibration source. A class whose name begins with ``Test`` inherits them:

        class TestMine(CalibrationContract):
            calibration = Mine

    The source is tested with ``lab-xs``, the smallest embedded model, and with a model without a tokenizer.
    """

    calibration: Any = None
    """The class, its registered name (which also tests the entry point), or a method that returns an instance."""
    seeded: bool = True
    """Whether another seed must give other tokens. False for a source that always gives the same tokens."""

    # --- the rules

    def test_it_refuses_no_samples_too_short_ones_and_seeds_out_of_range(self) -> None:
        for wrong in ({"samples": 0}, {"length": 1}, {"seed": -1}):
            try:
                self._source(**wrong)
            except BadOptionError:
                continue
            fail(f"{self._who()}: {wrong} was accepted: does __post_init__ call super().__post_init__()?")

    def test_it_gives_as_many_tokens_as_were_asked_for(self) -> None:
        source, model = self._source(), given.lab_model()
        with told_in_one_line():
            source.check()
            ids = source.input_ids(model, given.lab_tokenizer())
            check_ids(ids, model, self._who())
        if tuple(ids.shape) != (SAMPLES, LENGTH):
            fail(f"{self._who()}: want token ids [samples, length], which is ({SAMPLES}, {LENGTH}), not {tuple(ids.shape)}")

    def test_it_refuses_sequences_that_the_model_cannot_take(self) -> None:
        model = given.lab_model()
        limit = longest(model) or 0
        try:
            self._source(length=limit + 1).input_ids(model, given.lab_tokenizer())
        except HarnessExtError:
            return
        fail(f"{self._who()}: calibration.length={limit + 1} was accepted, the model takes {limit}: ask self.length_for(model)")

    def test_it_does_without_a_tokenizer_or_says_that_it_needs_one(self) -> None:
        model = given.small_model()
        try:
            ids = self._source().input_ids(model, None)
        except HarnessExtError:
            return
        with told_in_one_line("without a tokenizer"):
            check_ids(ids, model, self._who())

    def test_it_gives_the_same_tokens_twice_and_others_for_another_seed(self) -> None:
        found = []
        for seed, state in ((0, 1), (0, 2), (1, 1)):
            with self._own_generators(state):
                found.append(self._source(seed=seed).input_ids(given.lab_model(), given.lab_tokenizer()).cpu())
        if not torch.equal(found[0], found[1]):
            fail(f"{self._who()}: the tokens are not the same when they are asked for again")
        if self.seeded and torch.equal(found[0], found[2]):
            fail(f"{self._who()}: calibration.seed=1 gives the tokens of seed=0; where that is meant, set seeded = False in the test")

    def test_it_leaves_the_model_and_the_tokenizer_alone(self) -> None:
        model, tokenizer = given.lab_model(), given.lab_tokenizer()
        weights, state = given.snapshot(model), _state(model, tokenizer)
        with told_in_one_line():
            self._source().input_ids(model, tokenizer)
        if name := given.first_difference(weights, given.snapshot(model)):
            fail(f"{self._who()}: it wrote into {name} of the model")
        for name, value in _state(model, tokenizer).items():
            if value != state[name]:
                fail(f"{self._who()}: it changed {name} from {state[name]} to {value}")

    def test_a_run_is_calibrated_on_it(self) -> None:
        model, tokenizer = given.lab_model(), given.lab_tokenizer()
        with told_in_one_line():
            ids = self._source().input_ids(model, tokenizer)
            record = given.prune(model, pruner="wanda", sparsity=0.5, calibration=self._source(), tokenizer=tokenizer)
        if record["calibration"]["digest"] != digest(ids):
            fail(f"{self._who()}: a run was calibrated on other tokens than input_ids gives")

    # --- how they are tested

    def _source(self, **changes: Any) -> Calibration:
        source = given.make(Calibration, given.plugins().calibrations, self.calibration, self.options)
        return dataclasses.replace(source, **{"samples": SAMPLES, "length": LENGTH} | changes)

    def _plugin(self) -> Calibration:
        return self._source()


def _state(model: Any, tokenizer: Any) -> dict[str, Any]:
    return {
        "training": model.training,
        "the generation settings": model.generation_config.to_dict(),
        "the configuration": model.config.to_dict(),
        "the hooks": [name for name, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks],
        "requires_grad": [name for name, parameter in model.named_parameters() if parameter.requires_grad],
        "the tokenizer's vocabulary": len(tokenizer),
        "the tokenizer's sides": (tokenizer.padding_side, tokenizer.truncation_side),
    }
