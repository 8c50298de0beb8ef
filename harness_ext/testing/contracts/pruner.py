"""The rules of pruners, as tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from harness_ext.errors import BadOptionError, HarnessExtError, PluginError
from harness_ext.method.pruner import ModelPruner, Pruned, Pruner, PruningMethod, StructuredPruner
from harness_ext.method.sparsity import Sparsity
from harness_ext.testing.contracts import given
from harness_ext.testing.contracts.given import fail, told_in_one_line
from harness_ext.testing.contracts.layerwise import FirstLayerDense, LayerwiseContract, layer_error

Record = Mapping[str, Any]

RANDOM_SEEDS = (0, 1, 2)


class PrunerContract(LayerwiseContract):
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

    def pruner_for(self, model: Any, sparsity: Sparsity) -> PruningMethod:
        """The pruner under test. Override this where its options depend on the model or the sparsity."""
        return given.make(PruningMethod, given.plugins().pruners, self.pruner, self.options)

    # --- the rules

    def test_it_removes_exactly_what_was_asked_for(self) -> None:
        refused = []
        for ratio in self.ratios:
            model = given.small_model()
            before = given.snapshot(model)
            try:
                self._run(model, sparsity=ratio)
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
        if not self._by_layer():  # a ModelPruner is never called with sparsity 0
            return
        model = given.small_model()
        with told_in_one_line():
            self._run(model, sparsity=0.5, allocation=FirstLayerDense())
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
                self._run(model, sparsity=pattern)
            n, m = Sparsity.parse(pattern).pattern or (0, 1)
            for layer in given.layers_of(model):
                if not ((layer.weight.reshape(-1, m) == 0).sum(1) == n).all():
                    fail(f"{self._who()} on {layer.name}: want {n} zeros in every {m} inputs")

    def test_it_is_no_worse_than_random(self) -> None:
        ids, text = given.lab_text(0), given.lab_text(1)
        model = given.lab_model()
        with told_in_one_line(f"on {given.LAB}"):
            record = self._run(model, sparsity=self.quality_sparsity, calibration=ids)
        structured = isinstance(self._pruner(), StructuredPruner)
        measure, sparsity = (_loss, record["achieved_sparsity"]) if structured else (layer_error, self.quality_sparsity)
        mine, floor = measure(model, text), sum(_of_random(sparsity, seed, measure) for seed in RANDOM_SEEDS) / len(RANDOM_SEEDS)
        if not mine <= 1.1 * floor:
            what = "loss" if measure is _loss else "output error of its layers"
            fail(f"{self._who()}: at sparsity {sparsity:.4g} the {what} of {given.LAB} is {mine:.3f}, that of random {floor:.3f}")

    # --- how they are tested

    def _pruner(self, sparsity: Sparsity | float | str = 0.5) -> PruningMethod:
        return self.pruner_for(given.small_model(), Sparsity.parse(sparsity))

    def _plugin(self) -> PruningMethod:
        return self._pruner()

    def _run(self, model: Any, *, sparsity: float | str = 0.5, calibration: torch.Tensor | None = None, **options: Any) -> Record:
        ids = given.token_ids() if calibration is None else calibration
        return given.prune(model, pruner=self.pruner_for(model, Sparsity.parse(sparsity)), sparsity=sparsity, calibration=ids, **options)

    def _by_layer(self) -> bool:
        return not isinstance(self._pruner(), ModelPruner)

    def _call(self, weight: torch.Tensor, statistic: Any, sparsity: Sparsity | None = None) -> torch.Tensor:
        sparsity = sparsity or Sparsity(0.5)
        pruner = self._pruner(sparsity)
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

    def _check_like(self, new: torch.Tensor, weight: torch.Tensor) -> None:
        if new.device != weight.device or new.dtype != weight.dtype:
            fail(f"{self._who()}: a weight in {weight.dtype} on {weight.device} came back in {new.dtype} on {new.device}")

    def _may_change(self, name: str) -> bool:
        return super()._may_change(name) or (isinstance(self._pruner(), StructuredPruner) and ".layers." in name)

    def _take(self, case: Callable[[], tuple[Any, torch.Tensor]]) -> None:
        model, ids = case()
        with told_in_one_line():
            self._run(model, sparsity=0.5, calibration=ids)
        self._check_output(model, "pruned by half")

    def _check_counts(self, model: Any, sparsity: Sparsity) -> None:
        """Counts the zeros of a model whose dense weights are not zero. Each matrix, or each row, has the floor of its share."""
        if not self._by_layer():  # a ModelPruner may distribute zeros over layers; the engine has counted them
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
