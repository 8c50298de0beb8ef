"""Times pruning beside the authors' code, llm-compressor, and the least that the arithmetic takes, all in one run.

    python scripts/bench_speed.py --pruner sparsegpt --reference DIR                       # a clone of IST-DASLab/sparsegpt
    python scripts/bench_speed.py --pruner wanda --reference DIR                           # a clone of locuslab/wanda
    python scripts/bench_speed.py --pruner sparsegpt --reference DIR --dtype bfloat16
    python scripts/bench_speed.py --pruner sparsegpt --llmcompressor-python VENV/bin/python  # see bench_llmcompressor.py

The model is random, of the shape of OPT-125M, and the tokens are random. The least is two passes through the blocks (one that measures,
one that feeds the pruned block's outputs on) and, for SparseGPT, each distinct Hessian once as a symmetric product and one
factorisation of it, all at the rate of the fastest matrix product measured in this run, before and after. The output error is that of the
pruned layers on the dense model's inputs, ``||dW X||^2 / ||W X||^2``, and that of the whole model: of the last hidden states.
"""

from __future__ import annotations

import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn
from transformers import OPTConfig, OPTForCausalLM

sys.path.insert(0, str(Path(__file__).parent))

from public_reference import finishers, load_sparsegpt, load_wanda, prune_as_published

import harness_ext

PRODUCTS = ((2048, 768, 3072), (2048, 3072, 768), (2048, 768, 768), (4096, 768, 3072), (3072, 2048, 3072), (768, 8192, 3072))
BARS = {("sparsegpt", "float32"): 2.0, ("wanda", "float32"): 1.2, ("sparsegpt", "bfloat16"): 3.0}
LLMCOMPRESSOR_BAR, LIMIT_BAR = 2.0, 1.5
Timed = tuple[dict[str, Any], dict[str, torch.Tensor]]  # seconds in all and by part, and the weights by layer
SCRIPT = Path(__file__).parent / "bench_llmcompressor.py"


def build(layers: int, dtype: torch.dtype, width: int = 768, vocabulary: int = 50272) -> Any:
    """A random model of OPT's shape; one of 768 wide and 12 layers has the shape of OPT-125M."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=vocabulary, hidden_size=width, word_embed_proj_dim=width, ffn_dim=4 * width, num_attention_heads=width // 64,
        num_hidden_layers=layers, max_position_embeddings=2048, dropout=0.0,
    )  # fmt: skip
    return OPTForCausalLM(config).to(dtype).eval()


def gemm_rate(dtype: torch.dtype, seconds: float = 2.0) -> float:
    """FLOP/s of the fastest of several matrix products of the sizes that occur, over about so many seconds."""
    best = 0.0
    with torch.no_grad():
        for rows, inner, columns in PRODUCTS:
            left, right = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
            out = left @ right
            until = time.perf_counter() + seconds / len(PRODUCTS)
            while (began := time.perf_counter()) < until:
                torch.mm(left, right, out=out)
                best = max(best, 2 * rows * inner * columns / (time.perf_counter() - began))
    return best


def forward_flops(layers: int, width: int, samples: int, length: int) -> float:
    """One pass through the blocks: the linear layers, and the half of the attention products that causality leaves."""
    tokens = samples * length
    return layers * tokens * (2 * 12 * width**2 + 2 * length * width)


def statistics_flops(layers: int, width: int, tokens: int) -> tuple[float, float]:
    """Of the distinct Hessians (three of the width, one of four times that): the symmetric products, and the factorisations."""
    widths = (width, width, width, 4 * width)
    return layers * sum(tokens * d**2 for d in widths), layers * sum(2 * d**3 / 3 for d in widths)


def limit(pruner: str, layers: int, width: int, samples: int, length: int, rates: tuple[float, float]) -> dict[str, float]:
    """The least seconds by part; ``rates`` are FLOP/s in the model's dtype and in float32."""
    parts = {"forward": 2 * forward_flops(layers, width, samples, length) / rates[0]}
    if pruner == "sparsegpt":
        products, factorisations = statistics_flops(layers, width, samples * length)
        parts |= {"statistics": products / rates[1], "factorise": factorisations / rates[1]}
    return {"total": sum(parts.values()), **parts}


