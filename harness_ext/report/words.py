"""How a page says what was measured: the headline, and the names of abilities and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness_ext.report.abilities import ABILITIES, NAMES
from harness_ext.report.analysis import Analysis
from harness_ext.report.series import Series
from harness_ext.statistics import Critical, ModelsDisparity

OTHER = "tasks of no ability"


@dataclass(frozen=True)
class Headline:
    """The first sentence of a page.

    Args:
        sentence: of one method, or of what could be read.
        notes: what is to be known with it.
        label: of the method, None where no score falls along a curve.
    """

    sentence: str
    notes: tuple[str, ...] = ()
    label: str | None = None


def name_of(ability: str | None) -> str:
    """An ability in words."""
    return OTHER if ability is None else NAMES.get(ability, ability)


def of_curves(done: Analysis) -> list[str]:
    """The abilities that have a curve, in order."""
    return list(dict.fromkeys([*(one for one in ABILITIES if any(key[1] == one for key in done.curves)), *(key[1] for key in done.curves)]))


def tasks_by_ability(done: Analysis) -> dict[str | None, list[str]]:
    """The tasks that have results, those of no ability last."""
    tasks = sorted({task for trial in done.trials for task in trial.tasks})
    named = list(dict.fromkeys([*ABILITIES, *done.abilities.values()]))
    groups = {one: [task for task in tasks if done.abilities.get(task) == one] for one in [*named, None]}
    return {one: group for one, group in groups.items() if group}


def title(done: Analysis) -> str:
    """What the page is about, in plain words."""
    pruned = list(dict.fromkeys(trial.pretrained for trial in done.trials if not trial.is_dense))
    if not pruned:
        return f"Scores of {_models([trial.pretrained for trial in done.trials])}"
    several = len(pruned) > 1
    return f"What {_models(pruned)} {'lose' if several else 'loses'} when {'they are' if several else 'it is'} pruned"


def _models(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return f"{', '.join(names[:-1])} and {names[-1]}" if 1 < len(names) < 4 else names[0] if len(names) == 1 else f"{len(names)} models"


def headline(done: Analysis, drop: float) -> Headline:
    """What is lost first, of the method that keeps most.

    Args:
        drop: the share of the dense score that counts as lost.
    """
    found = {one.label: critical_of(done, one, drop) for one in done.series}
    found = {label: by_ability for label, by_ability in found.items() if by_ability}
    nothing = "".join(f"{one.sentence()} " for one in done.nothing_to_lose)
    scores = tuple(one.scores() for one in done.nothing_to_lose)
    if not found:
        results = sum(len(trial.tasks) for trial in done.trials)
        return Headline(f"{nothing}{results} scores were read, and none of them falls along a curve: see what is missing.", scores)
    if over := [claim for claim in done.claims if isinstance(claim.found, ModelsDisparity)]:
        return Headline(f"{nothing}{over[0].found.sentence()}", (*scores, f"{over[0].label}: {over[0].p_words()}."))
    whole = {one.label: one.settings.get("modules", "all") == "all" for one in done.series}
    label = max(found, key=lambda one: (len(found[one]), whole[one], sum(_kept(critical) for critical in found[one].values())))
    said = [(name_of(ability), critical) for ability, critical in found[label].items()]
    kept = all(critical.cell[1] is None for _, critical in said)
    parts: list[str] = []
    before = ""
    for name, critical in said:
        verb, where = _fate(critical)
        parts.append(f"{name if parts else f'{name.capitalize()} of this model'} {where if verb == before else f'{verb} {where}'}")
        before = verb
    series = next(one for one in done.series if one.label == label)
    method = label if label.startswith(series.pretrained) else f"{label}, {series.pretrained}"
    told = done.disparities.get((label, drop, True))
    claim = next((claim for claim in done.claims if claim.label == label), None)
    if kept and len(said) > 1:
        parts = [f"{' and '.join(name for name, _ in said).capitalize()} of this model are kept up to {said[0][1].last:g}"]
    doubt = "; which of the two fails first is not shown" if told is not None and not told.shown and not kept else ""
    intervals = "; ".join(f"{name} {critical.interval_words()}" for name, critical in said)
    notes = [f"Lost: {100 * drop:g} % of the dense score above chance. 95 % intervals of that sparsity: {intervals}."]
    notes = [*scores, *notes, *([f"That one outlasts the other: {claim.p_words()}."] if claim else [])]
    notes += [critical.caveat for _, critical in said[:1] if critical.caveat]
    if len(found) > 1:
        notes.append(f"The sentence is about the method that keeps most; the picture and the table have all {len(found)}.")
    return Headline(f"{nothing}{', '.join(parts)}{doubt}: {method}.", tuple(notes), label)


def critical_of(done: Analysis, series: Series, drop: float) -> Mapping[str, Critical]:
    """The critical sparsities of a series by ability, chance-corrected."""
    keys = {ability: (series.label, ability, drop, True) for ability in of_curves(done)}
    return {ability: done.critical[key] for ability, key in keys.items() if key in done.critical}


def _kept(critical: Critical) -> float:
    return critical.last if critical.sparsity is None else critical.sparsity


def _fate(critical: Critical) -> tuple[str, str]:
    """From the first measured sparsity at which it is lost, since nothing was measured just before it."""
    return ("is kept", f"up to {critical.last:g}") if critical.cell[1] is None else ("is lost", f"from {critical.cell[1]:g} on")


def first_lost(done: Analysis, series: Series, drop: float) -> str:
    """The ability that a method loses first, where that is shown."""
    told = done.disparities.get((series.label, drop, True))
    if told is None:
        return "-"
    return {"in-context outlasts recall": told.names[0], "recall outlasts in-context": told.names[1]}.get(told.finding, "not shown")
