"""Scores the embedded models on the tasks of the group ``memory_vs_context``, dense and pruned, through lm-eval.

    python scripts/score_lab.py --pruner sparsegpt,magnitude --sparsity 0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9 --items 512 \\
        --plot docs/lab_split.png
    python scripts/score_lab.py --pretrained lab-xs,lab-s,lab-s4,lab-m --tasks , --memory
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance

from harness_ext.host.model import PrunedHFLM
from harness_ext.tasks.people import WORDS, People, population

# The score of each task that the tables show: facts by exact match of what the model writes, the rest by the best of the choices.
SCORES = {
    "lab_facts_closed": "exact_match",
    "lab_facts_open": "exact_match",
    "lab_unseen_open": "exact_match",
    "lab_facts_override": "exact_match",
    "lab_unseen_override": "exact_match",
    **{f"kv_{pairs}": "acc" for pairs in (4, 8, 16, 32)},
    **{f"icl_{family}": "acc" for family in ("linear", "nn", "tree")},
}
LINES = {
    "lab_facts_closed": ("facts asked closed-book", "black", "o", "-"),
    "lab_unseen_open": ("facts read in a passage (people never met)", "#0072B2", "s", "--"),
    "lab_facts_override": ("passage that contradicts memory", "#009E73", "^", "-."),
    "kv_32": ("looking up one of 32 keys", "#56B4E9", "X", (0, (1, 1))),
    "icl_linear": ("learning a linear classifier in context", "#D55E00", "D", ":"),
    "icl_nn": ("learning a 2-layer network in context", "#CC79A7", "v", (0, (3, 1, 1, 1))),
    "icl_tree": ("learning a decision tree in context", "#E69F00", "P", (0, (5, 1))),
}


def chance(task: str) -> float:
    """What a model scores that knows the form of the answers and nothing else."""
    return 0.5 if task.startswith("icl_") else 1 / 16 if task.startswith("kv_") else 1 / WORDS**2


def bits_held(lm: PrunedHFLM, people: People) -> float:
    """Bits of the memorised facts that a model holds, by its log-loss on all of them.

    A fact is drawn uniformly from 4,096 values: 12 bits. A model that gives the right value the probability ``p`` holds ``12 + log2(p)``
    bits of it. The sum over all facts, negative ones included, is a lower bound of what its weights tell about the facts.
    """
    questions = [
        (f"Question: {attribute.question.format(person)}\nAnswer:", f" {people.answer(number, kind)}")
        for number, person in enumerate(people.memorised)
        for kind, attribute in enumerate(people.attributes)
    ]
    log_losses = [likelihood for likelihood, _ in lm.loglikelihood([request(*question) for question in questions], disable_tqdm=True)]
    each = math.log2(WORDS**2)
    return sum(each + likelihood / math.log(2) for likelihood in log_losses)


def request(prompt: str, answer: str) -> Instance:
    return Instance(request_type="loglikelihood", doc={}, arguments=(prompt, answer), idx=0)


def score(pretrained: str, pruner: str, sparsity: float, tasks: list[str], items: int, memory: bool) -> dict[str, Any]:
    """One row of the table: each task's score with its standard error and, of an override task, how often the answer is the memory's."""
    lm = PrunedHFLM.create_from_arg_obj({"pretrained": pretrained, "pruner": pruner, "sparsity": sparsity}, {"batch_size": 1})
    row: dict[str, Any] = {"model": pretrained, "pruner": pruner if sparsity else "dense", "sparsity": sparsity}
    counts = {"icl_items": items, "lookup_items": items, "facts_items": items} if items else {}
    results = simple_evaluate(model=lm, tasks=tasks, metadata=counts)["results"] if tasks else {}
    for task in tasks:
        scores = results[task]
        metric = SCORES.get(task, "acc")
        row[task], row[f"{task}_stderr"] = scores[f"{metric},none"], scores[f"{metric}_stderr,none"]
        if "memory_match,none" in scores:
            row[f"{task}_memory"] = scores["memory_match,none"]
    if memory:
        asked = {"facts_items": 0, "facts_choices": 0}
        recall = simple_evaluate(model=lm, tasks=["lab_facts_closed"], metadata=asked)["results"]["lab_facts_closed"]["exact_match,none"]
        people, model = population(0), lm.model
        decoder = sum(parameter.numel() for name, parameter in model.named_parameters() if ".layers." in name and parameter.ndim == 2)
        bits = bits_held(lm, people)
        row |= {"parameters": sum(parameter.numel() for parameter in model.parameters()), "decoder weights": decoder}
        row |= {"facts": people.facts.size, "recall of all": recall, "bits": bits, "bits a decoder weight": bits / decoder}
        row |= {"load": people.facts.size * math.log2(WORDS**2) / decoder}
    return row


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
        for task, (label, colour, marker, style) in LINES.items():
            if task in dense:
                left = [(row[task] - chance(task)) / (dense[task] - chance(task)) for row in shown]
                sparsities = [row["sparsity"] for row in shown]
                panel.plot(sparsities, left, label=label, color=colour, marker=marker, linestyle=style, markersize=5)
        panel.axhline(0, color="grey", linewidth=0.8)
        panel.set(title=pruner, xlabel="share of the decoder's weights removed", ylim=(-0.1, 1.1))
    panels[0][0].set_ylabel("score above chance, relative to the dense model")
    panels[0][0].legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=130)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown; standard errors are left to the JSON, and the largest is told below."""
    header = [key for key in rows[0] if not key.endswith("_stderr")]
    shown = [[f"{row[k]:.3f}" if isinstance(row[k], float) and k != "sparsity" else str(row[k]) for k in header] for row in rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *shown)]
    errors = [value for row in rows for key, value in row.items() if key.endswith("_stderr")]
    return "\n".join(lines) + (f"\n\nStandard errors are at most {max(errors):.3f}." if errors else "")


def main(
    pretrained: Annotated[str, typer.Option(help="One or more models, with commas.")] = "lab-m",
    pruner: Annotated[str, typer.Option(help="One or more, with commas.")] = "sparsegpt",
    sparsity: Annotated[str, typer.Option(help="One or more, with commas; 0 is the dense model.")] = "0",
    tasks: Annotated[str, typer.Option(help="With commas; by default those of memory_vs_context.")] = ",".join(SCORES),
    items: Annotated[int, typer.Option(help="Items of each task; 0 is what each task has by default.")] = 0,
    memory: Annotated[bool, typer.Option("--memory", help="Also ask for all facts and count the bits.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the rows as JSON; those already in it are not scored again.")] = None,
    figure: Annotated[Path | None, typer.Option("--plot", help="Also draw the scores of one model against the sparsity.")] = None,
) -> None:
    sparsities = [float(text) for text in sparsity.split(",")]
    wanted = {(m, p if s else "dense", s): (m, p, s) for m in pretrained.split(",") for p in pruner.split(",") for s in sparsities}
    rows = json.loads(out.read_text()) if out and out.exists() else []
    done = {(row["model"], row["pruner"], row["sparsity"]) for row in rows}
    for key, (m, p, s) in wanted.items():
        if key not in done:
            rows.append(score(m, p, s, [task for task in tasks.split(",") if task], items, memory))
            if out:
                out.write_text(json.dumps(rows, indent=2) + "\n")
    sys.stdout.write(table(rows) + "\n")
    if figure:
        plot(rows, figure)


if __name__ == "__main__":
    typer.run(main)
