"""``harness-ext compare``: two sides, each of which is a folder of results or one setting in it."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_ext.atomic import writing
from harness_ext.errors import BadOptionError, did_you_mean, shortened
from harness_ext.report.abilities import classify
from harness_ext.report.method_pairs import By, MethodPair, by_sparsity, pair
from harness_ext.report.reading import read
from harness_ext.report.trials import LoadedTrial, ReportError, merge, of_limit, share_chances
from harness_ext.statistics import MethodDifference, holm
from harness_ext.sweep.scores import METRICS

SETTING = re.compile(r"(?P<path>.*?):(?P<settings>[A-Za-z_][\w.]*=.*)", re.DOTALL)
DENSE = "0"
COLUMNS = (
    "first", "second", "first_sparsity", "second_sparsity", "seeds", "kind", "name", "tasks", "items", "first_score", "second_score",
    "difference", "low", "high", "level", "seed", "mcnemar_p", "mcnemar_p_holm", "only_first_right", "only_second_right", "method",
    "caveat",
)  # fmt: skip


@dataclass(frozen=True)
class Side:
    """What was given for one side of a comparison.

    Args:
        typed: as it was given, ``FOLDER`` or ``FOLDER:NAME=VALUE,NAME=VALUE``.
        path: of the results.
        wanted: settings by name.
    """

    typed: str
    path: Path
    wanted: Mapping[str, str]

    @classmethod
    def of(cls, typed: str) -> Side:
        """Reads what was typed; a path that exists is taken as it is.

        Raises:
            BadOptionError: nothing, no possible path, a setting that is given twice, or no ``=``.
        """
        if not typed:
            raise BadOptionError("'': want a folder of results, or one setting in it, such as runs/first:pruner=wanda")
        try:
            found = None if Path(typed).exists() else SETTING.fullmatch(typed)
        except OSError as error:
            raise BadOptionError(f"{shortened(typed)}: {error.strerror}") from error
        if not found:
            return cls(typed, Path(typed), {})
        wanted: dict[str, str] = {}
        for word in found["settings"].split(","):
            name, equals, value = word.partition("=")
            if not equals or not name or not value:
                raise BadOptionError(f"{shortened(typed)}: {shortened(word)!r}: want NAME=VALUE, such as pruner=wanda")
            if name in wanted:
                raise BadOptionError(f"{shortened(typed)}: {shortened(name)} is given twice")
            wanted[name] = value
        return cls(typed, Path(found["path"]), wanted)


@dataclass(frozen=True)
class Compared:
    """Two settings compared, at every sparsity that both have.

    Args:
        names: of the two, by what differs between them.
        pairs: one for each sparsity, rising.
        notes: what is not compared and why, and in what else the two differ.
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
                    "sparsities": list(found.sparsities), "seeds": list(found.seeds),
                    "tasks": [one.to_dict() | {"mcnemar_p_holm": p_holm} for one, p_holm in tests[: len(found.tasks)]],
                    "abilities": [one.to_dict() | {"mcnemar_p_holm": p_holm} for one, p_holm in tests[len(found.tasks) :]],
                }
                for found, tests in corrected(self.pairs)
            ],
        }  # fmt: skip


