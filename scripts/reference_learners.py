"""Scores reference learners on the ICL tasks: each is fitted on the exemplars of one prompt, with no other information, and asked for the
label of the query. Writes a Markdown table.

    python scripts/reference_learners.py --items 2048 --mlp-items 512
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from lm_eval.tasks._yaml_loader import load_yaml
from rich.console import Console
from rich.progress import track
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from harness_ext.tasks.functions import FAMILIES
from harness_ext.tasks.icl import Options, check_task, item

CONFIGS = Path(__file__).parents[1] / "task_configs" / "icl"

Learner = Callable[[np.ndarray, np.ndarray, np.ndarray], int]


def majority(points: np.ndarray, labels: np.ndarray, query: np.ndarray) -> int:
    """The commonest label; the smallest of equally common ones."""
    return int(np.bincount(labels).argmax())


def fitted(make: Callable[[], Any]) -> Learner:
    """A classifier of scikit-learn; the inputs are standardised by the exemplars' own mean and deviation."""

    def learner(points: np.ndarray, labels: np.ndarray, query: np.ndarray) -> int:
        model = make_pipeline(StandardScaler(), make())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 32 exemplars that can be separated have no finite optimum
            model.fit(points, labels)
        return int(model.predict(query[None])[0])

    return learner


LEARNERS: dict[str, Learner] = {
    "majority label": majority,
    "logistic regression": fitted(lambda: LogisticRegression(max_iter=1000)),
    "MLP": fitted(lambda: MLPClassifier((32,), solver="lbfgs", alpha=1.0, max_iter=200, random_state=0)),
    "decision tree": fitted(lambda: DecisionTreeClassifier(random_state=0)),
    "3 nearest neighbours": fitted(lambda: KNeighborsClassifier(3)),
}


def score(learner: Learner, family: str, options: Options, items: int, title: str) -> str:
    """Accuracy and its standard error over the first ``items`` items of a task."""
    right = 0
    for index in track(range(items), description=title, console=Console(stderr=True), transient=True):
        doc = item(family, options, index)
        points, labels = np.array(doc["points"], dtype=float), np.array(doc["labels"])
        right += learner(points[:-1], labels[:-1], points[-1]) == labels[-1]
    accuracy = right / items
    return f"{accuracy:.3f} ± {math.sqrt(accuracy * (1 - accuracy) / items):.3f}"


def main(
    items: Annotated[int, typer.Option(min=1, help="Items of each task.")] = 2048,
    mlp_items: Annotated[int, typer.Option(min=1, help="Items of each task for the MLP, which is slow to fit.")] = 512,
    tasks: Annotated[str, typer.Option(help="With commas; all ICL tasks if empty.")] = "",
    seed: Annotated[int, typer.Option(help="The option icl_seed of the tasks.")] = 0,
) -> None:
    configs = {path.stem: load_yaml(path, resolve_func=False) for path in sorted(CONFIGS.glob("icl_*.yaml"))}
    known = {name: config for name, config in configs.items() if config["dataset_kwargs"]["family"] in FAMILIES}  # words are no points
    chosen = [name for name in tasks.split(",") if name] or list(known)
    if unknown := sorted(set(chosen) - set(known)):
        raise typer.BadParameter(f"no task {', '.join(unknown)}; there are: {', '.join(known)}")
    counts = {name: min(items, mlp_items) if name == "MLP" else items for name in LEARNERS}
    print("| task | chance | " + " | ".join(f"{name} (n={counts[name]:,})" for name in LEARNERS) + " |")
    print("|---|" + "---|" * (1 + len(LEARNERS)))
    for task in chosen:
        family = known[task]["dataset_kwargs"]["family"]
        options = check_task(family=family, **(known[task]["metadata"] | {"icl_seed": seed}))
        cells = [score(learner, family, options, counts[name], f"{task}, {name}") for name, learner in LEARNERS.items()]
        print(f"| `{task}` | {1 / options.labels:.2f} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    typer.run(main)
