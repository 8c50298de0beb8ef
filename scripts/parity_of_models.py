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
from public_reference import Finish, prune_as_published
from transformers import AutoModelForCausalLM, AutoTokenizer

import harness_ext
from harness_ext.engine.perplexity import perplexity
from harness_ext.host.model_folder import model_folder
from harness_ext.plugins import Plugins

LENGTH, WINDOW = 256, 2048
HEADER = ["method", "sparsity", "agreement", "different", "first block", "perplexity: dense", "ours", "published", "ours / published"]
"""Of several orders: the mean, and after ± its standard error."""


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
    """What whole runs of one method left of a model."""

    method: str
    sparsity: str
    different: list[int]
    """By block: on how many weights the masks differ, with the calibration sequences in their first order."""
    places: int
    dense: float
    """Perplexity of the dense model."""
    ours: list[float]
    """Perplexity for each order of the calibration sequences."""
    published: list[float]

    def row(self) -> list[str]:
        total = sum(self.different)
        first = next((str(number) for number, count in enumerate(self.different, 1) if count), "none")
        place = [self.method, self.sparsity, f"{1 - total / self.places:.6f}", str(total), first, f"{self.dense:.3f}"]
        ratios = [ours / published for ours, published in zip(self.ours, self.published, strict=True)]
        return [*place, told(self.ours, 3), told(self.published, 3), told(ratios, 5)]


def told(values: list[float], digits: int) -> str:
    """The mean, and its standard error if there are several values."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values) / math.sqrt(len(values)):.{digits}f}"


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
    return Real(model, tokens[: samples * LENGTH].view(samples, LENGTH), held_out, perplexity(model, held_out).value)


def compare_whole(real: Real, method: str, sparsity: str, wrapper: Any, finish: Finish, orders: int = 1) -> Whole:
    """Whole runs of both: each block is measured behind the blocks that the same run has pruned, so that differences add up.

    Args:
        orders: how many orders of the same calibration sequences. The sums are the same but for rounding, so that results of one
            implementation differ by chance alone.
    """
    different, places = [], 0
    ours, published = [], []
    for order in range(orders):
        generator = torch.Generator().manual_seed(order)
        calibration = real.calibration[torch.randperm(len(real.calibration), generator=generator)] if order else real.calibration
        own, other = copy.deepcopy(real.model), copy.deepcopy(real.model)
        harness_ext.prune(own, pruner=method, sparsity=sparsity, calibration=calibration)
        prune_as_published(other, calibration, wrapper, finish)
        if order == 0:
            for one, two in zip(harness_ext.find_blocks(own), harness_ext.find_blocks(other), strict=True):
                pairs = [(first.weight, second.weight) for first, second in zip(one.layers, two.layers, strict=True)]
                different.append(sum(int(((first == 0) != (second == 0)).sum()) for first, second in pairs))
                places += sum(weight.numel() for weight, _ in pairs)
        ours.append(perplexity(own, real.held_out).value)
        published.append(perplexity(other, real.held_out).value)
    return Whole(method, sparsity, different, places, real.perplexity, ours, published)
