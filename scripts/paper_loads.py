"""What the load of a model's memory has to do with what pruning takes first.

The set ``loads`` of ``scripts/train_family.py`` is one size of model, trained with fewer and fewer memorised people; each fact is asked
about equally often at every load. Recall is measured on facts that the model was told. The slope of a critical sparsity is fitted for each
training seed, and its interval is Student's over these slopes.

    python scripts/paper_loads.py runs/paper/texts  # writes the facts of each load, which scripts/reproduce_paper.sh asks for
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from paper_family import DROPS, PRUNER, OverSeeds, critical, decoder_weights, over_seeds
from paper_scores import Cell, Scores, read
from train_family import LOADED

from harness_ext.statistics import Curve
from harness_ext.tasks.people import WORDS, population

SIZE = "lab-xs"
ASKED = 512
ABILITIES = {"recall": ("lab_facts_closed",), "reading": ("lab_unseen_open",), "in-context": ("lab_unseen_open", "kv_32", "icl_linear")}
TASKS = ("lab_facts_closed", *ABILITIES["in-context"])


def facts_told(people: int, count: int = ASKED) -> list[str]:
    """The ids of facts about the first ``people`` of the memorised people, drawn without replacement."""
    everyone = population(0)
    ids = [f"{attribute.name}/{person}" for person in everyone.memorised[:people] for attribute in everyone.attributes]
    drawn = np.random.RandomState([0, people]).choice(len(ids), min(count, len(ids)), replace=False)
    return [ids[index] for index in sorted(drawn)]


def load_of(people: int) -> float:
    """Bits of memorised facts a decoder weight."""
    return people * len(population(0).attributes) * math.log2(WORDS**2) / decoder_weights(SIZE)


def models(scores: Scores) -> dict[int, list[str]]:
    """The names of the models at each number of memorised people, ascending, in the order of their training seeds."""
    found: dict[int, list[tuple[int, str]]] = {}
    for name in dict.fromkeys(cell.model for cell, _ in scores.values):
        if match := re.search(rf"{SIZE}-(\d+)-people-(\d+)", name):
            found.setdefault(int(match[1]), []).append((int(match[2]), name))
    return {people: [name for _, name in sorted(found[people])] for people in sorted(found)}


def curve(scores: Scores, name: str, task: str) -> Curve:
    """The scores of one model in one task over the whole grid of sparsities."""
    grid = [0.0, *sorted({cell.ratio for cell, asked in scores.values if cell.model == name and asked == task and cell.ratio})]
    cells = [Cell(name, PRUNER, ratio) if ratio else Cell(name) for ratio in grid]
    rows = np.stack([scores.rows(cell, task, [0]) for cell in cells], axis=1)
    return Curve(task, grid, rows, scores.ids[task], scores.chances[task])


def slope(loads: Sequence[float], values: Sequence[float]) -> float:
    """The change of a value with each doubling of the load, by least squares."""
    return float(np.polyfit(np.log2(loads), values, 1)[0])


def measured(folder: Path) -> dict[str, Any]:
    """All that the page tells of memory loads: a row for each load and drop, and the slopes over loads.

    Raises:
        ValueError: the models of the sweeps differ, or a load has fewer training seeds than another.
        StatisticsError: a dense model is not above chance.
    """
    context = read([folder / "loads-context"])
    recall = {people: read([folder / f"loads-recall-{people}"]) for people in LOADED if (folder / f"loads-recall-{people}").is_dir()}
    found = models(context)
    if differ := [people for people in {*found, *recall} if models(recall.get(people, Scores())).get(people) != found.get(people)]:
        raise ValueError(f"{folder}: the sweeps loads-recall and loads-context have other models at {differ[0]} people: want the same")
    if len({len(names) for names in found.values()}) > 1:
        raise ValueError(f"{folder}: { ({people: len(names) for people, names in found.items()}) } models: want equally many at each load")
    curves = {
        (people, name): {task: curve(recall[people] if task in ABILITIES["recall"] else context, name, task) for task in TASKS}
        for people, names in found.items()
        for name in names
    }
    return rows_of(curves) | {"abilities": list(ABILITIES), "seeds": len(next(iter(found.values()))), "asked": ASKED}


def rows_of(curves: dict[tuple[int, str], dict[str, Curve]]) -> dict[str, Any]:
    """The dense scores and critical sparsities at each load, and the slopes.

    Args:
        curves: those of each task, by number of memorised people and model; equally many models at each load, in the order of seeds.
    """
    loads: dict[int, list[dict[str, Curve]]] = {}
    for (people, _), of_tasks in curves.items():
        loads.setdefault(people, []).append(of_tasks)

    def above_chance(one: Curve) -> float:
        return float((one.values[:, 0].mean() - one.chance) / (1 - one.chance))

    dense = [
        {
            "people": people, "load": load_of(people),
            "scores": {
                ability: OverSeeds(tuple(float(np.mean([above_chance(of_tasks[task]) for task in tasks])) for of_tasks in models))
                for ability, tasks in ABILITIES.items()
            },
        }
        for people, models in loads.items()
    ]  # fmt: skip
    critical_rows, slopes = [], []
    for drop in DROPS:
        by_ability = {
            ability: [[critical([of[task] for task in tasks], drop) for of in models] for models in loads.values()]
            for ability, tasks in ABILITIES.items()
        }
        for index, people in enumerate(loads):
            values = {ability: over_seeds(found[index]) for ability, found in by_ability.items()}
            critical_rows.append({"people": people, "load": load_of(people), "drop": drop, "critical": values})
        at = [load_of(people) for people in loads]
        of_seeds = {
            ability: [slope(at, [value for value, _ in of_seed]) for of_seed in zip(*found, strict=True)]
            for ability, found in by_ability.items()
        }
        pairs = zip(of_seeds["recall"], of_seeds["in-context"], strict=True)
        slopes.append({
            "drop": drop, "slopes": {ability: OverSeeds(tuple(values)) for ability, values in of_seeds.items()},
            "difference": OverSeeds(tuple(recall - context for recall, context in pairs)),
        })  # fmt: skip
    return {"dense": dense, "critical": critical_rows, "slopes": slopes}


def main(out: Annotated[Path, typer.Argument(help="The folder for a file loads-PEOPLE.json for each load.")]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for people in LOADED:
        (out / f"loads-{people}.json").write_text(json.dumps({"known": facts_told(people)}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
