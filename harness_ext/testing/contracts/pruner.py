"""The rules of pruners, as tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from harness_ext.engine.checks import tensors_of, untouched
from harness_ext.engine.global_state import kept_generators
from harness_ext.errors import BadOptionError, HarnessExtError, PluginError
from harness_ext.method.pruner import ModelPruner, Pruned, Pruner, PruningMethod, StructuredPruner
from harness_ext.method.sparsity import Sparsity
from harness_ext.testing.contracts import degenerate, given
from harness_ext.testing.contracts.additivity import check_additive
from harness_ext.testing.contracts.given import fail, told_in_one_line
from harness_ext.testing.contracts.layerwise import DTYPES, FirstLayerDense, devices, inputs, layer_error
from harness_ext.testing.contracts.plugin import PluginContract

Record = Mapping[str, Any]

RANDOM_SEEDS = (0, 1, 2)


class PrunerContract(PluginContract, degenerate.DegenerateCases):
    """Tests of a pruner. A class whose name begins with ``Test`` inherits them:

        class TestMine(PrunerContract):
            pruner = Mine

    The engine prunes two small models, one with random weights and ``lab-xs``, as in a run.
    """

    pruner: Any = None
    """The class, its registered name (which also tests the entry point), or a method that returns an instance."""
    ratios: tuple[float, ...] = (0.29, 0.5, 0.99)
    patterns: tuple[str, ...] = ("1:4", "2:4", "3:4")
    quality_sparsity: float = 0.5
    """The sparsity at which the pruner is compared with ``random``; a structured pruner is compared at the sparsity that it reaches."""
    several_processes: bool = True
    """Whether several processes can measure the statistic. If False, a run with several processes is an error."""

    def pruner_for(self, model: Any, sparsity: Sparsity) -> PruningMethod:
        """The pruner under test. Override this where its options depend on the model or the sparsity."""
        return given.make(PruningMethod, given.plugins().pruners, self.pruner, self.options)

    # --- the rules

    def test_its_statistic_can_be_measured_by_several_processes(self) -> None:
        if self.several_processes:
            check_additive(self._pruner().measures(), self._who())

    def test_it_removes_exactly_what_was_asked_for(self) -> None:
        refused = []
        for ratio in self.ratios:
            model = given.small_model()
            before = given.snapshot(model)
            try:
                self._prune(model, ratio)
            except BadOptionError as error:  # a structured method cannot reach every ratio in a small model
                if not isinstance(self._pruner(), StructuredPruner):
                    fail(f"sparsity={ratio}: {error}")
                refused.append(str(error))
                self._check_same(model, before, f"sparsity={ratio} was refused after the model was changed")
                continue
            except HarnessExtError as error:
                fail(f"sparsity={ratio}: {type(error).__name__}: {error}")
            self._check_counts(model, Sparsity(ratio))
        if len(refused) == len(self.ratios):
            fail(f"{self._who()}: every ratio was refused: {refused[0]}")

    def test_it_removes_nothing_from_a_layer_whose_sparsity_is_zero(self) -> None:
        if self._whole_model():  # a ModelPruner is never called with sparsity 0
            return
        model = given.small_model()
        with told_in_one_line():
            self._prune(model, 0.5, allocation=FirstLayerDense())
        first = given.layers_of(model)[0]
        if zeros := int((first.weight == 0).sum()):
            fail(f"{self._who()} on {first.name}: sparsity 0 is 0 zeros, it left {zeros}")

    def test_it_keeps_to_patterns(self) -> None:
        for pattern in self.patterns:
            model = given.small_model()
            if isinstance(self._pruner(), StructuredPruner):
                self._check_refused(pattern, model)
                continue
            with told_in_one_line():
                self._prune(model, pattern)
            n, m = Sparsity.parse(pattern).pattern or (0, 1)
            for layer in given.layers_of(model):
                if not ((layer.weight.reshape(-1, m) == 0).sum(1) == n).all():
                    fail(f"{self._who()} on {layer.name}: want {n} zeros in every {m} inputs")

    def test_it_refuses_a_pattern_that_does_not_divide_the_row(self) -> None:
        model = given.small_model()
        self._check_refused("2:7", model)
        if self._whole_model():
            return
        what = f"sparsity=2:7 of {given.WIDTH} inputs"
        pruner, weight = self._pruner("2:7"), given.layers_of(model)[0].weight
        try:
            _call(pruner, weight, Sparsity.parse("2:7"), degenerate.measured(pruner, inputs()))
        except HarnessExtError:
            return
        except Exception as error:
            fail(f"{self._who()}: {what} ended in {type(error).__name__}: want an error of harness_ext, as Sparsity.mask raises")
        fail(f"{self._who()}: {what} was accepted: want an error of harness_ext, as Sparsity.mask raises")

    def test_it_writes_into_nothing_that_it_is_given(self) -> None:
        model, ids = given.small_model(), given.token_ids()
        before, tokens, states = given.snapshot(model), ids.clone(), given.generator_states()
        with told_in_one_line():
            self._prune(model, 0.5, calibration=ids)
        if not ids.equal(tokens):
            fail(f"{self._who()}: it wrote into the calibration tokens")
        self._check_generators(states)
        for name, module in model.named_modules():
            if module._forward_hooks or module._forward_pre_hooks:
                fail(f"{self._who()}: it left a hook on {name or 'the model'}")
        self._check_the_rest(model, before)
        if not self._whole_model():
            self._check_arguments()

    def test_it_gives_the_same_weights_twice_bit_for_bit(self) -> None:
        snapshots = []
        for seed in (1, 2):
            model = given.small_model()
            with kept_generators(seed), told_in_one_line():
                self._prune(model, 0.5)
            snapshots.append(given.snapshot(model))
        if name := given.first_difference(*snapshots):
            fail(f"{self._who()}: {name} is not the same when it is done again")

    def test_it_takes_models_and_arithmetic_of_every_dtype(self) -> None:
        for dtype, precision in DTYPES:
            model = given.small_model(dtype)
            with told_in_one_line(f"a model in {dtype} with precision={precision}"):
                self._prune(model, 0.5, precision=precision)
            if other := next((name for name, tensor in model.named_parameters() if tensor.dtype != dtype), None):
                fail(f"{self._who()}: {other} was {dtype} and is not any more")
            self._check_output(model, f"in {dtype} with precision={precision}")

    def test_it_works_where_the_model_is(self) -> None:
        for device in devices():
            model = given.small_model().to(device)
            with told_in_one_line(f"on {device}"):
                self._prune(model, 0.5, calibration=given.token_ids().to(device))
            if other := next((name for name, tensor in model.named_parameters() if tensor.device.type != device), None):
                fail(f"{self._who()}: {other} was on {device} and is not any more")
            if not self._whole_model():
                pruner, weight = self._pruner(), given.layers_of(model)[0].weight
                new = _call(pruner, weight, Sparsity(0.5), degenerate.measured(pruner, inputs().to(device)))
                if new.device != weight.device or new.dtype != weight.dtype:
                    fail(f"{self._who()}: a weight in {weight.dtype} on {weight.device} came back in {new.dtype} on {new.device}")

    def test_it_is_no_worse_than_random(self) -> None:
        ids, text = given.lab_text(0), given.lab_text(1)
        model = given.lab_model()
        with told_in_one_line(f"on {given.LAB}"):
            record = self._prune(model, self.quality_sparsity, calibration=ids)
        structured = isinstance(self._pruner(), StructuredPruner)
        measure, sparsity = (_loss, record["achieved_sparsity"]) if structured else (layer_error, self.quality_sparsity)
        mine, floor = measure(model, text), sum(_of_random(sparsity, seed, measure) for seed in RANDOM_SEEDS) / len(RANDOM_SEEDS)
        if not mine <= 1.1 * floor:
            what = "loss" if measure is _loss else "output error of its layers"
            fail(f"{self._who()}: at sparsity {sparsity:.4g} the {what} of {given.LAB} is {mine:.3f}, that of random {floor:.3f}")

    # --- how they are tested

    def _pruner(self, sparsity: float | str = 0.5) -> PruningMethod:
        return self.pruner_for(given.small_model(), Sparsity.parse(sparsity))

    def _plugin(self) -> PruningMethod:
        return self._pruner()

    def _whole_model(self) -> bool:
        return isinstance(self._pruner(), ModelPruner)

    def _prune(self, model: Any, sparsity: float | str, calibration: torch.Tensor | None = None, **arguments: Any) -> Record:
        ids = given.token_ids() if calibration is None else calibration
        return given.prune(model, pruner=self.pruner_for(model, Sparsity.parse(sparsity)), sparsity=sparsity, calibration=ids, **arguments)

    def _take(self, case: Callable[[], tuple[Any, torch.Tensor]]) -> None:
        model, ids = case()
        with told_in_one_line():
            self._prune(model, 0.5, calibration=ids)
        self._check_output(model, "pruned by half")

    def _check_output(self, model: Any, when: str) -> None:
        with torch.no_grad():
            logits = model(input_ids=given.token_ids()).logits
        if not logits.isfinite().all():
            fail(f"{self._who()}: the output of the model {when} has NaN or infinite values")

    def _check_counts(self, model: Any, sparsity: Sparsity) -> None:
        """Counts the zeros of a model whose dense weights are not zero. Each matrix, or each row, has the floor of its share."""
        if self._whole_model():  # a ModelPruner may distribute zeros over layers; the engine has counted them
            self._check_output(model, f"at sparsity {sparsity}")
            return
        for layer in given.layers_of(model):
            zeros = layer.weight == 0
            count, by_row = sparsity.removed_of(zeros.numel()), sparsity.removed_of(zeros.shape[1])
            if int(zeros.sum()) != count and not (zeros.sum(1) == by_row).all():
                fail(
                    f"{self._who()} on {layer.name}: sparsity {sparsity} is {count} zeros of {zeros.numel()}, or {by_row} in every row of "
                    f"{zeros.shape[1]}, it left {int(zeros.sum())}"
                )

    def _check_refused(self, sparsity: str, model: Any) -> None:
        before, what = given.snapshot(model), f"sparsity={sparsity}"
        try:
            self._prune(model, sparsity)
        except HarnessExtError as error:
            if "\n" in str(error):
                fail(f"{self._who()}: {what} was refused in more than one line")
            self._check_same(model, before, f"{what} was refused after the model was changed")
            return
        fail(f"{self._who()}: {what} was accepted: want a BadOptionError")

    def _check_same(self, model: Any, before: Mapping[str, torch.Tensor], what: str) -> None:
        if name := given.first_difference(before, given.snapshot(model)):
            fail(f"{self._who()}: {what}: {name}")

    def _check_the_rest(self, model: Any, before: Mapping[str, torch.Tensor]) -> None:
        """Checks that weights outside of pruned layers did not change; for structured methods, weights outside of decoder blocks."""
        pruned = {f"{layer.name}.weight" for layer in given.layers_of(given.small_model())}
        inside = isinstance(self._pruner(), StructuredPruner)

        def rest(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: tensor for name, tensor in tensors.items() if name not in pruned and not (inside and ".layers." in name)}

        if name := given.first_difference(rest(before), rest(given.snapshot(model))):
            fail(f"{self._who()}: it changed {name}, which is not the weight of a linear layer of the decoder")

    def _check_arguments(self) -> None:
        """Checks that the pruner does not change the weight and the statistic that it is given."""
        pruner, weight = self._pruner(), given.layers_of(given.small_model())[0].weight.clone()
        statistic = degenerate.measured(pruner, inputs())
        with told_in_one_line():
            for what, tensors in (("weight", [weight]), ("statistic", tensors_of(statistic))):
                with untouched(tensors, f"the {what} that it was given", self._who()):
                    _call(pruner, weight, Sparsity(0.5), statistic)


def _call(pruner: PruningMethod, weight: torch.Tensor, sparsity: Sparsity, statistic: Any) -> torch.Tensor:
    """The new weight of one layer, by the method that the pruner overrides."""
    if not isinstance(pruner, Pruner):
        raise PluginError(f"pruner {pruner.name!r} does not go layer by layer")
    if pruner.prunes_together():
        result = pruner.prune_together([weight], [sparsity], statistic)[0]
    else:
        result = pruner.prune(weight, sparsity, statistic)
    new = result.weight if isinstance(result, Pruned) else result
    if not isinstance(new, torch.Tensor):
        raise PluginError(f"pruner {pruner.name!r}: want a new weight, not {type(new).__name__}")
    return new


def _loss(model: Any, ids: torch.Tensor) -> float:
    """The mean negative log-likelihood of a token, in nats."""
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss)


def _of_random(sparsity: float, seed: int, measure: Callable[[Any, torch.Tensor], float]) -> float:
    key = (sparsity, seed, measure.__name__)
    if key not in _floors:
        model = given.lab_model()
        given.prune(model, pruner="random", pruner_options={"seed": seed}, sparsity=sparsity, calibration=given.lab_text(0))
        _floors[key] = measure(model, given.lab_text(1))
    return _floors[key]


_floors: dict[tuple[float, int, str], float] = {}  # results of the pruner ``random``, which are the same in every test
