"""Compares what the pruning methods leave of the embedded model: perplexity, layer output error, and scores of tasks.

    python scripts/bench_quality.py --out quality.json --plot docs/pruner_quality.png
    python scripts/bench_quality.py --methods sparsegpt,wanda --sparsity 0.5 --tasks ""

A method is a pruner, with ``+NAME`` for an allocation other than the uniform one, and ``@SPARSITY`` where it is run at that one alone. The
perplexity is on text that the dense model writes with another seed than the calibration text; the layer output error is
``||W X - W' X||^2 / ||W X||^2`` on the calibration tokens, averaged over the layers. Rows are written as they come, and those that are in
the file already are not computed again.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent))

import lab_text
from score_lab import SCORES, chance

import harness_ext
from harness_ext import StructuredPruner
from harness_ext.engine.perplexity import perplexity
from harness_ext.errors import HarnessExtError
from harness_ext.plugins import Plugins

METHODS = (
    "random,magnitude,wanda,ria,sparsegpt,dsnot,admm,alps,depth,width,"
    "sparsegpt+owl,sparsegpt+global,magnitude@2:4,wanda@2:4,ria@2:4,sparsegpt@2:4,alps@2:4"
)
TASKS = "lab_facts_closed,lab_unseen_open,kv_16,icl_linear"
BATCH = 64
# Colours that the colour-blind tell apart, and a marker and a line for those who see none.
LOOKS = {
    "random": ("#999999", "x", ":"),
    "magnitude": ("#E69F00", "v", "-."),
    "wanda": ("#56B4E9", "s", "--"),
    "ria": ("#009E73", "P", (0, (5, 1))),
    "sparsegpt": ("black", "o", "-"),
    "dsnot": ("#CC79A7", "<", (0, (3, 1, 1, 1))),
    "admm": ("#0072B2", "D", (0, (1, 1))),
    "alps": ("#D55E00", "^", "-"),
    "depth": ("#999999", "1", "--"),
    "width": ("#E69F00", "*", ":"),
    "sparsegpt+owl": ("#0072B2", "d", "-."),
    "sparsegpt+global": ("#009E73", "h", ":"),
}


def parse(method: str) -> tuple[str, str, str | None]:
    """The pruner, the allocation, and the one sparsity where it has one: ``sparsegpt+owl``, ``wanda@2:4``."""
    name, _, sparsity = method.partition("@")
    pruner, _, allocation = name.partition("+")
    return pruner, allocation or "uniform", sparsity or None


def trials(methods: str, sparsities: str) -> list[tuple[str, str]]:
    """Each method (without its ``@``) with each of its sparsities, the dense model first."""
    found = [("dense", "0")]
    for method in methods.split(","):
        only = parse(method)[2]
        found += [(method.partition("@")[0], sparsity) for sparsity in ([only] if only else sparsities.split(","))]
    return found


def nonzero(model: Any) -> int:
    """How many weights of the linear layers of the decoder are left."""
    return sum(int((layer.weight != 0).sum()) for block in harness_ext.find_blocks(model) for layer in block.layers)


def task_scores(model: Any, tokenizer: Any, tasks: list[str], items: int) -> dict[str, float]:
    """Each task's score and its standard error."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from harness_ext.host import registration

    registration.register()
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH, device="cpu")
    counts = {"icl_items": items, "lookup_items": items, "facts_items": items, "facts_choices": 0}  # facts are scored by what is written
    results = simple_evaluate(model=lm, tasks=tasks, metadata=counts)["results"]
    found = {}
    for task in tasks:
        metric = SCORES.get(task, "acc")
        found[task], found[f"{task}_stderr"] = results[task][f"{metric},none"], results[task][f"{metric}_stderr,none"]
    return found


def measure(method: str, sparsity: str, tokens: tuple[torch.Tensor, torch.Tensor], tasks: list[str], items: int) -> dict[str, Any]:
    """One row; where the method refuses, the row says why.

    Args:
        tokens: for calibration, and held out.
    """
    folder = lab_text.folder()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, dense = AutoTokenizer.from_pretrained(folder), nonzero(model)
    row: dict[str, Any] = {"method": method, "sparsity": sparsity, "removed": 0.0, "seconds": 0.0, "error": None}
    if method != "dense":
        pruner, allocation, _ = parse(method)
        structured = issubclass(Plugins().pruners.get(pruner)[0], StructuredPruner)
        spread: dict[str, Any] = {} if allocation == "uniform" else {"allocation": allocation}
        try:
            record = harness_ext.prune(
                model, pruner=pruner, sparsity=sparsity, calibration=tokens[0], tokenizer=tokenizer, measure_error=not structured, **spread
            )
        except HarnessExtError as refusal:
            return row | {"refused": str(refusal)}
        errors = [layer["output_error"] for layer in record["layers"].values() if "output_error" in layer]
        row |= {"removed": 1 - nonzero(model) / dense, "seconds": record["seconds_pruning"]}
        row["error"] = statistics.fmean(errors) if errors else None
    row["perplexity"] = perplexity(model, tokens[1], batch_size=BATCH).value
    return row | (task_scores(model, tokenizer, tasks, items) if tasks else {})


