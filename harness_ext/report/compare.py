"""``harness-ext compare``: compares two folders of results, or two settings in them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_ext.atomic import writing
from harness_ext.errors import shortened
from harness_ext.report.abilities import classify
from harness_ext.report.chosen_scores import ChosenScores
from harness_ext.report.method_pairs import By, MethodPair, by_sparsity, compare_methods, corrected, pair_rows
from harness_ext.report.reading import read
from harness_ext.report.sides import Side, check_dense, settings_of
from harness_ext.report.tables import csv_text
from harness_ext.report.trials import SWITCHES, LoadedTrial, ReportError, argument_notes, merge, of_limit, share_chances
from harness_ext.statistics.checks import RESAMPLES
from harness_ext.sweep.scores import METRICS


@dataclass(frozen=True)
class Compared:
    """Two settings compared, at every sparsity that both have.

    Args:
        names: names of the two settings, made from what differs between them.
        pairs: one comparison for each sparsity, in rising order.
        notes: what is not compared and why, and other differences between the two.
    """

    names: tuple[str, str]
    pairs: tuple[MethodPair, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            "first": self.names[0], "second": self.names[1], "notes": list(self.notes),
            "comparisons": [
                {
                    "sparsities": list(pair.sparsities), "seeds": list(pair.seeds),
                    "tasks": [one.to_dict() | {"mcnemar_p_holm": p_holm} for one, p_holm in tests[: len(pair.tasks)]],
                    "abilities": [one.to_dict() | {"mcnemar_p_holm": p_holm} for one, p_holm in tests[len(pair.tasks) :]],
                }
                for pair, tests in corrected(self.pairs)
            ],
        }  # fmt: skip


def compare_results(
    first: str,
    second: str,
    *,
    recall: Sequence[str] = (),
    in_context: Sequence[str] = (),
    metrics: Sequence[str] = (),
    filters: Sequence[str] = (),
    limit: str | None = None,
    resamples: int = RESAMPLES,
) -> Compared:
    """Compares two folders of results, or two settings of one.

    Args:
        first, second: ``FOLDER``, or ``FOLDER:NAME=VALUE,NAME=VALUE`` for one setting in it.
        recall, in_context, metrics, filters, limit, resamples: as in :func:`harness_ext.report.report`.

    Raises:
        BadOptionError: an argument is not of this form, or no result has the setting.
        ReportError: the two cannot be compared.
    """
    both = [Side.of(first), Side.of(second)]
    loaded: dict[Path, tuple[list[LoadedTrial], list[str]]] = {}
    scores = ChosenScores(tuple(metrics) or METRICS, tuple(filters))
    for side in both:
        if side.path not in loaded:
            trials, gaps = read([side.path], scores)
            if not any(trial.tasks for trial in trials):
                raise ReportError(
                    f"{shortened(side.typed)}: no task has a score that can be compared: {gaps[-1] if gaps else 'there is none'}"
                )
            loaded[side.path] = of_limit(trials, limit) if limit is not None else trials, gaps
    scores.check()
    share_chances([trial for trials, _ in loaded.values() for trial in trials])
    loaded = {path: (merge(trials), gaps) for path, (trials, gaps) in loaded.items()}
    chosen = [side.chosen(loaded[side.path][0]) for side in both]
    if {trial.source for trial in chosen[0]} == {trial.source for trial in chosen[1]}:
        raise ReportError(f"{shortened(first)} and {shortened(second)}: the same results twice; {_advice(both[0])}")
    check_dense(both, chosen, [loaded[side.path][1] for side in both])
    names = _names(both, chosen)
    classes = classify([trial for side in chosen for trial in side], recall, in_context)
    first_by, second_by = map(by_sparsity, chosen)
    matched = _matched(names, first_by, second_by)
    pairs = [compare_methods(names, *sides, classes, resamples=resamples) for sides in matched]
    notes = [gap for _, some_gaps in loaded.values() for gap in some_gaps] + [note for compared in pairs for note in compared.notes]
    notes += argument_notes([trial for side in chosen for trial in side])
    named = all("sparsity" in side.wanted for side in both)
    if not named and not first_by.keys() & second_by.keys() and not any(side[0].is_dense for side in chosen):
        amounts = [", ".join(dict.fromkeys(trial.amount for trial in side)) for side in chosen]
        notes.append(f"no sparsity in common: {names[0]} at {amounts[0]} is compared with {names[1]} at {amounts[1]}")
    for name, by_value, other in ((names[0], first_by, names[1]), (names[1], second_by, names[0])):
        compared_trials = [id(by_seed) for sides in matched for by_seed in sides]
        if left := [sparsity for sparsity, by_seed in by_value.items() if id(by_seed) not in compared_trials]:
            notes.append(f"sparsity {', '.join(left)} of {name} is not compared: {other} has no result of it")
    caveats = [one.difference.caveat for pair in pairs for one in (*pair.tasks, *pair.abilities)]
    notes += [f"some intervals are {caveat}" for caveat in dict.fromkeys(caveats) if caveat]
    return Compared(names, tuple(pairs), tuple(dict.fromkeys(notes)))


def write(compared: Compared, json_file: Path | None, csv_file: Path | None) -> None:
    """Writes the comparison to files. Both formats have all values.

    Raises:
        WriteError: a file cannot be written.
    """
    if json_file is not None:
        with writing(json_file):
            json_file.write_text(json.dumps(compared.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if csv_file is not None:
        text = csv_text("methods", pair_rows(compared.pairs))
        with writing(csv_file):
            csv_file.write_text(text, encoding="utf-8", newline="")


def _matched(names: tuple[str, str], first: dict[str, By], second: dict[str, By]) -> list[tuple[By, By]]:
    """The trials to compare at each common sparsity. If there is none, a side with a single sparsity is compared with all of the other."""
    if both := [(first[sparsity], second[sparsity]) for sparsity in first if sparsity in second]:
        return both
    if len(first) == 1 or len(second) == 1:
        return [(one, other) for one in first.values() for other in second.values()]
    lists = [", ".join(by_value) for by_value in (first, second)]
    raise ReportError(f"no sparsity in common: {names[0]} has {lists[0]}, and {names[1]} has {lists[1]}")


def _differing(trials: Sequence[LoadedTrial]) -> list[str]:
    """Names of the settings that differ among trials, without the sparsity and the seed."""
    descriptions = [settings_of(trial) for trial in trials]
    names = dict.fromkeys(name for description in descriptions for name in description if name not in ("sparsity", "seed"))
    differing = [name for name in names if len({description.get(name) for description in descriptions}) > 1]
    everywhere = [name for name in differing if all(name in description for description in descriptions)]
    return [name for name in everywhere if "." not in name] or everywhere or differing


def _names(sides: Sequence[Side], chosen: Sequence[Sequence[LoadedTrial]]) -> tuple[str, str]:
    """Names of the two sides: the settings in which they differ, else the arguments."""
    differing = _differing([chosen[0][0], chosen[1][0]])
    if any(side[0].is_dense for side in chosen):
        names = ["dense" if side[0].is_dense else side[0].settings.get("pruner", "pruned") for side in chosen]
    else:
        descriptions = [settings_of(side[0]) for side in chosen]
        names = [", ".join(_in_words(name, values[name]) for name in differing if name in values) for values in descriptions]
    if names[0] == names[1] or not all(names):
        names = [shortened(side.typed) for side in sides]
    return names[0], names[1]


def _in_words(name: str, value: str) -> str:
    return f"{value} bits" if name == "bits" else f"{name}={value}" if "." in name or name in SWITCHES else value


def _advice(side: Side) -> str:
    examples = [shlex.quote(f"{side.path}:pruner={pruner}") for pruner in ("wanda", "sparsegpt")]
    return f"want two folders, or two settings of one, as in {' '.join(examples)}"
