"""The rules that pruners and quantizers share, as tests, and the output error of linear layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from harness_ext.engine.checks import tensors_of, untouched
from harness_ext.engine.global_state import kept_generators
from harness_ext.engine.layerwise import output_error
from harness_ext.errors import BadOptionError, HarnessExtError
from harness_ext.method.allocation import Allocation
from harness_ext.method.sparsity import Sparsity
from harness_ext.method.statistic import Hessian
from harness_ext.testing.contracts import given
from harness_ext.testing.contracts.additivity import check_additive
from harness_ext.testing.contracts.degenerate import DegenerateCases, measured
from harness_ext.testing.contracts.given import fail, told_in_one_line
from harness_ext.testing.contracts.plugin import PluginContract

DTYPES = ((torch.float32, "float64"), (torch.bfloat16, "float32"), (torch.float16, "float32"))  # model and arithmetic


class FirstLayerDense(Allocation):
    """Leaves the first layer dense, and spreads the sparsity evenly over the others."""

    name: ClassVar[str] = "first-layer-dense"

    def spread(self, sparsity: Any, layers: Any, measured: Any) -> Mapping[str, float | Sparsity]:
        removed, rest = sum(sparsity.removed_of(layer.size) for layer in layers), sum(layer.size for layer in layers[1:])
        return {layer.name: removed / rest if layer is not layers[0] else Sparsity(0.0) for layer in layers}


class LayerwiseContract(PluginContract, DegenerateCases):
    """The tests of a method that gives linear layers new weights. How a test runs the method is left to the contract of its kind."""

    several_processes: bool = True
    """Whether several processes can measure the statistic. If False, a run with several processes is an error."""

    # --- the rules

    def test_its_statistic_can_be_measured_by_several_processes(self) -> None:
        if self.several_processes:
            check_additive(self._plugin().measures(), self._who())

    def test_it_refuses_a_pattern_that_does_not_divide_the_row(self) -> None:
        self._check_refused("2:7", given.small_model())
        if not (self._by_layer() and self._takes_sparsity()):
            return
        what, weight = f"sparsity=2:7 of {given.WIDTH} inputs", given.layers_of(given.small_model())[0].weight
        try:
            self._call(weight, measured(self._plugin(), inputs()), Sparsity.parse("2:7"))
        except HarnessExtError:
            return
        except Exception as error:
            fail(f"{self._who()}: {what} ended in {type(error).__name__}: want an error of harness_ext, as Sparsity.mask raises")
        fail(f"{self._who()}: {what} was accepted: want an error of harness_ext, as Sparsity.mask raises")

    def test_it_writes_into_nothing_that_it_is_given(self) -> None:
        model, ids = given.small_model(), given.token_ids()
        before, tokens, states = given.snapshot(model), ids.clone(), given.generator_states()
        with told_in_one_line():
            self._run(model, calibration=ids)
        if not ids.equal(tokens):
            fail(f"{self._who()}: it wrote into the calibration tokens")
        self._check_generators(states)
        for name, module in model.named_modules():
            if module._forward_hooks or module._forward_pre_hooks:
                fail(f"{self._who()}: it left a hook on {name or 'the model'}")
        self._check_the_rest(model, before)
        if self._by_layer():
            self._check_arguments()

    def test_it_gives_the_same_weights_twice_bit_for_bit(self) -> None:
        snapshots = []
        for seed in (1, 2):
            model = given.small_model()
            with kept_generators(seed), told_in_one_line():
                self._run(model)
            snapshots.append(given.snapshot(model))
        if name := given.first_difference(*snapshots):
            fail(f"{self._who()}: {name} is not the same when it is done again")

    def test_it_takes_models_and_arithmetic_of_every_dtype(self) -> None:
        for dtype, precision in DTYPES:
            model = given.small_model(dtype)
            with told_in_one_line(f"a model in {dtype} with precision={precision}"):
                self._run(model, precision=precision)
            if other := next((name for name, tensor in model.named_parameters() if tensor.dtype != dtype), None):
                fail(f"{self._who()}: {other} was {dtype} and is not any more")
            self._check_output(model, f"in {dtype} with precision={precision}")

    def test_it_works_where_the_model_is(self) -> None:
        for device in devices():
            model = given.small_model().to(device)
            with told_in_one_line(f"on {device}"):
                self._run(model, calibration=given.token_ids().to(device))
            if other := next((name for name, tensor in model.named_parameters() if tensor.device.type != device), None):
                fail(f"{self._who()}: {other} was on {device} and is not any more")
            if self._by_layer():
                weight = given.layers_of(model)[0].weight
                with told_in_one_line():
                    new = self._call(weight, measured(self._plugin(), inputs().to(device)))
                self._check_like(new, weight)

    # --- how they are tested

    @abstractmethod
    def _run(self, model: Any, **options: Any) -> Mapping[str, Any]:
        """Gives the layers of a model new weights, as in a run. Returns the record.

        Args:
            options: arguments of :func:`harness_ext.prune`, in place of those of a usual run.
        """

    @abstractmethod
    def _by_layer(self) -> bool:
        """Whether the method can be called with one linear layer."""

    @abstractmethod
    def _call(self, weight: torch.Tensor, statistic: Any, sparsity: Sparsity | None = None) -> Any:
        """Calls the method that the plugin overrides with one linear layer. Returns the result.

        Args:
            sparsity: that of a usual run, if None.
        """

    @abstractmethod
    def _check_like(self, new: Any, weight: torch.Tensor) -> None:
        """Checks that a result is on the device of the weight and in its dtype."""

    def _takes_sparsity(self) -> bool:
        """Whether the method can remove weights."""
        return True

    def _may_change(self, name: str) -> bool:
        """Whether the method may change the parameter of this name."""
        return any(name == f"{layer.name}.weight" for layer in given.layers_of(given.small_model()))

    def _check_output(self, model: Any, when: str) -> None:
        with torch.no_grad():
            logits = model(input_ids=given.token_ids()).logits
        if not logits.isfinite().all():
            fail(f"{self._who()}: the output of the model {when} has NaN or infinite values")

    def _check_refused(self, sparsity: float | str, model: Any) -> None:
        before, what = given.snapshot(model), f"sparsity={sparsity}"
        try:
            self._run(model, sparsity=sparsity)
        except HarnessExtError as error:
            if "\n" in str(error):
                fail(f"{self._who()}: {what} was refused in more than one line")
            self._check_same(model, before, f"{what} was refused after the model was changed")
            if not isinstance(error, BadOptionError):
                fail(f"{self._who()}: {what}: want a BadOptionError, not {type(error).__name__}: {error}")
            return
        fail(f"{self._who()}: {what} was accepted: want a BadOptionError")

    def _check_same(self, model: Any, before: Mapping[str, torch.Tensor], what: str) -> None:
        if name := given.first_difference(before, given.snapshot(model)):
            fail(f"{self._who()}: {what}: {name}")

    def _check_the_rest(self, model: Any, before: Mapping[str, torch.Tensor]) -> None:
        """Checks that the method changed only what it may change."""
        names = [name for name in {**before, **given.snapshot(model)} if not self._may_change(name)]
        kept, now = ({name: each[name] for name in names if name in each} for each in (before, given.snapshot(model)))
        if name := given.first_difference(kept, now):
            fail(f"{self._who()}: it changed {name}, which is not the weight of a linear layer of the decoder")

    def _check_arguments(self) -> None:
        """Checks that the method does not change the weight and the statistic that it is given."""
        weight = given.layers_of(given.small_model())[0].weight.clone()
        statistic = measured(self._plugin(), inputs())
        with told_in_one_line():
            for what, tensors in (("weight", [weight]), ("statistic", tensors_of(statistic))):
                with untouched(tensors, f"the {what} that it was given", self._who()):
                    self._call(weight, statistic)


def inputs() -> torch.Tensor:
    """Random inputs of a layer, [64, WIDTH]."""
    return torch.randn(64, given.WIDTH, generator=torch.Generator().manual_seed(3))


def devices() -> list[str]:
    """The CPU, and other devices that are there."""
    return ["cpu", *(name for name in ("cuda", "xpu", "mps", "npu", "hpu") if _available(name))]


def _available(device: str) -> bool:
    backend = getattr(torch, device, None) or getattr(torch.backends, device, None)
    return backend is not None and hasattr(backend, "is_available") and bool(backend.is_available())


def layer_error(model: Any, ids: torch.Tensor) -> float:
    """The mean over the linear layers of ``||WX - W'X||^2 / ||WX||^2``, where X are the layer's inputs in the dense model."""
    dense = given.lab_model()
    layers = given.layers_of(dense)
    with _listening(layers) as hessians, torch.no_grad():
        dense(input_ids=ids)
    pairs = zip(layers, given.layers_of(model), strict=True)
    errors = [output_error(old.weight, new.weight.float(), hessians[old.name].matrix) for old, new in pairs]
    return sum(errors) / len(errors)


@contextmanager
def _listening(layers: Any) -> Any:
    hessians = {layer.name: Hessian(layer.in_features, layer.weight.device) for layer in layers}

    def hook(name: str) -> Callable[..., None]:
        def update(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            (inputs,) = (*args, *kwargs.values())
            hessians[name].update(inputs.reshape(-1, inputs.shape[-1]))

        return update

    handles = [layer.module.register_forward_pre_hook(hook(layer.name), with_kwargs=True) for layer in layers]
    try:
        yield hessians
    finally:
        for handle in handles:
            handle.remove()
