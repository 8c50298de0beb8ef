"""Texts of the page: the headline, and the names of abilities and models."""

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
        sentence: a sentence about one method, or about the results if there is no curve.
        notes: sentences that explain the first one.
        label: label of the method; None if there is no curve.
    """

    sentence: str
    notes: tuple[str, ...] = ()
    label: str | None = None


def name_of(ability: str | None) -> str:
    """Name of an ability."""
    return OTHER if ability is None else NAMES.get(ability, ability)


def of_curves(analysis: Analysis) -> list[str]:
    """The abilities that have a curve, in a fixed order."""
    present = dict.fromkeys(ability for _, ability in analysis.curves)
    return sorted(present, key=lambda ability: ABILITIES.index(ability) if ability in ABILITIES else len(ABILITIES))


def tasks_by_ability(analysis: Analysis) -> dict[str | None, list[str]]:
    """The tasks with results, by ability. Tasks without an ability come last."""
    tasks = sorted({task for trial in analysis.trials for task in trial.tasks})
    abilities = list(dict.fromkeys([*ABILITIES, *analysis.abilities.values()]))
    groups = {ability: [task for task in tasks if analysis.abilities.get(task) == ability] for ability in [*abilities, None]}
    return {ability: group for ability, group in groups.items() if group}


def title(analysis: Analysis) -> str:
    """Title of the page."""
    pruned = list(dict.fromkeys(trial.pretrained for trial in analysis.trials if not trial.is_dense))
    if not pruned:
        return f"Scores of {_models([trial.pretrained for trial in analysis.trials])}"
    several = len(pruned) > 1
    changed = [trial for trial in analysis.trials if not trial.is_dense]
    ways = ["pruned"] if any(trial.ratio > 0 for trial in changed) else []
    ways += ["quantised"] if any(trial.weight_bits is not None for trial in changed) else []
    return f"What {_models(pruned)} {'lose' if several else 'loses'} when {'they are' if several else 'it is'} {' or '.join(ways)}"


def _models(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return f"{', '.join(names[:-1])} and {names[-1]}" if 1 < len(names) < 4 else names[0] if len(names) == 1 else f"{len(names)} models"


def headline(analysis: Analysis, drop: float) -> Headline:
    """The headline: what the method that keeps most loses first.

    Args:
        drop: the share of the dense score that counts as lost.
    """
    by_label = {each.label: critical_of(analysis, each, drop) for each in analysis.series}
    by_label = {label: by_ability for label, by_ability in by_label.items() if by_ability}
    at_chance = "".join(f"{each.sentence()} " for each in analysis.not_above_chance)
    scores = tuple(each.scores() for each in analysis.not_above_chance)
    if not by_label:
        results = sum(len(trial.tasks) for trial in analysis.trials)
        return Headline(f"{at_chance}{results} scores were read, and none of them falls along a curve: see what is missing.", scores)
    if over_models := [claim for claim in analysis.claims if isinstance(claim.found, ModelsDisparity)]:
        label = over_models[0].label
        matched = analysis.difficulty.sentence(label, drop, caveat=False)
        notes = [*scores, f"{label}: {over_models[0].p_words()}.", *([matched] if matched else [])]
        return Headline(f"{at_chance}{over_models[0].found.sentence()}", tuple(notes))
    all_modules = {each.label: each.settings.get("modules", "all") == "all" for each in analysis.series}
    kept_sum = {each: sum(map(_kept, criticals.values())) for each, criticals in by_label.items()}
    label = max(by_label, key=lambda each: (len(by_label[each]), all_modules[each], kept_sum[each]))
    criticals = [(name_of(ability), critical) for ability, critical in by_label[label].items()]
    kept = all(critical.cell[1] is None for _, critical in criticals)
    parts: list[str] = []
    before = ""
    for name, critical in criticals:
        verb, where = _fate(critical)
        parts.append(f"{name if parts else f'{name.capitalize()} of this model'} {where if verb == before else f'{verb} {where}'}")
        before = verb
    series = next(each for each in analysis.series if each.label == label)
    method = label if label.startswith(series.pretrained) else f"{label}, {series.pretrained}"
    result = analysis.disparities.get((label, drop, True))
    claim = next((claim for claim in analysis.claims if claim.label == label), None)
    if kept and len(criticals) > 1:
        parts = [f"{' and '.join(name for name, _ in criticals).capitalize()} of this model are kept up to {criticals[0][1].last:g}"]
    doubt = "; which of the two fails first is not shown" if result is not None and not result.shown and not kept else ""
    intervals = "; ".join(f"{name} {critical.interval_words()}" for name, critical in criticals)
    notes = [f"Lost: {100 * drop:g} % of the dense score above chance. 95 % intervals of that sparsity: {intervals}."]
    notes = [*scores, *notes, *([f"That one outlasts the other: {claim.p_words()}."] if claim else [])]
    notes += [matched] if (matched := analysis.difficulty.sentence(label, drop, caveat=False)) else []
    notes += [critical.caveat for _, critical in criticals[:1] if critical.caveat]
    if len(by_label) > 1:
        notes.append(f"The sentence is about the method that keeps most; the picture and the table have all {len(by_label)}.")
    return Headline(f"{at_chance}{', '.join(parts)}{doubt}: {method}.", tuple(notes), label)


def critical_of(analysis: Analysis, series: Series, drop: float) -> Mapping[str, Critical]:
    """The critical sparsities of a series by ability, for chance-corrected scores."""
    keys = {ability: (series.label, ability, drop, True) for ability in of_curves(analysis)}
    return {ability: analysis.critical[key] for ability, key in keys.items() if key in analysis.critical}


def _kept(critical: Critical) -> float:
    return critical.last if critical.sparsity is None else critical.sparsity


def _fate(critical: Critical) -> tuple[str, str]:
    """Verb and place. The place of a loss is the first measured sparsity at which the score is lost."""
    return ("is kept", f"up to {critical.last:g}") if critical.cell[1] is None else ("is lost", f"from {critical.cell[1]:g} on")


def first_lost(analysis: Analysis, series: Series, drop: float) -> str:
    """The ability that a method loses first, if the intervals show it."""
    result = analysis.disparities.get((series.label, drop, True))
    if result is None:
        return "-"
    recall, in_context = result.names
    return {"in-context outlasts recall": recall, "recall outlasts in-context": in_context}.get(result.finding, "not shown")
