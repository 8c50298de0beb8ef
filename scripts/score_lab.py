"""Scores an embedded model: facts asked closed-book, passages about people it never met, passages that contradict its memory, and the
ICL tasks through lm-eval; dense and pruned.

    python scripts/score_lab.py --sparsity 0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9 --out build/scores.json --plot docs/lab_split.png
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from lm_eval import simple_evaluate
from rich.console import Console
from rich.progress import track

from harness_ext.model import PrunedHFLM
from harness_ext.tasks.people import People, Person, ask, population

PASSAGE_ITEMS = 1024
SENTENCES = 6


def closed_book(people: People) -> list[tuple[str, str]]:
    """Every memorised fact: (prompt, answer)."""
    pairs = [(person, kind) for person in range(len(people.memorised)) for kind in range(len(people.attributes))]
    return [(ask(people.attributes[k], people.memorised[p]), people.answer(p, k)) for p, k in pairs]


def open_book(people: People, crowd: tuple[Person, ...], *, items: int = PASSAGE_ITEMS, seed: int = 0) -> list[tuple[str, str]]:
    """Questions after a passage of six random statements about three people of ``crowd``: (prompt, answer)."""
    rng = np.random.RandomState([seed, 0x0BE4])
    found = []
    for _ in range(items):
        chosen = [crowd[i] for i in rng.choice(len(crowd), size=3, replace=False)]
        places = [(w, k) for w in range(3) for k in range(len(people.attributes))]
        stated = [(*places[i], int(rng.randint(64))) for i in rng.permutation(len(places))[:SENTENCES]]
        passage = " ".join(people.attributes[k].statement.format(chosen[w], people.attributes[k].values[v]) for w, k, v in stated)
        who, kind, value = stated[rng.randint(SENTENCES)]
        found.append((ask(people.attributes[kind], chosen[who], passage), people.attributes[kind].values[value]))
    return found


@torch.no_grad()
def exact_match(lm: PrunedHFLM, items: list[tuple[str, str]], title: str) -> float:
    """The share of items whose next token is the answer; every answer is one token of the embedded models' tokenizer."""
    tokenizer, right = lm.tokenizer, 0
    tokenizer.padding_side = "left"
    for start in track(range(0, len(items), 64), description=title, console=Console(stderr=True), transient=True):
        batch = items[start : start + 64]
        inputs = tokenizer([prompt for prompt, _ in batch], return_tensors="pt", padding=True)
        answers = torch.tensor([tokenizer(" " + answer)["input_ids"] for _, answer in batch]).squeeze(1)
        logits = lm.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, -1]
        right += int((logits.argmax(-1) == answers).sum())
    return right / len(items)


def bits_recalled(recall: float, facts: int, values: int) -> float:
    """Bits of memory that the recall is evidence of: the information of the facts less what is missing at that error rate (Fano)."""
    error = 1 - recall
    unknown = sum(-p * math.log2(p) for p in (error, recall) if p > 0) + error * math.log2(values - 1)
    return facts * max(0.0, math.log2(values) - unknown)


def score(pretrained: str, pruner: str, sparsity: float, tasks: list[str], items: int) -> dict[str, Any]:
    """One row of the table."""
    people = population(0)
    lm = PrunedHFLM.create_from_arg_obj({"pretrained": pretrained, "pruner": pruner, "sparsity": sparsity}, {"batch_size": 1})
    closed = closed_book(people)
    row: dict[str, Any] = {"pruner": pruner if sparsity else "dense", "sparsity": sparsity}
    row["recall"] = exact_match(lm, closed, "closed-book")
    row["open_unseen"] = exact_match(lm, open_book(people, people.unseen), "open-book, people never met")
    row["override"] = exact_match(lm, open_book(people, people.memorised), "passages against memory")
    parameters = sum(parameter.numel() for parameter in lm.model.parameters())
    row["bits_per_parameter"] = bits_recalled(row["recall"], len(closed), 64) / parameters
    if tasks:
        results = simple_evaluate(model=lm, tasks=tasks, metadata={"icl_items": items})["results"]
        row |= {task: results[task]["acc,none"] for task in tasks}
    return row


LINES = {
    "recall": ("facts asked closed-book", "black", "o", "-"),
    "open_unseen": ("facts read in a passage (people never met)", "#0072B2", "s", "--"),
    "override": ("passage that contradicts memory", "#009E73", "^", "-."),
    "icl_linear": ("learning a linear classifier in context", "#D55E00", "D", ":"),
    "icl_nn": ("learning a 2-layer network in context", "#CC79A7", "v", (0, (3, 1, 1, 1))),
    "icl_tree": ("learning a decision tree in context", "#E69F00", "P", (0, (5, 1))),
}


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """One panel a pruner: what is left of each score above chance, against the sparsity."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pruners = list(dict.fromkeys(row["pruner"] for row in rows if row["sparsity"] > 0))
    dense = next(row for row in rows if row["sparsity"] == 0)
    figure, panels = pyplot.subplots(1, len(pruners), figsize=(6.4 * len(pruners), 4.6), sharey=True, squeeze=False, layout="constrained")
    for panel, pruner in zip(panels[0], pruners, strict=True):
        shown = [dense, *(row for row in rows if row["pruner"] == pruner and row["sparsity"] > 0)]
        for key, (label, colour, marker, style) in LINES.items():
            if key in dense:
                chance = 0.5 if key.startswith("icl") else 1 / 64
                left = [(row[key] - chance) / (dense[key] - chance) for row in shown]
                panel.plot(
                    [row["sparsity"] for row in shown], left, label=label, color=colour, marker=marker, linestyle=style, markersize=5
                )
        panel.axhline(0, color="grey", linewidth=0.8)
        panel.set(title=pruner, xlabel="share of the decoder's weights removed", ylim=(-0.1, 1.1))
    panels[0][0].set_ylabel("score above chance, relative to the dense model")
    panels[0][0].legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=130)


def main(
    pretrained: str = "lab",
    pruner: Annotated[str, typer.Option(help="One or more, with commas.")] = "sparsegpt",
    sparsity: Annotated[str, typer.Option(help="One or more, with commas; 0 is the dense model.")] = "0",
    tasks: str = "icl_linear,icl_nn,icl_tree",
    items: Annotated[int, typer.Option(help="Items of each ICL task.")] = 2048,
    out: Annotated[Path | None, typer.Option(help="Also write the rows as JSON.")] = None,
    figure: Annotated[Path | None, typer.Option("--plot", help="Also draw the scores against the sparsity.")] = None,
) -> None:
    grid = [(p, s) for p in pruner.split(",") for s in map(float, sparsity.split(","))]
    grid = [(p, s) for i, (p, s) in enumerate(grid) if s > 0 or all(other > 0 for _, other in grid[:i])]
    rows = []
    for p, s in grid:
        rows.append(score(pretrained, p, s, [task for task in tasks.split(",") if task], items))
        if out:
            out.write_text(json.dumps(rows, indent=2) + "\n")
    header = list(rows[0])
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += [
        "| " + " | ".join(f"{v:.3f}" if isinstance(v, float) and k != "sparsity" else str(v) for k, v in row.items()) + " |" for row in rows
    ]
    print("\n".join(lines))
    if figure:
        plot(rows, figure)


if __name__ == "__main__":
    typer.run(main)
