"""Compares SparseGPT and Wanda, layer by layer on the same weights and inputs, with the code that their authors published.

python scripts/bench_parity.py --sparsegpt DIR --wanda DIR   # clones of IST-DASLab/sparsegpt and locuslab/wanda
python scripts/bench_parity.py --sparsegpt DIR --wanda DIR --pretrained smollm2-135m --sparsity 0.5   # on real weights, whole runs as well

Both lose different weights in places, and each place is put down to a cause, by replaying each one's own course in float64:

- `<=`: the published SparseGPT compares with `<=` and so removes one more weight from each block of columns than asked for;
- count: the published code rounds what goes from each block, or from each row, by itself; ours makes the sum over the blocks exact;
- tie: the score equals the one where the cut is;
- rounding: the score is within 1e-5, relatively, of one on the other side of the cut, or as near to it as a replay in float32 is off there
  (see ``across_cut``; the furthest of them is told);
- later: the choice is right for the weights as updated so far (or for the cut among them), which an earlier place has changed;
- dead: an input that is always zero; the published SparseGPT removes all its weights;
- other: none of these, which would be an error.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, OPTConfig, OPTForCausalLM

sys.path.insert(0, str(Path(__file__).parent))

from parity_of_models import HEADER, compare_whole, real_model, table
from public_reference import finishers, load_sparsegpt, load_wanda, wanda_mask

from harness_ext import ChannelNorms, Hessian, Pruned, Pruner, Sparsity, find_blocks
from harness_ext.plugins import Plugins

CAUSES = ("<=", "count", "tie", "rounding", "later", "dead", "other")
NEAR = 1e-5
BLOCK, DAMPING = 128, 0.01


def lowest64(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Marks the ``count`` lowest of each row, the first ones among equals."""
    mask = torch.zeros_like(scores, dtype=torch.bool)
    return mask.scatter_(1, scores.sort(dim=1, stable=True).indices[:, :count], True)