def compare_results(
    first: str,
    second: str,
    *,
    recall: Sequence[str] = (),
    in_context: Sequence[str] = (),
    metrics: Sequence[str] = (),
    limit: str | None = None,
    resamples: int = 2000,
) -> Compared:
    """Compares two folders of results, or two settings of one.

    Args:
        first, second: ``FOLDER``, or ``FOLDER:NAME=VALUE,NAME=VALUE`` for one setting in it.
        recall, in_context, metrics, limit, resamples: as for a report.

    Raises:
        BadOptionError: what was given is no setting, or no result has it.
        ReportError: the two cannot be compared.
    """
    sides = [Side.of(first), Side.of(second)]
    loaded: dict[Path, tuple[list[LoadedTrial], list[str]]] = {}
    for side in sides:
        if side.path not in loaded:
            trials, gaps = read([side.path], tuple(metrics) or METRICS)
            if not any(trial.tasks for trial in trials):
                raise ReportError(
                    f"{shortened(side.typed)}: no task has a score that can be compared: {gaps[-1] if gaps else 'there is none'}"
                )
            loaded[side.path] = of_limit(trials, limit) if limit is not None else trials, gaps
    share_chances([trial for trials, _ in loaded.values() for trial in trials])
    loaded = {path: (merge(trials), gaps) for path, (trials, gaps) in loaded.items()}
    chosen = [_chosen(side, loaded[side.path][0]) for side in sides]
    if {trial.source for trial in chosen[0]} == {trial.source for trial in chosen[1]}:
        raise ReportError(f"{shortened(first)} and {shortened(second)}: the same results twice; {_advice(sides[0].path)}")
    names = _names(sides, chosen)
    classes = classify([trial for side in chosen for trial in side], recall, in_context)
    pairs = [pair(names, *two, classes, resamples=resamples) for two in _matched(names, *map(by_sparsity, chosen))]
    notes = [gap for _, found in loaded.values() for gap in found] + [note for found in pairs for note in found.notes]
    return Compared(names, tuple(pairs), tuple(dict.fromkeys(notes)))


