"""Where the abilities of one model fail, on a fine grid of sparsities, with all its facts: writes docs/fine-grid.md.

    python scripts/fine_grid.py page runs/fine-grid --page docs/fine-grid.md
    python scripts/fine_grid.py page scripts/fine_grid/trials.jsonl.xz --page docs/fine-grid.md

Intervals are those of ``harness_ext.statistics``: over items and calibration seeds, and over whole cells of the grid. The same trials
thinned out to the steps, seeds and items of docs/results.md tell what more of each adds.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from kept_trials import trials_of
from page_templates import fill
from paper_figures import save
from paper_scores import ABILITIES as TASKS_OF
from paper_scores import Cell, MissingError, Scores, read, rounded, scores_of
from paper_tests import ORDER, RESAMPLES, judged

from harness_ext.report.drawing import band, legend, panels, style
from harness_ext.statistics import AbilityCurve, Critical, Curve, Disparity, ability_critical, ability_curve, disparity
from harness_ext.statistics.disparity import difference_words, outlasts_words, range_words
from harness_ext.tasks import lab_facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).parent / "fine_grid" / "fine-grid.md.j2"
MODEL, PRUNER = "lab-m", "sparsegpt"
PARTS = ("facts", "context")
FOUR_LABELS = "functions, four labels"
ABILITIES = {**TASKS_OF, FOUR_LABELS: ("icl_linear_k4", "icl_nn_k4", "icl_tree_k4")}
FAMILIES = {task: name for name, tasks in ABILITIES.items() if name != "in-context" for task in tasks}
CHANCE_OF_FOUR = 0.25
DROPS = (0.05, 0.5)
COARSE_STEP, COARSE_SEEDS = 0.1, 3  # of docs/results.md
COARSE_ITEMS = {"lab": 512, "kv": 256, "icl": 256}
KEPT_AT = (0.6, 0.7)  # the paper's "60 to 70 %"


def sweeps_of(folder: Path) -> list[Path]:
    """The sweeps of the calibration seeds of which both are there.

    Raises:
        MissingError: there is none.
    """
    seeds = {part: {path.name.rpartition("-")[2] for path in folder.glob(f"{part}-*")} for part in PARTS}
    both = sorted(set.intersection(*seeds.values()), key=int)
    if not both:
        raise MissingError(f"{folder}: there is no calibration seed with both of {', '.join(f'{part}-SEED' for part in PARTS)}")
    return [folder / f"{part}-{seed}" for seed in both for part in PARTS]


def curves_of(scores: Scores) -> dict[str, Curve]:
    """The scores of each task over its sparsities, float [calibration seeds, sparsities, items].

    Raises:
        MissingError: a calibration seed lacks a sparsity, or a task has other calibration seeds than the others.
    """
    curves = {}
    seeds_of: dict[str, list[int]] = {}
    for task in dict.fromkeys(task for tasks in ABILITIES.values() for task in tasks):
        ratios = sorted({cell.ratio for cell, asked in scores.values if asked == task and cell.ratio})
        cells = [Cell(MODEL, PRUNER, ratio) for ratio in ratios]
        seeds_of[task] = sorted({seed for cell in cells for seed in scores.values.get((cell, task), {})})
        for cell in cells:
            if absent := sorted(set(seeds_of[task]) - set(scores.values.get((cell, task), {}))):
                raise MissingError(f"{task} at {cell.ratio:g} lacks the calibration seed {absent[0]}")
        rows = np.stack([scores.rows(cell, task, seeds_of[task]) for cell in (Cell(MODEL), *cells)], axis=1)
        chance = CHANCE_OF_FOUR if task in ABILITIES[FOUR_LABELS] else scores.chances[task]
        curves[task] = Curve(task, [0.0, *ratios], rows, scores.ids[task], chance)
    if len({tuple(seeds) for seeds in seeds_of.values()}) > 1:
        raise MissingError(f"the tasks have different calibration seeds: {seeds_of}")
    return curves


def facts_drawn(task: str, items: int) -> list[str]:
    """The facts that a task of the lab models asks for, if it is given a number of items."""
    _, people, condition = task.split("_")  # lab_facts_closed, lab_unseen_open
    drawn = lab_facts.load(condition=condition, people="memorised" if people == "facts" else people, facts_items=items, facts_choices=0)
    return list(drawn["test"]["id"])


def coarse_items(curve: Curve) -> Collection[Hashable]:
    """The items of a task in docs/results.md: fewer facts are another draw, and fewer keys and functions the first ones."""
    kind = curve.name.partition("_")[0]
    return set(facts_drawn(curve.name, COARSE_ITEMS[kind]) if kind == "lab" else curve.ids[: COARSE_ITEMS[kind]])


def thinned(curve: Curve) -> Curve:
    """As much of a curve as docs/results.md measures: steps of 0.1, the first three calibration seeds, and its items."""
    keep = [place for place, ratio in enumerate(curve.sparsities) if abs(ratio / COARSE_STEP - round(ratio / COARSE_STEP)) < 1e-6]
    asked = coarse_items(curve)
    items = [place for place, item in enumerate(curve.ids) if item in asked]
    values = curve.values[:COARSE_SEEDS, keep][:, :, items]
    return Curve(curve.name, [curve.sparsities[place] for place in keep], values, [curve.ids[place] for place in items], curve.chance)


def found(curves: Mapping[str, Curve], ability: str, drop: float) -> Critical:
    """The critical sparsity of an ability. In-context ability weights its four kinds of tasks equally."""
    return ability_critical([curves[task] for task in ABILITIES[ability]], drop=drop, corrected=True, families=FAMILIES)


def split(curves: Mapping[str, Curve], ability: str, drop: float) -> Disparity:
    """The critical sparsity of an ability less that of recall."""
    recall, other = ([curves[task] for task in ABILITIES[name]] for name in ("recall", ability))
    names = ("recall", "in-context ability" if ability == "in-context" else ability)
    return disparity(recall, other, drop=drop, corrected=True, families=FAMILIES, names=names)


def order(curves: Mapping[str, Curve], drop: float, *, corrected: bool) -> list[tuple[str, str, str]]:
    """The comparisons of claim 5 of docs/results.md: what is compared, the two critical sparsities and their difference, and what is shown.

    Intervals are Bonferroni-corrected for the number of comparisons.
    """
    rows = []
    for names in ORDER:
        one, other = ([curves[task] for task in ABILITIES.get(name, (name,))] for name in names)
        compared = disparity(one, other, drop=drop, corrected=corrected, level=1 - 0.05 / len(ORDER), resamples=RESAMPLES, names=names)
        sides = ", ".join(
            f"{name} {side.phrase(short=True)}" for name, side in zip(names, (compared.recall, compared.in_context), strict=True)
        )
        unknown = compared.low is None and compared.high is None
        told = "nothing is known of the difference" if unknown else f"difference {range_words(compared.low, compared.high)}"
        rows.append((" before ".join(names), f"{sides}; {told}", judged(compared)[1]))
    return rows


def lost(curve: AbilityCurve, ratio: float) -> float:
    """The share of the dense score that is lost at a sparsity."""
    return 1 - curve.scores[curve.sparsities.index(ratio)].value / curve.scores[0].value


def sentences(split: Disparity, drop: float) -> str:
    """Where recall and another ability fail, and how far apart."""
    recall, other = split.recall, split.in_context
    apart = difference_words(split) if split.finding == "not shown" else outlasts_words(split)
    first = f"At a {100 * drop:g} % drop, {split.names[0]} fails {recall.cell_words()} (95 % interval {recall.interval_words()})."
    return f"{first} {split.names[1].capitalize()} fails {other.cell_words()} ({other.interval_words()}): {apart}."


def between_seeds(curves: Mapping[str, Curve], ability: str, drop: float) -> float | None:
    """The standard deviation of an ability's critical sparsity between calibration seeds; None with one, or beyond the grid."""
    seeds = len(next(iter(curves.values())).values)
    values = []
    for seed in range(seeds):
        one = {
            task: Curve(task, curves[task].sparsities, curves[task].values[seed], curves[task].ids, curves[task].chance)
            for task in ABILITIES[ability]
        }
        values.append(ability_critical(list(one.values()), drop=drop, corrected=True, families=FAMILIES, resamples=100).sparsity)
    return None if seeds < 2 or None in values else float(np.std(values, ddof=1))  # type: ignore[arg-type]


