"""Whether pruning takes facts that a model was told rarely before those that it was told often: writes docs/exposure.md.

The set ``zipf`` of ``scripts/train_family.py`` is one size of model. It was asked about half of its memorised people by Zipf's law, and
about the other half equally often. Groups hold facts that were asked about similarly often. Intervals are Student's over training
seeds.

    python scripts/exposure.py facts runs/exposure  # writes the facts that scripts/exposure.sh asks for
    python scripts/exposure.py page runs/exposure --page docs/exposure.md
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from lab_mixture import Crowd, Mixture
from lab_settings import Settings
from lab_tokenizer import build as build_tokenizer
from page_templates import fill
from paper_family import DROPS, OverSeeds, critical, curve, over_seeds, seed_of, shown, thousandths
from paper_figures import save
from paper_scores import Scores, read
from train_family import UNEVEN, runs_of

from harness_ext.report.drawing import legend, panels, style
from harness_ext.report.margins import margins_of
from harness_ext.statistics import Curve, MatchedModels, Matching, matched_over_models
from harness_ext.statistics.matched_models import matched_models_sentence
from harness_ext.statistics.matching import findings
from harness_ext.sweep import load
from harness_ext.tasks.people import population

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).parent / "exposure" / "exposure.md.j2"
STEPS = 2000  # of a training run
RECALL = "lab_facts_closed"
CONTEXT = ("lab_unseen_open", "kv_32", "icl_linear")
EDGES = (0, 32, 64, 128, 256, 512, 1024, np.inf)  # of the groups, in times that a fact was asked about
RARE, FREQUENT = (32, 128), (256, np.inf)  # facts that are matched on their margin, in times asked
TICKS = (30, 100, 300, 1000, 3000)
KNOWN = 0.5
"""A group has critical sparsities where every dense model recalls at least this share of it."""


@dataclass(frozen=True)
class Group:
    """Facts that were asked about similarly often.

    Args:
        people: numbers of the memorised people.
        times: how often each of their facts was asked about, the geometric mean.
        label: for tables.
    """

    people: tuple[int, ...]
    times: float
    label: str


def training() -> Settings:
    """How the model of the first training seed was trained."""
    return runs_of(["zipf"], [], [0], STEPS)["lab-xs-zipf-0"][1]


def times_asked(settings: Settings) -> np.ndarray:
    """How often each fact of each memorised person was asked about in a training run, on average: float [people]."""
    everyone = population(0)
    crowd = Crowd(settings.people, settings.slots, settings.zipf)
    mixture = Mixture(build_tokenizer(everyone), everyone, tokens=settings.micro_tokens, seed=settings.seed, crowd=crowd)
    early, late = (
        sum(settings.kinds(step).count("facts") for step in steps)
        for steps in (range(settings.reading_steps), range(settings.reading_steps, settings.steps))
    )
    few = settings.people_asked(0)
    asked = np.zeros(settings.people)
    asked[:few] += early * _questions(mixture, people=few) / few
    asked += crowd.exposures(late * _questions(mixture))
    return asked / len(everyone.attributes)


def _questions(mixture: Mixture, drawn: int = 20, **options: int) -> float:
    """The mean number of questions in a micro-batch of facts. An answer has two words, so it is two tokens."""
    return float(np.mean([int(mixture.batch("facts", step, 0, **options).answers.sum()) / 2 for step in range(drawn)]))


def groups_of(asked: np.ndarray) -> list[Group]:
    """The half that was asked about by Zipf's law, rare facts first, and then the other half."""
    half = len(asked) // 2
    found = []
    for low, high in pairwise(EDGES):
        people = tuple(int(one) for one in half + np.flatnonzero((asked[half:] >= low) & (asked[half:] < high)))
        if people:
            label = f"up to {high:,}" if not low else f"{low:,} and more" if np.isinf(high) else f"{low:,} to {high:,}"
            found.append(Group(people, _mean(asked[list(people)]), label))
    even = asked[:half]
    return [*found, Group(tuple(range(half)), _mean(even), f"{round(even.min())} to {round(even.max())}, nearly even")]


def _mean(times: np.ndarray) -> float:
    return float(np.exp(np.log(times).mean()))


def places_of(whole: Curve, group: Group) -> list[int]:
    """Where the facts of a group are in a curve of all facts.

    Raises:
        ValueError: the curve lacks some.
    """
    everyone, ids = population(0), whole.ids or ()
    wanted = {f"{attribute.name}/{everyone.memorised[person]}" for person in group.people for attribute in everyone.attributes}
    places = [place for place, one in enumerate(ids) if one in wanted]
    if len(places) != len(wanted):
        raise ValueError(f"{len(places)} of the {len(wanted)} facts asked about {group.label} times were measured: want all of them")
    return places


