"""What the contracts of pruners and of quantizers share: inputs, devices, dtypes, and the output error of linear layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from harness_ext.engine.layerwise import output_error
from harness_ext.method.allocation import Allocation
from harness_ext.method.sparsity import Sparsity
from harness_ext.method.statistic import Hessian
from harness_ext.testing.contracts import given

DTYPES = ((torch.float32, "float64"), (torch.bfloat16, "float32"), (torch.float16, "float32"))  # model and arithmetic


class FirstLayerDense(Allocation):
    """Leaves the first layer dense, and spreads the sparsity evenly over the others."""

    name: ClassVar[str] = "first-layer-dense"

    def spread(self, sparsity: Any, layers: Any, measured: Any) -> Mapping[str, float | Sparsity]:
        removed, rest = sum(sparsity.removed_of(layer.size) for layer in layers), sum(layer.size for layer in layers[1:])
        return {layer.name: removed / rest if layer is not layers[0] else Sparsity(0.0) for layer in layers}


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