def write(found: Compared, json_file: Path | None, csv_file: Path | None) -> None:
    """Writes the comparison to files; every value is in both.

    Raises:
        WriteError: a file cannot be written.
    """
    if json_file is not None:
        with writing(json_file):
            json_file.write_text(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if csv_file is not None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(pair_rows(found.pairs))
        with writing(csv_file):
            csv_file.write_text(text.getvalue(), encoding="utf-8", newline="")


def corrected(pairs: Sequence[MethodPair]) -> list[tuple[MethodPair, list[tuple[MethodDifference, list[float]]]]]:
    """Each pair with its tasks and abilities, and for each of these the p-values of ``mcnemar`` after Holm's correction for all tests of
    all pairs.
    """
    differences = [(found, [*found.tasks, *found.abilities]) for found in pairs]
    p_values = iter(holm([test.p_value for _, every in differences for one in every for test in one.mcnemar]))
    return [(found, [(one, list(itertools.islice(p_values, len(one.mcnemar)))) for one in every]) for found, every in differences]


def pair_rows(pairs: Sequence[MethodPair]) -> list[dict[str, Any]]:
    """The rows of ``COLUMNS``: one for each task and ability, and where there are several seeds one for the test of each seed as well."""
    return [
        row
        for found, tests in corrected(pairs)
        for index, (one, p_holm) in enumerate(tests)
        for row in _rows(found, "task" if index < len(found.tasks) else "ability", one, p_holm)
    ]


def _rows(found: MethodPair, kind: str, one: MethodDifference, p_holm: Sequence[float]) -> list[dict[str, Any]]:
    row = {
        "first": found.first, "second": found.second, "first_sparsity": found.sparsities[0], "second_sparsity": found.sparsities[1],
        "seeds": " ".join(map(str, found.seeds)), "kind": kind, "name": one.name, "tasks": " ".join(one.tasks), "items": one.items,
        "first_score": one.first, "second_score": one.second, "difference": one.difference.value, "low": one.difference.low,
        "high": one.difference.high, "level": one.difference.level, "method": one.difference.method, "caveat": one.difference.caveat,
        "seed": None, "mcnemar_p": None, "mcnemar_p_holm": None, "only_first_right": None, "only_second_right": None,
    }  # fmt: skip
    seeds = found.seeds or (None,)
    tests = [
        {
            "seed": seed, "mcnemar_p": test.p_value, "mcnemar_p_holm": p, "only_first_right": test.right_to_wrong,
            "only_second_right": test.wrong_to_right,
        }
        for seed, test, p in zip(seeds, one.mcnemar, p_holm, strict=bool(one.mcnemar))
    ]  # fmt: skip
    if len(tests) < 2:
        return [row | (tests[0] if tests else {})]
    return [row] + [row | {"kind": f"{kind}, one seed"} | test for test in tests]


def _chosen(side: Side, trials: Sequence[LoadedTrial]) -> list[LoadedTrial]:
    """The trials of one setting: those that have what is wanted, dense ones only if there are no others.

    Raises:
        BadOptionError: no such setting.
        ReportError: there are several settings.
    """
    found = list(trials)
    for name, value in side.wanted.items():
        every = [_described(trial) for trial in trials]
        known = sorted({other for described in every for other in described})
        if name not in known:
            raise BadOptionError(
                f"{shortened(side.typed)}: no setting {shortened(name)!r}.{did_you_mean(name, known)} Settings: {', '.join(known)}"
            )
        there = sorted({described[name] for described in every if name in described})
        found = [trial for trial in found if _equal(_described(trial).get(name), value)]
        if not found:
            raise BadOptionError(
                f"{shortened(side.typed)}: no result with {shortened(name)}={shortened(value)}"
                f"{' and the settings before it' if value in there else ''}; the results have {name} {', '.join(there)}"
            )
    found = [trial for trial in found if not trial.is_dense] or found
    settings = {(trial.dense_digest, *sorted(trial.settings.items())): trial for trial in found}
    if len(settings) > 1:
        differing = _differing(list(settings.values()))
        examples = "; ".join(_written(trial, differing) for trial in list(settings.values())[:4])
        raise ReportError(
            f"{shortened(side.typed)}: {len(settings)} settings, want one; name it, as in {shortened(side.path)}:"
            f"{_written(next(iter(settings.values())), differing)} (there are {examples}{' and more' if len(settings) > 4 else ''})"
        )
    return found


def _matched(names: tuple[str, str], first: dict[str, By], second: dict[str, By]) -> list[tuple[By, By]]:
    """The trials to compare: at the sparsities that both have, or all against the one sparsity that was chosen for a side."""
    if both := [(first[sparsity], second[sparsity]) for sparsity in first if sparsity in second]:
        return both
    if len(first) == 1 or len(second) == 1:
        return [(one, other) for one in first.values() for other in second.values()]
    lists = [", ".join(of) for of in (first, second)]
    raise ReportError(f"no sparsity in common: {names[0]} has {lists[0]}, and {names[1]} has {lists[1]}")


def _described(trial: LoadedTrial) -> dict[str, str]:
    """All settings that a side may name."""
    seed = {} if trial.seed is None else {"seed": str(trial.seed)}
    settings = {name: value.strip('"') for name, value in trial.settings.items()}
    return {"pretrained": trial.pretrained, "sparsity": DENSE if trial.is_dense else trial.sparsity} | settings | seed


def _equal(found: str | None, wanted: str) -> bool:
    """Whether a value is the one that was typed, as a text or as a number."""
    if found is None:
        return False
    try:
        return found == wanted or float(found) == float(wanted)
    except ValueError:
        return found.lower() == wanted.lower()


def _differing(trials: Sequence[LoadedTrial]) -> list[str]:
    """The names of the settings that are not the same in all trials, the sparsity and the seed left out."""
    every = [_described(trial) for trial in trials]
    names = dict.fromkeys(name for described in every for name in described if name not in ("sparsity", "seed"))
    found = [name for name in names if len({described.get(name) for described in every}) > 1]
    everywhere = [name for name in found if all(name in described for described in every)]
    return [name for name in everywhere if "." not in name] or everywhere or found


def _written(trial: LoadedTrial, names: Sequence[str]) -> str:
    described = _described(trial)
    if trial.is_dense:
        return "sparsity=0"
    return ",".join(f"{name}={described[name]}" for name in names if name in described) or "the same settings"


def _names(sides: Sequence[Side], chosen: Sequence[Sequence[LoadedTrial]]) -> tuple[str, str]:
    """What the two are called: by the settings in which they differ, else by what was typed."""
    differing = _differing([chosen[0][0], chosen[1][0]])
    if any(side[0].is_dense for side in chosen):
        names = ["dense" if side[0].is_dense else side[0].settings.get("pruner", "pruned") for side in chosen]
    else:
        every = [_described(side[0]) for side in chosen]
        names = [", ".join(of[name] if "." not in name else f"{name}={of[name]}" for name in differing if name in of) for of in every]
    if names[0] == names[1] or not all(names):
        names = [shortened(side.typed) for side in sides]
    return names[0], names[1]


def _advice(path: Path) -> str:
    return f"want two folders, or two settings of one, as in {shortened(path)}:pruner=wanda {shortened(path)}:pruner=sparsegpt"