def measured(scores: Scores) -> dict[str, Any]:
    """All that the page tells."""
    curves = curves_of(scores)
    coarse = {task: thinned(curve) for task, curve in curves.items()}
    others = [ability for ability in ABILITIES if ability != "recall"]
    return {
        "curves": {
            name: ability_curve([curves[task] for task in tasks], corrected=True, families=FAMILIES) for name, tasks in ABILITIES.items()
        },
        "raw": {name: ability_curve([curves[task] for task in tasks], families=FAMILIES) for name, tasks in ABILITIES.items()},
        "critical": {drop: {name: found(curves, name, drop) for name in ABILITIES} for drop in DROPS},
        "coarse": {drop: {name: found(coarse, name, drop) for name in ABILITIES} for drop in DROPS},
        "splits": {drop: {name: split(curves, name, drop) for name in others} for drop in DROPS},
        "deviations": {drop: {name: between_seeds(curves, name, drop) for name in ABILITIES} for drop in DROPS},
        "order": {0.05: order(curves, 0.05, corrected=False), 0.5: order(curves, 0.5, corrected=True)},
        "items": {name: [len(curves[task].ids) for task in tasks] for name, tasks in ABILITIES.items()},
        "abilities": list(ABILITIES), "drops": DROPS, "kept_at": KEPT_AT,
        "seeds": len(curves["lab_facts_closed"].values), "facts": scores.facts,
    }  # fmt: skip


