"""Compares our GPTQ with that of llm-compressor: the output error at equal inputs, and the time of a whole run.

    python -m harness_ext_smollm2
    python scripts/bench_gptq.py --llmcompressor-python VENV/bin/python    # the environment of bench_llmcompressor.py

Both get the same dense weights and tokens, the same groups of consecutive inputs, and grids of the dense weights
(``pruner.static_groups=True``), which is what llm-compressor does. The output error is the mean over the linear layers of
``||dW X||^2 / ||W X||^2`` on the inputs ``X`` of the dense model. The figures of rounding to nearest stand beside them.

Prints JSON.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import harness_ext
from harness_ext.engine.layerwise import output_error
from harness_ext.host.model_folder import model_folder
from harness_ext.plugins import Plugins

PEER = Path(__file__).parent / "bench_llmcompressor.py"


def load(pretrained: str, dtype: str) -> Any:
    """A registered model, or that of a folder."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_folder(Plugins(), pretrained), dtype=getattr(torch, dtype)).eval()


def layers_of(model: Any) -> dict[str, harness_ext.LinearLayer]:
    return {layer.name: layer for block in harness_ext.find_blocks(model) for layer in block.layers}


def hessians_of(dense: Any, ids: torch.Tensor) -> dict[str, harness_ext.Hessian]:
    """The Hessian of the inputs of each linear layer of the dense model."""
    hessians = {name: harness_ext.Hessian(layer.in_features, layer.weight.device) for name, layer in layers_of(dense).items()}
    handles = [
        layer.module.register_forward_pre_hook(lambda _, args, name=name: hessians[name].update(args[0].flatten(0, -2).float()))
        for name, layer in layers_of(dense).items()
    ]
    with torch.no_grad():
        for row in ids:
            dense(input_ids=row[None])
    for handle in handles:
        handle.remove()
    return hessians


def mean_error(dense: Any, weights: dict[str, torch.Tensor], hessians: dict[str, harness_ext.Hessian]) -> float:
    """The mean output error of the linear layers."""
    errors = [output_error(layer.weight.float(), weights[name].float(), hessians[name].matrix) for name, layer in layers_of(dense).items()]
    return sum(errors) / len(errors)


def ours(ids: torch.Tensor, dtype: str, pretrained: str, **plan: Any) -> tuple[dict[str, torch.Tensor], float]:
    """Our new weights by layer, and the seconds of the whole run."""
    model = load(pretrained, dtype)
    began = time.perf_counter()
    harness_ext.prune(model, calibration=ids, **plan)
    seconds = time.perf_counter() - began
    return {name: layer.weight.clone() for name, layer in layers_of(model).items()}, seconds


def theirs(dense: Any, ids: torch.Tensor, python: Path, options: list[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The new weights of llm-compressor by layer, and what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        dense.save_pretrained(folder)
        torch.save(ids, Path(folder) / "ids.pt")
        out = Path(folder) / "weights.pt"
        command = [str(python), str(PEER), "--folder", folder, "--method", "gptq", "--out", str(out), *options]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return torch.load(out), json.loads(done.stdout.strip().splitlines()[-1])


def main(
    pretrained: Annotated[str, typer.Option(help="A registered model, or a folder.")] = "smollm2-135m",
    bits: Annotated[int, typer.Option(help="Bits of a weight.")] = 4,
    group_size: Annotated[int, typer.Option(help="Inputs of a group; llm-compressor wants one that divides those of each layer.")] = 64,
    symmetric: Annotated[bool, typer.Option("--symmetric", help="Zero points in the middle of the grid.")] = False,
    act_order: Annotated[
        bool, typer.Option("--act-order", help="Columns by the diagonal of the Hessian: llm-compressor's default.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="Dtype of the model.")] = "bfloat16",
    samples: Annotated[int, typer.Option(help="Sequences of random tokens.")] = 16,
    length: Annotated[int, typer.Option(help="Tokens in a sequence.")] = 256,
    llmcompressor_python: Annotated[Path | None, typer.Option(help="Python of llm-compressor's environment.")] = None,
) -> None:
    dense = load(pretrained, dtype)
    ids = torch.randint(dense.config.vocab_size, (samples, length), generator=torch.Generator().manual_seed(0))
    hessians = hessians_of(dense, ids)
    groups = {"group_size": group_size, "symmetric": symmetric}
    found: dict[str, Any] = {
        "bits": bits,
        **groups,
        "act_order": act_order,
        "dtype": dtype,
        "tokens": ids.numel(),
        "threads": torch.get_num_threads(),
    }
    for name, options in (("rtn", groups), ("gptq", groups | {"static_groups": True, "act_order": act_order})):
        weights, seconds = ours(ids, dtype, pretrained, pruner=name, bits=bits, pruner_options=options)
        found[name] = {"error": mean_error(dense, weights, hessians), "seconds": seconds}
    if llmcompressor_python is not None:
        options = ["--bits", str(bits), "--group-size", str(group_size), *(["--symmetric"] if symmetric else [])]
        options += ["--act-order"] if act_order else []
        weights, printed = theirs(dense, ids, llmcompressor_python, options)
        found["llmcompressor"] = {"error": mean_error(dense, weights, hessians)} | printed
        found["error_ratio"] = found["gptq"]["error"] / found["llmcompressor"]["error"]
        found["times_as_fast"] = printed["seconds"] / found["gptq"]["seconds"]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