def across_cut(scores: torch.Tensor, count: int, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far, relatively, each score is from the nearest one on the other side of the cut, and how far rounding may put it off.

    That is three times what float32 is off in the two of them, since ours and the published code do their sums in other orders than the
    replay; and 1e-5 at least.
    """
    order = scores.argsort(dim=1, stable=True)
    last, first = order[:, [max(0, count - 1)]], order[:, [min(count, scores.shape[1] - 1)]]
    removed = lowest64(scores, count)
    other = torch.where(removed, first, last)
    away = (scores.gather(1, other) / scores - 1).abs()
    return away, (3 * (noise + noise.gather(1, other))).clamp(min=NEAR)


def causes_in_group(
    ours: torch.Tensor, theirs: torch.Tensor, our_scores: torch.Tensor, their_scores: torch.Tensor, counts: tuple[int, int, int],
    noise: torch.Tensor | None = None, furthest: list[float] | None = None,
) -> Counter[str]:  # fmt: skip
    """Puts the places where two masks differ down to causes.

    Args:
        ours, theirs: bool [groups, size], what was removed; the choice is made within a group.
        our_scores, their_scores: float64, the same shape, of the weights as they were when each chose.
        counts: how many weights of a group ours removes, how many the published code means to, and how many it does.
        noise: float64, the same shape: how far, relatively, float32 is off in these scores.
        furthest: gets how far, relatively, from the cut the scores are that rounding is said to have put on the wrong side.
    """
    found: Counter[str] = Counter()
    left = ours != theirs
    mine, meant, done = counts
    noise = torch.zeros_like(our_scores) if noise is None else noise

    def take(cause: str, where: torch.Tensor) -> None:
        nonlocal left
        found[cause] += int((left & where).sum())
        left = left & ~where

    if not left.any():
        return found
    rules = {count: lowest64(their_scores, count) for count in {mine, meant, done}}
    take("<=", (rules[meant] != rules[done]) & theirs)
    take("count", rules[mine] != rules[meant])
    our_rule = lowest64(our_scores, mine)
    cut = our_scores.sort(dim=1).values[:, [max(0, mine - 1)]]
    at_cut = our_scores == cut
    take("tie", at_cut & (at_cut.sum(1, keepdim=True) > 1) & (their_scores == our_scores))
    away, reach = across_cut(our_scores, mine, noise)
    their_away, their_reach = across_cut(their_scores, done, noise)
    unsure, theirs_unsure = away <= reach, their_away <= their_reach
    same_course = (our_scores / their_scores - 1).abs() <= (3 * noise).clamp(min=NEAR)
    misplaced = [away[left & unsure & (ours != our_rule)], their_away[left & theirs_unsure & (theirs != rules[done])]]
    if furthest is not None:
        furthest += [float(apart.max()) for apart in misplaced if len(apart)]
    take("rounding", (unsure | theirs_unsure) & same_course)
    take("later", ((ours == our_rule) | unsure) & ((theirs == rules[done]) | theirs_unsure))
    take("other", torch.ones_like(left))
    return found


class Replay:
    """The course of SparseGPT with given masks: the weights as updated before each block of columns, in one dtype."""

    def __init__(self, weight: torch.Tensor, upper: torch.Tensor, mask: torch.Tensor, dtype: torch.dtype) -> None:
        self.weight, self.upper, self.mask = weight.to(dtype).clone(), upper.to(dtype), mask

    def scores(self, start: int, stop: int) -> torch.Tensor:
        return self.weight[:, start:stop].square() / self.upper.diagonal()[start:stop].square()

    def lost(self, exact: Replay, start: int, stop: int) -> torch.Tensor:
        """How far, relatively, these scores are from those of an exact course, or would be if the weight were as far off as its column's
        others are in the root mean square."""
        own = (self.scores(start, stop) / exact.scores(start, stop) - 1).abs()
        weight = exact.weight[:, start:stop]
        spread = (self.weight[:, start:stop] - weight).square().mean(0).sqrt()
        return torch.maximum(own, 2 * spread / weight.abs()).nan_to_num(0)

    def advance(self, start: int, stop: int) -> None:
        """Removes what the mask removes from these columns, and updates those to their right."""
        errors = torch.zeros_like(self.weight[:, start:stop])
        for j in range(start, stop):
            errors[:, j - start] = self.weight[:, j] * self.mask[:, j] / self.upper[j, j]
            self.weight[:, j:stop].addr_(errors[:, j - start], self.upper[j, j:stop], alpha=-1)
        self.weight[:, stop:].addmm_(errors, self.upper[start:stop, stop:], alpha=-1)


def inverse_upper(hessian: torch.Tensor) -> torch.Tensor:
    """The upper Cholesky factor of the inverse of the damped Hessian, by way of the inverse, in the dtype of the Hessian."""
    damped = hessian + DAMPING * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device)
    upper: torch.Tensor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    return upper


def sparsegpt_causes(
    weight: torch.Tensor, hessian: torch.Tensor, ours: torch.Tensor, theirs: torch.Tensor, sparsity: Sparsity,
    narrow: tuple[torch.Tensor, torch.Tensor] | None = None, furthest: list[float] | None = None,
) -> Counter[str]:  # fmt: skip
    """The causes of all places where the masks of a layer differ.

    Args:
        hessian: float64 [in, in], the sum over the tokens.
        narrow: the same as ours and as the published code has it, float32; by default the one above, rounded.
        furthest: as in causes_in_group.
    """
    found: Counter[str] = Counter()
    dead = hessian.diagonal() == 0
    found["dead"] = int((ours != theirs)[:, dead].sum())
    zeroed = weight.masked_fill(dead, 0)

    def replay(products: torch.Tensor, mask: torch.Tensor) -> Replay:
        products = products.clone()
        products.diagonal()[dead] = 1
        return Replay(zeroed, inverse_upper(products), mask, products.dtype)

    courses = [replay(hessian, mask) for mask in (ours, theirs)]
    single = [replay(products, mask) for products, mask in zip(narrow or (hessian.float(), hessian.float()), (ours, theirs), strict=True)]
    rows, columns = weight.shape
    step, removed = sparsity.pattern[1] if sparsity.pattern else BLOCK, 0
    for start in range(0, columns, step):
        stop = min(start + step, columns)
        shape = (rows, stop - start) if sparsity.pattern else (1, -1)
        wide = [course.scores(start, stop) for course in courses]
        lost = [course.lost(exact, start, stop) for course, exact in zip(single, courses, strict=True)]
        if sparsity.pattern:
            counts = (sparsity.pattern[0], sparsity.pattern[0], sparsity.pattern[0])
        else:
            mine = sparsity.removed_of(rows * stop) - removed
            removed += mine
            meant = int(rows * (stop - start) * sparsity.ratio)
            counts = (mine, meant, meant + 1)
        alive = ~dead[start:stop]
        one, other = ((mask[:, start:stop] & alive | ~alive).reshape(shape) for mask in (ours, theirs))
        noise = torch.maximum(*lost).reshape(shape)
        found += causes_in_group(one, other, wide[0].reshape(shape), wide[1].reshape(shape), counts, noise, furthest)
        for course in (*courses, *single):
            course.advance(start, stop)
    return found


def wanda_causes(weight: torch.Tensor, squares: torch.Tensor, ours: torch.Tensor, theirs: torch.Tensor, sparsity: Sparsity) -> Counter[str]:
    """As :func:`sparsegpt_causes`; ``squares`` is float64 [in], the sum of the squares of each input."""
    scores = weight.double().abs() * squares.sqrt()
    if sparsity.pattern:
        shape, counts = (-1, sparsity.pattern[1]), (sparsity.pattern[0], sparsity.pattern[0], sparsity.pattern[0])
    else:
        shape, meant = (len(weight), -1), int(weight.shape[1] * sparsity.ratio)
        counts = (sparsity.removed_of(weight.shape[1]), meant, meant)
    scores = scores.reshape(shape)
    return causes_in_group(ours.reshape(shape), theirs.reshape(shape), scores, scores, counts)


def error64(before: torch.Tensor, after: torch.Tensor, hessian: torch.Tensor) -> float:
    """``tr(dW H dW^T)`` in float64."""
    change = (before - after).double()
    return float(((change @ hessian) * change).sum())


def prune_ours(
    name: str, weight: torch.Tensor, sequences: list[torch.Tensor], sparsity: Sparsity
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The new weight, and the sum over the tokens that SparseGPT had for its Hessian."""
    pruner: Pruner = Plugins().pruners.get(name)[0]()
    statistic = {"sparsegpt": Hessian, "wanda": ChannelNorms}[name](weight.shape[1], weight.device)
    for inputs in sequences:
        statistic.update(inputs)
    result = pruner.prune(weight.clone(), sparsity, statistic)
    products = statistic.matrix * (statistic.tokens / 2) if isinstance(statistic, Hessian) else None
    return result.weight if isinstance(result, Pruned) else result, products


def prune_theirs(
    name: str, wrapper: Any, weight: torch.Tensor, sequences: list[torch.Tensor], sparsity: Sparsity
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As :func:`prune_ours`."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    seen = wrapper(layer)
    for inputs in sequences:
        seen.add_batch(inputs[None], inputs)
    if name == "wanda":
        return weight.masked_fill(wanda_mask(weight, seen.scaler_row, sparsity), 0), None
    products = seen.H * (len(sequences) / 2)
    finishers(sparsity)[name](seen, layer)
    return layer.weight.data, products


@torch.no_grad()
def inputs_of_layers(model: Any, input_ids: torch.Tensor) -> dict[str, tuple[torch.Tensor, list[torch.Tensor]]]:
    """By name, the float32 weight of each linear layer of the decoder and its inputs, [length, in] for each sequence."""
    found: dict[str, tuple[torch.Tensor, list[torch.Tensor]]] = {}
    hooks = []
    for layer in [layer for block in find_blocks(model) for layer in block.layers]:
        found[layer.name] = (layer.weight.float().clone(), [])

        def hook(_: nn.Module, args: tuple[torch.Tensor, ...], name: str = layer.name) -> None:
            found[name][1].append(args[0].flatten(0, -2).float())

        hooks.append(layer.module.register_forward_pre_hook(hook))
    for row in input_ids:
        model(row[None], use_cache=False)
    for handle in hooks:
        handle.remove()
    return found


def models(samples: int) -> dict[str, tuple[Any, torch.Tensor]]:
    """The embedded model on text that it writes, and a random one of OPT's shape on random tokens, both in float32."""
    path = Plugins().models.get("lab-m")[0]
    trained = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    source = Plugins().calibrations.get("self")[0].from_options({"samples": samples})
    ids = source.input_ids(trained, AutoTokenizer.from_pretrained(path))
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=1024, hidden_size=256, word_embed_proj_dim=256, ffn_dim=1024, num_attention_heads=4, num_hidden_layers=2,
        max_position_embeddings=512, dropout=0.0,
    )  # fmt: skip
    return {"lab-m": (trained, ids), "random OPT": (OPTForCausalLM(config).eval(), torch.randint(0, 1024, (samples, 256)))}


def compare(name: str, wrapper: Any, layers: dict[str, tuple[torch.Tensor, list[torch.Tensor]]], sparsity: Sparsity) -> dict[str, Any]:
    """Over all layers: how many places differ and why, and the output error of ours over that of the published code."""
    causes: Counter[str] = Counter()
    different = places = 0
    ratios, furthest = [], [0.0]
    for weight, sequences in layers.values():
        tokens = torch.cat(sequences).double()
        hessian = tokens.T @ tokens
        ours, our_products = prune_ours(name, weight, sequences, sparsity)
        theirs, their_products = prune_theirs(name, wrapper, weight, sequences, sparsity)
        masks = (ours == 0, theirs == 0)
        different += int((masks[0] != masks[1]).sum())
        places += weight.numel()
        causes += (
            sparsegpt_causes(weight, hessian, *masks, sparsity, (our_products, their_products), furthest)
            if our_products is not None and their_products is not None
            else wanda_causes(weight, hessian.diagonal(), *masks, sparsity)
        )
        ratios.append(error64(weight, ours, hessian) / error64(weight, theirs, hessian))
    return {"agreement": 1 - different / places, "different": different, "causes": causes, "ratios": ratios, "furthest": max(furthest)}


def main(
    sparsegpt: Annotated[Path, typer.Option(help="A clone of IST-DASLab/sparsegpt.")],
    wanda: Annotated[Path, typer.Option(help="A clone of locuslab/wanda.")],
    sparsity: Annotated[str, typer.Option(help="Ratios or patterns, with commas.")] = "0.5,0.7,2:4,4:8",
    samples: Annotated[int, typer.Option(help="Calibration sequences.")] = 32,
    pretrained: Annotated[str, typer.Option(help="A registered name or a folder: real weights and text instead of the two models.")] = "",
    windows: Annotated[int, typer.Option(help="With --pretrained: windows of 2,048 tokens for the perplexity.")] = 8,
    orders: Annotated[int, typer.Option(help="With --pretrained: repeat whole runs with so many orders of the sequences.")] = 1,
    every: Annotated[int, typer.Option(help="Compare SparseGPT, whose replays take long, on the layers of each so many-th block.")] = 1,
    only_whole: Annotated[bool, typer.Option("--only-whole", help="With --pretrained: whole runs only.")] = False,
) -> None:
    if only_whole and not pretrained:
        raise typer.BadParameter("--only-whole: goes with --pretrained")
    wrappers = {"sparsegpt": load_sparsegpt(sparsegpt), "wanda": load_wanda(wanda)}
    asked = sparsity.split(",")
    real = real_model(pretrained, samples, windows) if pretrained else None
    unexplained = 0
    if not only_whole:
        rows = [
            ["model", "method", "sparsity", "agreement", "different", *CAUSES, "furthest rounding", "error ours/published: mean", "max"]
        ]
        for model_name, (model, ids) in ({pretrained: (real.model, real.calibration)} if real else models(samples)).items():
            for method, text, found in compared_layers(model, ids, wrappers, asked, every):
                unexplained += found["causes"]["other"]
                figures = [f"{sum(found['ratios']) / len(found['ratios']):.5f}", f"{max(found['ratios']):.5f}"]
                counts = [str(found["causes"][cause]) for cause in CAUSES]
                place = [model_name, method, text, f"{found['agreement']:.6f}", str(found["different"])]
                rows.append([*place, *counts, f"{found['furthest']:.1e}", *figures])
        print(table(rows), flush=True)
    if real:
        whole = [
            compare_whole(real, method, text, wrapper, finishers(Sparsity.parse(text))[method], orders)
            for method, wrapper in wrappers.items()
            for text in asked
        ]
        print(f"\n{table([HEADER, *(run.row() for run in whole)])}")
    if unexplained:
        print(f"\n{unexplained} places without an explanation.")
        raise typer.Exit(1)


def compared_layers(
    model: Any, ids: torch.Tensor, wrappers: dict[str, Any], asked: list[str], every: int
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """By method and sparsity, the masks of both implementations on the same inputs of linear layers, which take gigabytes."""
    layers = inputs_of_layers(model, ids)
    some = {layer.name: layers[layer.name] for block in find_blocks(model)[::every] for layer in block.layers}
    for method, wrapper in wrappers.items():
        for text in asked:
            yield method, text, compare(method, wrapper, some if method == "sparsegpt" else layers, Sparsity.parse(text))


if __name__ == "__main__":
    typer.run(main)