@torch.no_grad()
def output_errors(dense: Any, candidates: list[dict[str, torch.Tensor]], input_ids: torch.Tensor) -> list[float]:
    """For each candidate, the mean over the layers of ``||dW X||^2 / ||W X||^2`` with the dense model's inputs ``X``.

    Args:
        candidates: the weights of all linear layers of the decoder by the module's name.
        input_ids: int64 [samples, length].
    """
    layers = [layer for block in harness_ext.find_blocks(dense) for layer in block.layers]
    energy = {layer.name: [0.0] * (1 + len(candidates)) for layer in layers}
    hooks = []
    for layer in layers:
        weight = layer.weight.float()
        changes = [weight, *(weight - candidate[layer.name].float() for candidate in candidates)]

        def hook(_: nn.Module, args: tuple[torch.Tensor, ...], name: str = layer.name, changes: list[torch.Tensor] = changes) -> None:
            inputs = args[0].flatten(0, -2).float()
            for index, change in enumerate(changes):
                energy[name][index] += float((inputs @ change.T).square().sum())

        hooks.append(layer.module.register_forward_pre_hook(hook))
    for row in input_ids:
        dense.model(row[None], use_cache=False)
    for handle in hooks:
        handle.remove()
    return [statistics.fmean(of[1 + index] / of[0] for of in energy.values()) for index in range(len(candidates))]


@torch.no_grad()
def model_errors(dense: Any, candidates: list[dict[str, torch.Tensor]], input_ids: torch.Tensor) -> list[float]:
    """For each candidate, ``||dY||^2 / ||Y||^2`` with the dense model's last hidden states ``Y``; arguments as of ``output_errors``."""
    model, found = copy.deepcopy(dense), []

    def states(of: Any) -> list[torch.Tensor]:
        return [of.model(row[None], use_cache=False).last_hidden_state.float() for row in input_ids]

    expected = states(dense)
    for candidate in candidates:
        for name, weight in candidate.items():
            model.get_submodule(name).weight.copy_(weight)
        changes = [new - old for new, old in zip(states(model), expected, strict=True)]
        found.append(sum(float(change.square().sum()) for change in changes) / sum(float(old.square().sum()) for old in expected))
    return found


def linear_weights(model: Any) -> dict[str, torch.Tensor]:
    return {layer.name: layer.weight.clone() for block in harness_ext.find_blocks(model) for layer in block.layers}


def time_ours(dense: Any, pruner: str, sparsity: str, ids: torch.Tensor, true_sequential: bool = False) -> Timed:
    model = copy.deepcopy(dense)
    record = harness_ext.prune(model, pruner=pruner, sparsity=sparsity, calibration=ids, true_sequential=true_sequential)
    return {"total": record["seconds_pruning"], **record.get("seconds_parts", {})}, linear_weights(model)


def time_reference(dense: Any, pruner: str, sparsity: str, ids: torch.Tensor, wrapper: Any) -> Timed:
    model = copy.deepcopy(dense)
    seconds = prune_as_published(model, ids, wrapper, finishers(harness_ext.Sparsity.parse(sparsity))[pruner])
    return seconds, linear_weights(model)


