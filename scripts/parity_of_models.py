"""Prunes one model as this project does and as the authors' drivers do, each from block to block, and compares the two results.

Used by bench_parity.py. The text is that of Python's own manual (``pydoc_data.topics``): calibration takes its beginning, the perplexity
its end.
"""

from __future__ import annotations

import copy
import math
import pydoc_data.topics
import statistics
from typing import Any, NamedTuple

import torch
import typer
from bench_quality import perplexity
from public_reference import Finish, prune_as_published
from transformers import AutoModelForCausalLM, AutoTokenizer

import harness_ext
from harness_ext.host.model_folder import model_folder
from harness_ext.plugins import Plugins

LENGTH, WINDOW = 256, 2048
HEADER = ["method", "sparsity", "agreement", "different", "first block", "perplexity: dense", "ours", "published", "ours / published"]


class Real(NamedTuple):
    """A pretrained model in float32, and tokens of real text."""

    model: Any
    calibration: torch.Tensor
    """int64 [samples, LENGTH]"""
    held_out: torch.Tensor
    """int64 [windows, WINDOW]"""
    perplexity: float
    """Of the dense model."""


class Whole(NamedTuple):
    """What two whole runs of one method left of a model."""

    method: str
    sparsity: str
    different: list[int]
    """By block: on how many weights the masks differ."""
    places: int
    perplexities: tuple[float, float, float]
    """Of the dense model, of ours, and of the published code."""

    def row(self) -> list[str]:
        _, ours, theirs = self.perplexities
        total = sum(self.different)
        first = next((str(number) for number, count in enumerate(self.different, 1) if count), "none")
        place = [self.method, self.sparsity, f"{1 - total / self.places:.6f}", str(total), first]
        return [*place, *(f"{value:.3f}" for value in self.perplexities), f"{ours / theirs:.5f}"]


def table(rows: list[list[str]]) -> str:
    """Of which the first is the header."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def real_model(pretrained: str, samples: int, windows: int) -> Real:
    """Loads a model and cuts Python's manual into its tokens.

    Args:
        pretrained: the name of a registered model that is on this machine, or a folder.

    Raises:
        typer.BadParameter: the text is too short.
    """
    path = model_folder(Plugins(), pretrained)
    tokenizer = AutoTokenizer.from_pretrained(path)
    text = "\n\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    tokens = torch.tensor(tokenizer(text, add_special_tokens=False).input_ids)
    if len(tokens) < samples * LENGTH + windows * WINDOW:
        raise typer.BadParameter(f"--samples {samples} --windows {windows}: Python's manual has {len(tokens)} tokens")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    held_out = tokens[len(tokens) - windows * WINDOW :].view(windows, WINDOW)
    return Real(model, tokens[: samples * LENGTH].view(samples, LENGTH), held_out, perplexity_of_windows(model, held_out))


def perplexity_of_windows(model: Any, windows: torch.Tensor) -> float:
    """One window at a time: the logits of all of them would take gigabytes."""
    return math.exp(statistics.fmean(math.log(perplexity(model, window[None])) for window in windows))


def compare_whole(real: Real, method: str, sparsity: str, wrapper: Any, finish: Finish) -> Whole:
    """Two whole runs: each block is measured behind the blocks that the same run has pruned, so that differences add up."""
    ours, theirs = copy.deepcopy(real.model), copy.deepcopy(real.model)
    harness_ext.prune(ours, pruner=method, sparsity=sparsity, calibration=real.calibration)
    prune_as_published(theirs, real.calibration, wrapper, finish)
    different, places = [], 0
    for own, other in zip(harness_ext.find_blocks(ours), harness_ext.find_blocks(theirs), strict=True):
        pairs = list(zip(own.layers, other.layers, strict=True))
        different.append(sum(int(((one.weight == 0) != (two.weight == 0)).sum()) for one, two in pairs))
        places += sum(one.weight.numel() for one, _ in pairs)
    found = [perplexity_of_windows(model, real.held_out) for model in (ours, theirs)]
    return Whole(method, sparsity, different, places, (real.perplexity, found[0], found[1]))
