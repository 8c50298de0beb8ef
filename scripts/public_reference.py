"""Runs the authors' own code of SparseGPT and Wanda, from clones of their repositories, for comparisons; nothing of it is kept here.

The clones are of IST-DASLab/sparsegpt and locuslab/wanda. What they take from CUDA is switched off where there is none.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import typer
from torch import nn

from harness_ext import Sparsity


def load_sparsegpt(folder: Path) -> Any:
    """The class ``SparseGPT`` of a clone of IST-DASLab/sparsegpt."""
    _want(folder / "sparsegpt.py")
    if not torch.cuda.is_available():
        torch.cuda.synchronize = lambda *_: None
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # its modules import each other by bare names
    return importlib.import_module("sparsegpt").SparseGPT


def load_wanda(folder: Path) -> Any:
    """The class ``WrappedGPT`` of a clone of locuslab/wanda."""
    path = folder / "lib" / "layerwrapper.py"
    _want(path)
    spec = importlib.util.spec_from_file_location("wanda_layerwrapper", path)
    module: ModuleType = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module.WrappedGPT


def _want(path: Path) -> None:
    if not path.is_file():
        raise typer.BadParameter(f"{path}: no such file; want the folder of a clone")


def wanda_mask(weight: torch.Tensor, scaler_row: torch.Tensor, sparsity: Sparsity) -> torch.Tensor:
    """What Wanda's driver removes, which is inline there: bool [out, in].

    Args:
        weight: [out, in], in the model's dtype.
        scaler_row: [in], what ``WrappedGPT`` accumulated.
    """
    metric = weight.abs() * scaler_row.reshape(1, -1).sqrt()
    mask = torch.zeros_like(metric, dtype=torch.bool)
    if sparsity.pattern:
        n, m = sparsity.pattern
        for start in range(0, metric.shape[1], m):
            mask.scatter_(1, start + torch.topk(metric[:, start : start + m].float(), n, dim=1, largest=False)[1], True)
    else:
        order = torch.sort(metric, dim=-1, stable=True)[1]
        mask.scatter_(1, order[:, : int(metric.shape[1] * sparsity.ratio)], True)
    return mask


Finish = Callable[[Any, nn.Linear], None]


def finishers(sparsity: Sparsity) -> dict[str, Finish]:
    """By method, what prunes a layer of which the wrapper has seen the inputs."""
    n, m = sparsity.pattern or (0, 0)

    def sparsegpt(wrapper: Any, layer: nn.Linear) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            wrapper.fasterprune(sparsity.ratio, prunen=n, prunem=m, blocksize=128, percdamp=0.01)
        wrapper.free()

    def wanda(wrapper: Any, layer: nn.Linear) -> None:
        layer.weight.data[wanda_mask(layer.weight.data, wrapper.scaler_row, sparsity)] = 0

    return {"sparsegpt": sparsegpt, "wanda": wanda}


@torch.no_grad()
def prune_as_published(
    model: Any, input_ids: torch.Tensor, wrapper: Any, finish: Finish, device: torch.device | None = None
) -> dict[str, float]:
    """Prunes a model as the authors' drivers do: each block sees the sequences one by one, before and after it is pruned.

    Their drivers of OPT and of Llama differ only in where the blocks are, and in what a block is called with besides hidden states, which
    is taken here from the model's own call.

    Args:
        model: whose blocks are in ``model.decoder.layers``, as those of OPT, or in ``model.layers``, as those of Llama.
        input_ids: int64 [samples, length].
        wrapper: the class that is told the inputs of a layer.
        finish: prunes a layer.
        device: where blocks are brought one by one, and back, as SparseGPT's drivers do; by default all is where it is, as in Wanda's.

    Returns:
        seconds in all, and of the two forward passes and of the pruning.
    """
    began = time.perf_counter()
    body = model.model.decoder if hasattr(model.model, "decoder") else model.model
    blocks, home = body.layers, model.device
    there = device or home
    for child in body.children():
        if child is not blocks:
            child.to(there)
    input_ids = input_ids.to(there)
    inputs, how = _inputs_of_first_block(model, blocks, input_ids)
    outputs = torch.zeros_like(inputs)
    seconds = {"first pass": 0.0, "pruning": 0.0, "second pass": 0.0}

    @contextlib.contextmanager
    def timed(part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[part] += time.perf_counter() - start

    def forward(block: nn.Module) -> None:
        for index in range(len(inputs)):
            result = block(inputs[index : index + 1], **how)
            outputs[index] = result[0] if isinstance(result, tuple) else result

    for block in blocks:
        block.to(there)
        layers = [module for module in block.modules() if isinstance(module, nn.Linear)]
        wrappers = [wrapper(layer) for layer in layers]
        hooks = [layer.register_forward_hook(_listener(seen)) for layer, seen in zip(layers, wrappers, strict=True)]
        with timed("first pass"):
            forward(block)
        for hook in hooks:
            hook.remove()
        with timed("pruning"):
            for layer, seen in zip(layers, wrappers, strict=True):
                finish(seen, layer)
        with timed("second pass"):
            forward(block)
        block.to(home)
        inputs, outputs = outputs, inputs
    model.to(home)
    if there.type == "cuda":
        torch.cuda.synchronize(there)
    return {"total": time.perf_counter() - began, **seconds}


def _listener(wrapper: Any) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
    def hook(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        wrapper.add_batch(args[0].data, output.data)

    return hook


class _Caught(Exception):
    """Ends a forward pass at the first block."""


def _inputs_of_first_block(model: Any, blocks: nn.ModuleList, input_ids: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
    caught: list[torch.Tensor] = []
    how: dict[str, Any] = {}

    class Catcher(nn.Module):
        def forward(self, hidden: torch.Tensor, **kwargs: Any) -> None:
            caught.append(hidden)
            how.update(kwargs)
            raise _Caught

    first, blocks[0] = blocks[0], Catcher()
    try:
        for row in input_ids:
            with contextlib.suppress(_Caught):
                model(row[None], use_cache=False)
    finally:
        blocks[0] = first
    inputs = torch.cat(caught)
    caught.clear()  # the class is a reference cycle, which would keep them
    return inputs, how
