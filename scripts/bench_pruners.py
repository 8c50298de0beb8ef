"""Compares the built-in pruners on one model: achieved sparsity, the mean layer output error, and whether two runs give the same masks.

python scripts/bench_pruners.py --sparsity 0.3,0.5,0.7
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from transformers import AutoModelForCausalLM, AutoTokenizer

import harness_ext
from harness_ext.host.model_folder import model_folder
from harness_ext.plugins import Plugins

PRUNERS = ("random", "magnitude", "wanda", "ria", "dsnot", "sparsegpt", "admm", "alps")


def pruned(path: str, pruner: str, sparsity: str, samples: int) -> tuple[dict[str, torch.Tensor], dict]:
    """The weights of the pruned layers and the pruning record."""
    model = AutoModelForCausalLM.from_pretrained(path)
    record = harness_ext.prune(
        model, pruner=pruner, sparsity=sparsity, tokenizer=AutoTokenizer.from_pretrained(path), calibration_options={"samples": samples},
        measure_error=True,
    )  # fmt: skip
    weights = dict(model.named_parameters())
    return {name: weights[f"{name}.weight"].detach() for name in record["layers"]}, record


def comparison_group(pruner: str) -> str:
    """Within what the pruner compares scores: ``row`` or ``matrix``."""
    return Plugins().pruners.get(pruner)[0].group


def main(
    pretrained: str = "lab-m",
    sparsity: Annotated[str, typer.Option(help="One or more ratios or patterns, with commas.")] = "0.3,0.5,0.7",
    samples: Annotated[int, typer.Option(help="Calibration sequences.")] = 64,
) -> None:
    path = model_folder(Plugins(), pretrained)
    rows = [
        "| pruner | sparsity | achieved | most weights off in a group | output error: mean | min | max | same masks twice | seconds |",
        "|" + "---|" * 9,
    ]
    trials = [(pruner, asked) for asked in sparsity.split(",") for pruner in PRUNERS]
    for pruner, asked in track(trials, description="pruning", console=Console(stderr=True)):
        (first, record), (second, _) = (pruned(path, pruner, asked, samples) for _ in range(2))
        wanted, by_row = harness_ext.Sparsity.parse(asked), comparison_group(pruner) == "row"
        layers = record["layers"].values()
        groups = [group for weight in first.values() for group in (weight if by_row else weight.reshape(1, -1))]
        off = max(abs(int((group == 0).sum()) - wanted.removed_of(group.numel())) for group in groups)
        errors = [layer["output_error"] for layer in layers]
        same = all(torch.equal(first[name], second[name]) for name in first)
        figures = f"{sum(errors) / len(errors):.4f} | {min(errors):.4f} | {max(errors):.4f}"
        achieved, seconds = f"{record['achieved_sparsity']:.4f}", f"{record['seconds_pruning']:.1f}"
        rows.append(f"| {pruner} | {asked} | {achieved} | {off} | {figures} | {'yes' if same else 'NO'} | {seconds} |")
    print("\n".join(rows))


if __name__ == "__main__":
    typer.run(main)
