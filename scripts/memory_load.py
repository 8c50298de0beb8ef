"""What the load of a model's memory has to do with what pruning takes first: writes docs/memory-load.md.

The set ``loads`` of ``scripts/train_family.py`` is one size of model, trained with fewer and fewer memorised people; each fact is asked
about equally often at every load. Recall is measured on facts that the model was told. The critical sparsity of a model is the mean over
calibration seeds. The slope is fitted for each training seed, and its interval is Student's over these slopes. Calibration seeds are
nested in models: each model wrote its own calibration texts. So this interval covers both.

    python scripts/memory_load.py facts runs/memory-load  # writes the facts of each load, which scripts/memory_load.sh asks for
    python scripts/memory_load.py page runs/memory-load --page docs/memory-load.md
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from page_templates import fill
from paper_family import DROPS, OverSeeds, critical, curve, decoder_weights, shown, thousandths
from paper_figures import save
from paper_scores import Scores, read
from train_family import LOADED

from harness_ext.report.drawing import legend, panels, style
from harness_ext.statistics import Curve
from harness_ext.tasks.people import WORDS, population

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).parent / "memory_load" / "memory-load.md.j2"
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


def slope(loads: Sequence[float], values: Sequence[float]) -> float:
    """The change of a value with each doubling of the load, by least squares."""
    return float(np.polyfit(np.log2(loads), values, 1)[0])


def measured(folder: Path) -> dict[str, Any]:
    """All that the page tells: a row for each load and drop, and the slopes over loads.

    Raises:
        ValueError: the models or calibration seeds of the sweeps differ, or a load has fewer training seeds than another.
        MissingError: a trial is not there.
        StatisticsError: a dense model is not above chance.
    """
    context = read([folder / "context"])
    recall = {people: read([folder / f"recall-{people}"]) for people in LOADED if (folder / f"recall-{people}").is_dir()}
    found = models(context)
    if absent := sorted({*found} - {*recall}):
        raise ValueError(f"{folder}: there is no sweep recall-{absent[0]}, and context has models of {absent[0]} people")
    if differ := [people for people in {*found, *recall} if models(recall.get(people, Scores())).get(people) != found.get(people)]:
        raise ValueError(f"{folder}: the sweeps recall-{differ[0]} and context have other models at {differ[0]} people: want the same")
    if len({len(names) for names in found.values()}) > 1:
        raise ValueError(f"{folder}: { ({people: len(names) for people, names in found.items()}) } models: want equally many at each load")
    seeds = calibration_seeds(context)
    for people, one in recall.items():
        if (other := calibration_seeds(one)) != seeds:
            raise ValueError(f"{folder}: recall-{people} has the calibration seeds {other}, and context {seeds}: want the same")
    return rows_of({
        (people, name): [
            {task: curve(recall[people] if task in ABILITIES["recall"] else context, name, task, seed) for task in TASKS} for seed in seeds
        ]
        for people, names in found.items()
        for name in names
    })  # fmt: skip


def calibration_seeds(scores: Scores) -> list[int]:
    """Those of any pruned model."""
    return sorted({seed for (cell, _), by_seed in scores.values.items() if cell.ratio for seed in by_seed})


@dataclass(frozen=True)
class Spread:
    """Standard deviations of a critical sparsity.

    Args:
        draws: between the calibration seeds of one model, over all models; None with one seed.
        models: between the training seeds of one load, each the mean over its calibration seeds, over all loads; None with one seed.
    """

    draws: float | None
    models: float | None


def spread(values: Sequence[np.ndarray]) -> Spread:
    """That of critical sparsities [training seeds, calibration seeds], one array a load."""

    def pooled(rows: np.ndarray) -> float | None:
        return None if rows.shape[-1] < 2 else float(np.sqrt(rows.var(axis=-1, ddof=1).mean()))

    loads = np.stack(values)
    return Spread(draws=pooled(loads), models=pooled(loads.mean(axis=-1)))


def critical_of(models: Sequence[Sequence[dict[str, Curve]]], tasks: Sequence[str], drop: float) -> tuple[OverSeeds, np.ndarray]:
    """The critical sparsity of an ability.

    Args:
        models: for each training seed and each calibration seed, the curves of all tasks.
        tasks: those of the ability.

    Returns:
        Over training seeds, each the mean over its calibration seeds; and all: float [training seeds, calibration seeds].
    """
    found = [[critical([of_tasks[task] for task in tasks], drop) for of_tasks in of_draws] for of_draws in models]
    values = np.array([[value for value, _ in of_draws] for of_draws in found])
    beyond = sum(any(end for _, end in of_draws) for of_draws in found)
    return OverSeeds(tuple(values.mean(axis=1).tolist()), beyond), values


def rows_of(curves: dict[tuple[int, str], list[dict[str, Curve]]]) -> dict[str, Any]:
    """The dense scores and critical sparsities at each load, their spreads, and the slopes.

    Args:
        curves: by number of memorised people and model: for each calibration seed, that of each task. Each load has equally many models,
            in the order of their training seeds.
    """
    loads: dict[int, list[list[dict[str, Curve]]]] = {}
    for (people, _), of_draws in curves.items():
        loads.setdefault(people, []).append(of_draws)

    def above_chance(one: Curve) -> float:
        return float((one.values[:, 0].mean() - one.chance) / (1 - one.chance))

    rows = []
    draws: dict[float, dict[str, list[np.ndarray]]] = {drop: {ability: [] for ability in ABILITIES} for drop in DROPS}
    for people, of_seeds in loads.items():
        scores = {
            ability: OverSeeds(tuple(float(np.mean([above_chance(of_draws[0][task]) for task in tasks])) for of_draws in of_seeds))
            for ability, tasks in ABILITIES.items()
        }
        found: dict[float, dict[str, OverSeeds]] = {drop: {} for drop in DROPS}
        for drop in DROPS:
            for ability, tasks in ABILITIES.items():
                found[drop][ability], values = critical_of(of_seeds, tasks, drop)
                draws[drop][ability].append(values)
        gaps = {
            drop: OverSeeds(tuple(b - a for a, b in zip(of["recall"].values, of["in-context"].values, strict=True)))
            for drop, of in found.items()
        }
        rows.append({"people": people, "load": load_of(people), "dense": scores, "critical": found, "gaps": gaps})
    at = [row["load"] for row in rows]
    slopes, differences = {}, {}
    for drop in DROPS:
        slopes[drop] = {}
        for ability in ABILITIES:
            of_seeds = zip(*(row["critical"][drop][ability].values for row in rows), strict=True)
            slopes[drop][ability] = OverSeeds(tuple(slope(at, values) for values in of_seeds))
        pairs = zip(slopes[drop]["recall"].values, slopes[drop]["in-context"].values, strict=True)
        differences[drop] = OverSeeds(tuple(recall - context for recall, context in pairs))
    return {
        "rows": rows, "slopes": slopes, "differences": differences, "drops": DROPS, "abilities": list(ABILITIES), "asked": ASKED,
        "seeds": len(next(iter(loads.values()))), "draws": len(next(iter(curves.values()))),
        "spreads": {drop: {ability: spread(values) for ability, values in of_drop.items()} for drop, of_drop in draws.items()},
    }  # fmt: skip


def draw(measured: dict[str, Any]) -> Figure:
    """Critical sparsities against the load of the memory, one panel a drop: a point for each training seed, a line through their means."""
    figure, axes = panels(len(DROPS), columns=2, width=4.4, height=3.4, sharey=True)
    rows = measured["rows"]
    for one, drop in zip(axes, DROPS, strict=True):
        for index, ability in enumerate(measured["abilities"]):
            found = [(row["load"], row["critical"][drop][ability]) for row in rows]
            look = style(index)
            one.plot([load for load, _ in found], [seeds.mean for _, seeds in found], label=ability, **look)
            points = [(load, value) for load, seeds in found for value in seeds.values]
            one.scatter(*zip(*points, strict=True), color=look["color"], marker=look["marker"], s=14, alpha=0.5)
        ticks = [row["load"] for row in rows]
        one.set(title=f"{100 * drop:g} % lost", xlabel="bits of facts for each weight of the decoder", xscale="log", ylim=(0, 0.85))
        one.set_xticks(ticks, [f"{load:.2g}" for load in ticks])
        one.set_xticks([], minor=True)
    axes[0].set_ylabel("critical sparsity")
    legend(figure, axes, len(measured["abilities"]))
    return figure


def render(measured: dict[str, Any], figure: str) -> str:
    """The page from its template."""
    return fill(TEMPLATE, **measured, figure=figure, shown=shown, thousandths=thousandths)


app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def facts(out: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The folder for the files.")]) -> None:
    """Writes a file facts-PEOPLE.json for each load."""
    for people in LOADED:
        (out / f"facts-{people}.json").write_text(json.dumps({"known": facts_told(people)}) + "\n", encoding="utf-8")


@app.command()
def page(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="That of scripts/memory_load.sh.")],
    page: Annotated[Path, typer.Option(help="The page to write; its figure goes beside it.")],
    notes: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Markdown on how these models were trained.")] = None,
) -> None:
    """Writes the page."""
    found = measured(folder) | {"notes": notes.read_text(encoding="utf-8") if notes else ""}
    picture = page.with_suffix(".png")
    save(draw, found, picture)
    page.write_text(render(found, picture.name), encoding="utf-8")


if __name__ == "__main__":
    app()