def time_llmcompressor(python: Path, folder: Path, pruner: str, sparsity: str) -> Timed:
    """Runs the peer in its own environment on the saved model.

    Raises:
        RuntimeError: it failed; its error output is in the message.
    """
    weights = folder / "llmcompressor.pt"
    command = [str(python), str(SCRIPT), "--folder", str(folder), "--method", pruner, "--sparsity", sparsity, "--out", str(weights)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"llm-compressor failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {"total": found.pop("seconds"), "about": found}, torch.load(weights)


@contextmanager
def saved(dense: Any, ids: torch.Tensor, folder: Path | None) -> Iterator[Path]:
    """The model and the tokens as files, in ``folder`` or one that is removed afterwards."""
    with tempfile.TemporaryDirectory() as temporary:
        target = folder or Path(temporary)
        dense.save_pretrained(target)
        torch.save(ids, target / "ids.pt")
        yield target


def said(seconds: dict[str, Any]) -> str:
    return ", ".join(f"{part} {value:.1f}" for part, value in seconds.items() if isinstance(value, float) and part != "total")


def against(ratio: float, bar: float | None, *, least: bool = True) -> str:
    """The ratio, and whether it meets the bar to two decimals: at least it, or at most."""
    if bar is None:
        return f"{ratio:.2f}"
    met = round(ratio, 2) >= bar if least else round(ratio, 2) <= bar
    return f"{ratio:.4f} ({'at least' if least else 'at most'} {bar:.2f}: {'yes' if met else 'NO'})"


def main(
    pruner: Annotated[str, typer.Option(help="sparsegpt or wanda.")] = "sparsegpt",
    reference: Annotated[Path | None, typer.Option(help="A clone of the authors' repository of that method.")] = None,
    llmcompressor_python: Annotated[Path | None, typer.Option(help="The Python of an environment with llm-compressor.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the model: float32 or bfloat16.")] = "float32",
    layers: Annotated[int, typer.Option(help="Decoder blocks.")] = 12,
    width: int = 768,
    samples: Annotated[int, typer.Option(help="Calibration sequences.")] = 64,
    length: Annotated[int, typer.Option(help="Tokens in each.")] = 512,
    sparsity: str = "0.5",
    true_sequential: Annotated[bool, typer.Option("--true-sequential", help="Also time ours with true_sequential=True.")] = False,
    repeat: Annotated[int, typer.Option(help="Rounds; each times all, in turn, and the medians are shown.")] = 1,
    error_samples: Annotated[int, typer.Option(help="Sequences on which the output error is measured.")] = 8,
    save: Annotated[Path | None, typer.Option(help="Keep the model and the tokens there, for bench_llmcompressor.py.")] = None,
) -> None:
    kind = getattr(torch, dtype)
    rng = torch.Generator().manual_seed(1)
    dense = build(layers, kind, width)
    ids = torch.randint(0, dense.config.vocab_size, (samples, length), generator=rng)
    contenders: dict[str, Callable[[Any, torch.Tensor], Timed]] = {"ours": lambda model, tokens: time_ours(model, pruner, sparsity, tokens)}
    if true_sequential:
        contenders["ours, true sequential"] = lambda model, tokens: time_ours(model, pruner, sparsity, tokens, True)
    if reference:
        wrapper = {"sparsegpt": load_sparsegpt, "wanda": load_wanda}[pruner](reference)
        contenders["the authors'"] = lambda model, tokens: time_reference(model, pruner, sparsity, tokens, wrapper)
    for run in contenders.values():  # warms up
        run(build(1, kind, width), ids[:2])
    kinds = dict.fromkeys((dtype, "float32"))
    before = {name: gemm_rate(getattr(torch, name)) for name in kinds}
    with saved(dense, ids, save) if llmcompressor_python or save else tempfile.TemporaryDirectory() as folder:
        if llmcompressor_python:
            contenders["llm-compressor"] = lambda *_: time_llmcompressor(llmcompressor_python, Path(folder), pruner, sparsity)
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
        weights = {}
        for _ in range(repeat):
            for name, run in contenders.items():
                seconds, weights[name] = run(dense, ids)
                rounds[name].append(seconds)
    after = {name: gemm_rate(getattr(torch, name)) for name in kinds}
    best = {name: max(before[name], after[name]) for name in kinds}
    least = limit(pruner, layers, width, samples, length, (best[dtype], best["float32"]))
    errors = dict(zip(weights, output_errors(dense, list(weights.values()), ids[:error_samples]), strict=True))
    of_model = dict(zip(weights, model_errors(dense, list(weights.values()), ids[:error_samples]), strict=True))
    print(f"{pruner} {sparsity}, {dtype}, {layers} layers of {width}, {samples} x {length} tokens, {torch.get_num_threads()} threads\n")
    for name in kinds:
        print(f"GFLOP/s in {name}: {before[name] / 1e9:.1f} before, {after[name] / 1e9:.1f} after\n")
    print("| | seconds: median | each round | parts of the last | output error | of the model |\n|---|---|---|---|---|---|")
    medians = {name: statistics.median(seconds["total"] for seconds in of) for name, of in rounds.items()}
    for name, of in rounds.items():
        each = ", ".join(f"{seconds['total']:.1f}" for seconds in of)
        print(f"| {name} | {medians[name]:.1f} | {each} | {said(of[-1])} | {errors[name]:.6f} | {of_model[name]:.6f} |")
    print(f"| the limit | {least['total']:.1f} | | {said(least)} | | |\n")
    if about := rounds.get("llm-compressor", [{}])[-1].get("about"):
        print(f"- llm-compressor: {about}")
    print(f"- ours / limit: {against(medians['ours'] / least['total'], LIMIT_BAR, least=False)}")
    if true_sequential:
        print(f"- ours / ours, true sequential: {medians['ours'] / medians['ours, true sequential']:.2f}")
    for name in [name for name in contenders if not name.startswith("ours")]:
        bar = LLMCOMPRESSOR_BAR if name == "llm-compressor" else BARS.get((pruner, dtype))
        print(f"- seconds of {name} / ours: {against(medians[name] / medians['ours'], bar)}")
        print(f"- seconds of {name} / the limit: {medians[name] / least['total']:.2f}, the ratio to a run at the limit")
        print(f"- output error of ours / {name}: {against(errors['ours'] / errors[name], 1.0, least=False)}")
        if true_sequential:
            own, error = medians["ours, true sequential"], errors["ours, true sequential"]
            print(f"- seconds of {name} / ours, true sequential: {against(medians[name] / own, bar)}")
            print(f"- output error of ours, true sequential / {name}: {against(error / errors[name], 1.0, least=False)}")


if __name__ == "__main__":
    typer.run(main)