def part(whole: Curve, places: Sequence[int]) -> Curve:
    """The curve of some of the items."""
    values, ids = np.asarray(whole.values), list(whole.ids or ())
    return replace(whole, values=values[..., list(places)], ids=[ids[place] for place in places])


def rows_of(recall: Mapping[str, Curve], context: Mapping[str, Sequence[Curve]], groups: Sequence[Group]) -> dict[str, Any]:
    """All that the page tells.

    Args:
        recall: the curve of all facts, by model, in the order of training seeds.
        context: the curves of what the same models do with their prompt.
        groups: the last one is the even half, which no slope is fitted through.
    """
    rows: list[dict[str, Any]] = []
    for group in groups:
        places = [places_of(whole, group) for whole in recall.values()]
        dense = dense_scores([np.asarray(whole.values)[..., of] for whole, of in zip(recall.values(), places, strict=True)])
        found = {}
        if min(dense.values) >= KNOWN:
            curves = [part(whole, of) for whole, of in zip(recall.values(), places, strict=True)]
            found = {drop: over_seeds([critical([one], drop) for one in curves]) for drop in DROPS}
        rows.append({"label": group.label, "times": group.times, "facts": len(places[0]), "dense": dense, "critical": found})
    known = [row for row in rows[:-1] if row["critical"]]
    in_context = {drop: over_seeds([critical(list(of_tasks), drop) for of_tasks in context.values()]) for drop in DROPS}
    dense = {task: dense_scores([np.asarray(of[place].values) for of in context.values()]) for place, task in enumerate(CONTEXT)}
    slopes, last = {}, {}
    for drop in DROPS:
        values = [row["critical"][drop].values for row in known]
        doublings = np.log2([row["times"] for row in known])
        slopes[drop] = OverSeeds(tuple(float(np.polyfit(doublings, of_seed, 1)[0]) for of_seed in zip(*values, strict=True)))
        last[drop] = OverSeeds(
            tuple(of_context - of_facts for of_facts, of_context in zip(values[-1], in_context[drop].values, strict=True))
        )
    return {
        "rows": rows, "known": known, "in_context": in_context, "dense": dense, "slopes": slopes, "last": last, "drops": DROPS,
        "seeds": len(recall), "people": UNEVEN,
    }  # fmt: skip


def dense_scores(values: Sequence[np.ndarray]) -> OverSeeds:
    """The mean score of each dense model, of scores [..., sparsity, item]."""
    return OverSeeds(tuple(float(of_model[..., 0, :].mean()) for of_model in values))


def matched(scores: Scores, margins: Mapping[str, Mapping[str, float]], asked: np.ndarray) -> list[MatchedModels]:
    """The critical sparsity of frequent facts less that of rare ones, of equal margin in the dense model, at each drop.

    Args:
        scores: recognition among 16 answers.
        margins: by model and fact.
    """
    matchings = {}
    for name in models(scores):
        whole = curve(scores, name, RECALL)
        parts = [part(whole, places_of(whole, chosen(asked, *ends))) for ends in (RARE, FREQUENT)]
        rare, frequent = (replace(one, name=kind) for one, kind in zip(parts, ("rare facts", "frequent facts"), strict=True))
        of_items = {one.name: [margins[name][str(item)] for item in one.ids or ()] for one in (rare, frequent)}
        matchings[f"seed {seed_of(name)}"] = Matching([rare], [frequent], of_items, corrected=True, names=(rare.name, frequent.name))
    return [matched_over_models(matchings, drop=drop) for drop in DROPS]


def chosen(asked: np.ndarray, low: float, high: float) -> Group:
    """The people of the half that was asked about by Zipf's law whose facts were asked about so often."""
    half = len(asked) // 2
    people = half + np.flatnonzero((asked[half:] >= low) & (asked[half:] < high))
    return Group(tuple(people.tolist()), _mean(asked[people]), f"{low:,} to {high:,}")


def dense_margins(folder: Path) -> dict[str, dict[str, float]]:
    """The margin of each fact in each dense model of a sweep, in nats."""
    found = {}
    for record in load(folder):
        if record.is_dense:
            samples = [row for row in record.samples(RECALL) if row["filter"] == "none"]
            ids, scores = [row["id"] for row in samples], [float(row["acc"]) for row in samples]
            found[record.pretrained] = dict(margins_of(ids, samples, "acc", scores).values)
    return found


