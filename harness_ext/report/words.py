"""Texts of the page: the headline, and the names of abilities and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness_ext.report.abilities import ABILITIES, NAMES
from harness_ext.report.analysis import Analysis
from harness_ext.report.claims import Claim
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
    """The headline: what one method loses first. It is the method that keeps most, see ``_chosen``.

    Args:
        drop: the share of the dense score that counts as lost.
    """
    by_label = {each.label: critical_of(analysis, each, drop) for each in analysis.series}
    by_label = {label: by_ability for label, by_ability in by_label.items() if by_ability}
    at_chance = "".join(f"{each.sentence()} " for each in analysis.not_above_chance)
    scores = tuple(each.scores() for each in analysis.not_above_chance)
    if not by_label:
        results = sum(len(trial.tasks) for trial in analysis.trials)
        perplexities = sum(len(trial.perplexities) for trial in analysis.trials)
        if perplexities and not results:
            return Headline(f"{perplexities} perplexities were read, and no score of a task: a perplexity says nothing of an ability.", ())
        return Headline(
            f"{at_chance}{results} scores were read, and none of them is on a curve over sparsities: see what is missing.", scores
        )
    if over_models := [claim for claim in analysis.claims if isinstance(claim.found, ModelsDisparity)]:
        label = over_models[0].label
        matched = analysis.difficulty.sentence(label, drop, caveat=False)
        notes = [*scores, f"{label}: {over_models[0].p_words()}.", *([matched] if matched else [])]
        notes += [words for each in analysis.series if (words := left_out_words(analysis, each.label, named=True))]
        return Headline(f"{at_chance}{over_models[0].found.sentence(shown=over_models[0].shown)}", tuple(notes))
    label, keeps_most = _chosen(analysis, by_label)
    kept = all(critical.high is None for critical in by_label[label].values())
    series = next(each for each in analysis.series if each.label == label)
    method = label if label.startswith(series.pretrained) else f"{label}, {series.pretrained}"
    claim = claim_of(analysis, label)
    result = analysis.disparities.get((label, drop, True))
    shown = claim.shown if claim else result is None or result.shown
    doubt = "" if shown or kept else "; which of the two fails first is not shown"
    criticals = [(name_of(ability), critical) for ability, critical in by_label[label].items()]
    intervals = "; ".join(f"{name} {critical.interval_words()}" for name, critical in criticals)
    notes = [f"Lost: {100 * drop:g} % of the dense score above chance. 95 % intervals of that sparsity: {intervals}."]
    notes = [*scores, *notes, *([f"That one outlasts the other: {claim.p_words()}."] if claim else [])]
    notes += [words] if (words := left_out_words(analysis, label)) else []
    notes += [matched] if (matched := analysis.difficulty.sentence(label, drop, caveat=False)) else []
    notes += [f"These intervals are {critical.caveat}." for _, critical in criticals[:1] if critical.caveat]
    if len(by_label) > 1:
        which = "the method that keeps most" if keeps_most else f"one of {len(by_label)} methods; that it keeps most is not shown"
        notes.append(f"The sentence is about {which}. The picture and the table have all {len(by_label)}.")
    return Headline(f"{at_chance}{_fates(analysis, label, by_label[label])}{doubt}: {method}.", tuple(notes), label)


def _chosen(analysis: Analysis, by_label: Mapping[str, Mapping[str, Critical]]) -> tuple[str, bool]:
    """The method of the headline, and whether it is shown that it keeps most.

    Among methods with curves of the most abilities, those that prune all linear layers come first, and then the one with the largest sum of
    critical sparsities. Methods are compared up to the largest sparsity that all of them have: nothing is known of a method beyond its
    own. Of methods that are equal up to there, the one that was measured farthest is chosen.
    """
    last = min(critical.last for criticals in by_label.values() for critical in criticals.values())
    all_modules = {each.label: each.settings.get("modules", "all") == "all" for each in analysis.series}

    def rank(label: str) -> tuple[int, bool, float, float]:
        criticals = by_label[label].values()
        kept = sum(last if critical.sparsity is None else min(last, critical.sparsity) for critical in criticals)
        return len(criticals), all_modules[label], kept, min(critical.last for critical in criticals)

    label = max(by_label, key=rank)
    return label, all(_keeps_more(by_label[label], others, last) for other, others in by_label.items() if other != label)


def _keeps_more(one: Mapping[str, Critical], other: Mapping[str, Critical], last: float) -> bool:
    """Whether the intervals show that a method keeps more than another, up to a sparsity that both have."""
    if one.keys() != other.keys():
        return False
    low = {ability: min(last, critical.low) for ability, critical in one.items()}
    high = {ability: last if critical.high is None else min(last, critical.high) for ability, critical in other.items()}
    lost = [ability for ability, critical in other.items() if critical.high is not None and critical.high <= low[ability]]
    return bool(lost) and sum(low.values()) >= sum(high.values())


def _fates(analysis: Analysis, label: str, criticals: Mapping[str, Critical]) -> str:
    """``Recall of this model is lost from 0.3 on, in-context ability is kept up to 0.7``."""
    fates = {ability: _fate(critical, analysis.left_out.get((label, ability), ())) for ability, critical in criticals.items()}
    if len(fates) > 1 and len(set(fates.values())) == 1 and all(critical.censored for critical in criticals.values()):
        verb, where = next(iter(fates.values()))
        return f"{' and '.join(map(name_of, fates)).capitalize()} of this model {verb.replace('is ', 'are ', 1)} {where}"
    parts: list[str] = []
    before = ""
    for ability, (verb, where) in fates.items():
        name = name_of(ability)
        parts.append(f"{name if parts else f'{name.capitalize()} of this model'} {where if verb == before else f'{verb} {where}'}")
        before = verb
    return ", ".join(parts)


def _fate(critical: Critical, left_out: Sequence[float]) -> tuple[str, str]:
    """Verb and place. The place of a loss is the first sparsity of the curve at which the score is lost.

    Where the interval has no upper end, a loss is not shown: the score may be kept at all sparsities. It is kept up to the lower end.

    Args:
        left_out: sparsities that were measured and are not in the curve. Those that could change the place are named.
    """
    below, above = critical.cell
    if critical.high is not None:
        verb, where = "is lost", f"from {above:g} on"
    elif critical.low > 0:
        verb, where = "is kept", f"up to {critical.low:g}" + (" at least" if critical.low < critical.last else "")
    else:
        verb, where = "is not shown to be lost", f"up to {critical.last:g}"
    unknown = " and ".join(f"{place:g}" for place in left_out if below < place and (above is None or place < above))
    return verb, f"{where} ({unknown} could not be used)" if unknown else where


def left_out_words(analysis: Analysis, label: str, *, named: bool = False) -> str:
    """What was measured of a method and is not in its curves; nothing if all is.

    Args:
        named: whether to begin with the label.
    """
    parts = [
        f"{', '.join(f'{sparsity:g}' for sparsity in analysis.left_out[label, ability])} of {NAMES[ability]}"
        for ability in NAMES if (label, ability) in analysis.left_out
    ]  # fmt: skip
    seeds = analysis.left_out_seeds.get(label, ())
    parts += [f"calibration seed {', '.join(map(str, seeds))}"] if seeds else []
    if not parts:
        return ""
    return f"Measured and left out{f' ({label})' if named else ''}: {'; '.join(parts)}. Run the missing trials, see what is missing."


def claim_of(analysis: Analysis, label: str) -> Claim | None:
    """The headline statement about a method, if there is one."""
    return next((claim for claim in analysis.claims if claim.label == label), None)


def critical_of(analysis: Analysis, series: Series, drop: float) -> Mapping[str, Critical]:
    """The critical sparsities of a series by ability, for chance-corrected scores."""
    keys = {ability: (series.label, ability, drop, True) for ability in of_curves(analysis)}
    return {ability: analysis.critical[key] for ability, key in keys.items() if key in analysis.critical}


def first_lost(analysis: Analysis, series: Series, drop: float) -> str:
    """The ability that a method loses first, if it is shown after the correction for the number of statements."""
    result, claim = analysis.disparities.get((series.label, drop, True)), claim_of(analysis, series.label)
    if result is None:
        return "-"
    if claim is not None and claim.found is result and not claim.shown:
        return "not shown"
    recall, in_context = result.names
    return {"in-context outlasts recall": recall, "recall outlasts in-context": in_context}.get(result.finding, "not shown")