def draw(measured: dict[str, Any]) -> Figure:
    """Scores against sparsity, with intervals; a bar below holds the interval of each critical sparsity, at both drops."""
    figure, (scores, fails) = panels(2, columns=1, width=7.2, height=3.2, sharex=True)
    for index, (name, curve) in enumerate(measured["curves"].items()):
        look = style(index)
        scores.plot(curve.sparsities, [one.value for one in curve.scores], label=name, **look)
        band(scores, curve, curve.sparsities, look["color"])
        for drop, width in zip(measured["drops"], (6, 2), strict=True):
            one = measured["critical"][drop][name]
            end = one.last if one.high is None else one.high
            fails.plot([one.low, end], [-index, -index], color=look["color"], linewidth=width, solid_capstyle="butt")
            if one.high is None:
                fails.plot([end], [-index], color=look["color"], marker=">", markersize=7, clip_on=False)
    scores.set(ylabel="score corrected for chance", ylim=(-0.05, 1.05))
    fails.set(xlabel="sparsity", xlim=(0, 0.72))
    fails.set_yticks([-index for index in range(len(measured["abilities"]))], measured["abilities"])
    fails.set_title("95 % intervals of where 5 % (thick) and 50 % (thin) are lost", fontsize=9)
    legend(figure, [scores], 4)
    return figure


def width(found: Critical) -> str:
    """That of an interval, or that it has no upper end."""
    return "open" if found.width is None else rounded(found.width, 3)


def render(measured: dict[str, Any], figure: str) -> str:
    """The page from its template."""
    return fill(TEMPLATE, **measured, figure=figure, width=width, range_words=range_words, rounded=rounded, sentences=sentences, lost=lost)


app = typer.Typer(add_completion=False, help=__doc__)


@app.callback()
def commands() -> None:
    """The one command has a name, as in the other scripts that write pages."""


@app.command()
def page(
    sweeps: Annotated[Path, typer.Argument(exists=True, help="The folder of fine_grid.sh, or an archive of kept_trials.py.")],
    page: Annotated[Path, typer.Option(help="The page to write; its figure goes beside it.")],
) -> None:
    """Writes the page."""
    result = measured(scores_of(trials_of(sweeps)) if sweeps.is_file() else read(sweeps_of(sweeps)))
    picture = page.with_suffix(".png")
    save(draw, result, picture)
    page.write_text(render(result, picture.name), encoding="utf-8")


if __name__ == "__main__":
    app()