def table(rows: list[dict[str, Any]], tasks: list[str]) -> str:
    """The rows in Markdown."""
    columns = {"method": "", "sparsity": "", "removed": ".3f", "perplexity": ".3f", "error": ".4f"}
    columns |= {**dict.fromkeys(tasks, ".3f"), "seconds": ".1f"}
    titles = ["layer output error" if name == "error" else name for name in columns]
    lines = [titles, ["---"] * len(columns)]
    for row in rows:
        lines.append(["" if row.get(name) is None else format(row[name], form) for name, form in columns.items()])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    refused = [f"- {row['method']} {row['sparsity']}: {row['refused']}" for row in rows if "refused" in row]
    errors = [row[f"{task}_stderr"] for row in rows for task in tasks if f"{task}_stderr" in row]
    if errors:
        text += f"\n\nStandard errors of the scores are at most {max(errors):.3f}."
    return text + ("\n\nRefused:\n\n" + "\n".join(refused) if refused else "")


def left(row: dict[str, Any], dense: dict[str, Any], tasks: list[str]) -> float | None:
    """What is left of the scores above chance, averaged over the tasks; None where they were not measured."""
    if any(task not in row for task in tasks) or not tasks:
        return None
    return statistics.fmean((row[task] - chance(task)) / (dense[task] - chance(task)) for task in tasks)


def plot(rows: list[dict[str, Any]], tasks: list[str], path: Path) -> None:
    """Perplexity, and what is left of recall and of what is read from the context, against the share of weights removed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    dense = next(row for row in rows if row["method"] == "dense")
    recall = [task for task in tasks if task.endswith("_closed")]
    context = [task for task in tasks if task not in recall]
    panels: list[tuple[str, Any]] = [("perplexity on held-out text", lambda row: row["perplexity"])]
    panels += [("recall of facts, relative to dense", lambda row: left(row, dense, recall))] if recall else []
    panels += [("use of the context, relative to dense", lambda row: left(row, dense, context))] if context else []
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.2 * len(panels), 5.2), squeeze=False, layout="constrained")
    for axis, (title, value) in zip(axes[0], panels, strict=True):
        for method in dict.fromkeys(row["method"] for row in rows if row["method"] != "dense"):
            colour, marker, line = LOOKS.get(method, ("black", ".", "-"))
            shown = [dense, *(row for row in rows if row["method"] == method and ":" not in row["sparsity"] and "perplexity" in row)]
            axis.plot(
                [row["removed"] for row in shown], [value(row) for row in shown],
                label=method, color=colour, marker=marker, linestyle=line, markersize=5, linewidth=1.3,
            )  # fmt: skip
        axis.set(title=title, xlabel="share of the decoder's weights removed")
        if title.startswith("perplexity"):
            axis.set_yscale("log")
            axis.axhline(dense["perplexity"], color="grey", linewidth=0.8)
        else:
            axis.set_ylim(-0.1, 1.1)
            axis.axhline(0, color="grey", linewidth=0.8)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=min(6, 3 * len(panels)), handlelength=4)
    figure.savefig(path, dpi=130)


def main(
    methods: Annotated[str, typer.Option(help="With commas: PRUNER, PRUNER+ALLOCATION, PRUNER@SPARSITY.")] = METHODS,
    sparsity: Annotated[str, typer.Option(help="With commas.")] = "0.3,0.4,0.5,0.6,0.7,0.8",
    tasks: Annotated[str, typer.Option(help="With commas; none for perplexity and error alone.")] = TASKS,
    items: Annotated[int, typer.Option(help="Of each task.")] = 256,
    samples: Annotated[int, typer.Option(help="Calibration sequences, and as many that are held out.")] = 64,
    out: Annotated[Path | None, typer.Option(help="Write the rows as JSON; those already in it are not computed again.")] = None,
    figure: Annotated[Path | None, typer.Option("--plot", help="Also draw them.")] = None,
) -> None:
    for method in methods.split(","):
        Plugins().pruners.get(parse(method)[0])  # before anything is computed
    asked = [task for task in tasks.split(",") if task]
    rows = json.loads(out.read_text()) if out and out.exists() else []
    done = {(row["method"], row["sparsity"]) for row in rows}
    missing = [trial for trial in dict.fromkeys(trials(methods, sparsity)) if trial not in done]
    tokens = (lab_text.ids(samples), lab_text.ids(samples, seed=1)) if missing else None
    for number, (method, share) in enumerate(missing, 1):
        print(f"{number} of {len(missing)}: {method} {share}", file=sys.stderr, flush=True)
        rows.append(measure(method, share, tokens, asked, items))  # type: ignore[arg-type]
        if out:
            out.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows, asked))
    if figure:
        plot(rows, asked, figure)


if __name__ == "__main__":
    typer.run(main)