def draw(measured: dict[str, Any]) -> Figure:
    """Critical sparsities against how often facts were asked about, one panel for each drop; a small mark for each training seed."""
    figure, axes = panels(len(DROPS), columns=2, width=4.4, height=3.4, sharey=True)
    for one, drop in zip(axes, DROPS, strict=True):
        lines = {"Zipf's law": measured["known"], "nearly even": [row for row in measured["rows"][-1:] if row["critical"]]}
        for index, (label, rows) in enumerate(lines.items()):
            look = style(index)
            one.plot([row["times"] for row in rows], [row["critical"][drop].mean for row in rows], label=f"recall, {label}", **look)
            points = [(row["times"], value) for row in rows for value in row["critical"][drop].values]
            if points:
                one.scatter(*zip(*points, strict=True), color=look["color"], marker=look["marker"], s=14, alpha=0.5)
        line = measured["in_context"][drop]
        one.axhline(line.mean, color="#000000", linestyle=":", label="in-context ability")
        if line.half_width is not None:
            one.axhspan(line.mean - line.half_width, line.mean + line.half_width, color="#000000", alpha=0.08, linewidth=0)
        one.set(title=f"{100 * drop:g} % lost", xlabel="times that a fact was asked about", xscale="log", ylim=(0, 0.8))
        one.set_xticks(TICKS, [f"{tick:,}" for tick in TICKS])
        one.set_xticks([], minor=True)
    axes[0].set_ylabel("critical sparsity")
    legend(figure, axes, 3)
    return figure


def render(measured: dict[str, Any], figure: str) -> str:
    """The page from its template."""
    found = [one.disparity for one in measured["matched"] if one.disparity is not None]
    told = measured | {
        "equal": equal_words({one.finding for one in found}),
        "findings": findings(found) if found else matched_models_sentence(measured["matched"]),
        "effective": [effective_words([one.effective[side] for one in measured["matched"][0].overlaps]) for side in (0, 1)],
    }
    return fill(TEMPLATE, **told, figure=figure, shown=shown, thousandths=thousandths)


def equal_words(findings: Collection[str]) -> str:
    """The verdict at equal margin, from the findings at all drops, in which rare facts stand for recall."""
    if not findings:
        return "too few facts of equal margin"
    if findings == {"in-context outlasts recall"}:
        return "shown"
    return "the reverse is shown" if findings == {"recall outlasts in-context"} else "not shown"


def effective_words(numbers: Sequence[float]) -> str:
    """``1988 to 2104``, of the effective numbers of facts in each model."""
    return f"{min(numbers):,.0f} to {max(numbers):,.0f}"


def models(scores: Scores) -> list[str]:
    """The names of the models, in the order of their training seeds."""
    return sorted(dict.fromkeys(cell.model for cell, _ in scores.values), key=seed_of)


app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def facts(out: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The folder for the files.")]) -> None:
    """Writes the facts that the models were told to recall.json, and the rare and frequent ones that are matched to ranking.json."""
    asked = times_asked(training())
    people = {"recall": range(UNEVEN), "ranking": [one for ends in (RARE, FREQUENT) for one in chosen(asked, *ends).people]}
    everyone = population(0)
    for name, numbers in people.items():
        ids = [f"{attribute.name}/{everyone.memorised[person]}" for person in numbers for attribute in everyone.attributes]
        (out / f"{name}.json").write_text(json.dumps({"known": ids}) + "\n", encoding="utf-8")


@app.command()
def page(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="That of scripts/exposure.sh.")],
    page: Annotated[Path, typer.Option(help="The page to write; its figure goes beside it.")],
) -> None:
    """Writes the page."""
    scores = {name: read([folder / name], "acc" if name == "ranking" else "exact_match") for name in ("recall", "context", "ranking")}
    names = models(scores["recall"])
    if differ := [name for name, found in scores.items() if models(found) != names]:
        raise typer.BadParameter(f"{folder}: the sweeps recall and {differ[0]} have different models: want the same")
    told = folder / "family" / Path(names[0]).parent.name / "settings.json"
    if told.is_file() and (steps := json.loads(told.read_text())["steps"]) != STEPS:
        raise typer.BadParameter(f"{told}: the model was trained for {steps} steps: want {STEPS}, as scripts/exposure.sh trains")
    recall = {name: curve(scores["recall"], name, RECALL) for name in names}
    context = {name: [curve(scores["context"], name, task) for task in CONTEXT] for name in names}
    asked = times_asked(training())
    measured = rows_of(recall, context, groups_of(asked)) | {"steps": STEPS}
    measured |= {"matched": matched(scores["ranking"], dense_margins(folder / "ranking"), asked)}
    picture = page.with_name("exposure.png")
    save(draw, measured, picture)
    page.write_text(render(measured, picture.name), encoding="utf-8")


if __name__ == "__main__":
    app()
