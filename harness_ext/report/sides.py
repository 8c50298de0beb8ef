"""The two sides of ``harness-ext compare``: a folder of results, or one setting in it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness_ext.errors import BadOptionError, did_you_mean, shortened
from harness_ext.report.trials import SWITCHES, LoadedTrial, ReportError

SETTING = re.compile(r"(?P<path>.*?):(?P<settings>[A-Za-z_][\w.]*=.*)", re.DOTALL)
PARTS = re.compile(r'"(?:[^"\\]|\\.)*"|,|[^,"]+|"', re.DOTALL)  # a text in double quotes may have commas
NONE = "none"  # the value of a setting that a result does not have
DIGEST = "dense_digest"  # the setting that tells models of the same name apart
EXAMPLES = 4  # as many settings does a message list


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Args:
        typed: the argument, ``FOLDER`` or ``FOLDER:NAME=VALUE,NAME=VALUE``.
        path: path of the results.
        wanted: values of settings by name.
    """

    typed: str
    path: Path
    wanted: Mapping[str, str]

    @classmethod
    def of(cls, typed: str) -> Side:
        """Parses the argument. An argument that is an existing path has no settings.

        Raises:
            BadOptionError: the argument is empty, its path is impossible, a setting is given twice, or ``=`` is missing.
        """
        if not typed:
            raise BadOptionError("'': want a folder of results, or one setting in it, such as runs/first:pruner=wanda")
        try:
            match = None if Path(typed).exists() else SETTING.fullmatch(typed)
        except OSError as error:
            raise BadOptionError(f"{shortened(typed)}: {error.strerror}") from error
        if not match:
            return cls(typed, Path(typed), {})
        wanted: dict[str, str] = {}
        for setting in _split(match["settings"]):
            name, equals, value = setting.partition("=")
            if not equals or not name or not value:
                raise BadOptionError(f"{shortened(typed)}: {shortened(setting)!r}: want NAME=VALUE, such as pruner=wanda")
            if name in wanted:
                raise BadOptionError(f"{shortened(typed)}: {shortened(name)} is given twice")
            wanted[name] = _unquoted(value)
        return cls(typed, Path(match["path"]), wanted)

    def with_settings(self, settings: Mapping[str, str]) -> str:
        """The argument for these settings of the same results, as a word for a shell. The settings that were typed come first."""
        both = {**self.wanted, **{name: value for name, value in settings.items() if name not in self.wanted}}
        return shlex.quote(f"{self.path}:{_written(both)}")

    @property
    def names_dense(self) -> bool:
        """Whether the argument asks for a dense model: a sparsity of 0, or a file, which has one result."""
        return self.path.is_file() or _loosely_equal(self.wanted.get("sparsity", NONE), "0")

    def chosen(self, trials: Sequence[LoadedTrial]) -> list[LoadedTrial]:
        """The trials that have the wanted settings. Dense trials count only if there are no others.

        Raises:
            BadOptionError: no trial has the setting.
            ReportError: the trials have several settings.
        """
        found = self._with_wanted(trials)
        several = list({(trial.dense_digest, *sorted(trial.settings.items())): trial for trial in found}.values())
        if len(several) > 1:
            names = telling_apart([described(trial) for trial in several], self.wanted)
            settings = [{name: described(trial).get(name, NONE) for name in names} for trial in several]
            there = "; ".join(map(_written, settings[:EXAMPLES])) + (" and more" if len(several) > EXAMPLES else "")
            raise ReportError(
                f"{shortened(self.typed)}: {len(several)} settings, want one; name it, as in {self.with_settings(settings[0])} "
                f"(there are {there})"
            )
        return found

    def _with_wanted(self, trials: Sequence[LoadedTrial]) -> list[LoadedTrial]:
        found = list(trials)
        descriptions = {id(trial): described(trial) for trial in trials}
        for name, value in self.wanted.items():
            known = sorted({other for description in descriptions.values() for other in description})
            if name not in known:
                raise BadOptionError(
                    f"{shortened(self.typed)}: no setting {shortened(name)!r}.{did_you_mean(name, known)} Settings: {', '.join(known)}"
                )
            values = {id(trial): descriptions[id(trial)].get(name, NONE) for trial in trials}
            same = [trial for trial in found if values[id(trial)] == value]
            found = same or [trial for trial in found if _loosely_equal(values[id(trial)], value)]
            if not found:
                there = sorted({values[id(trial)] for trial in trials if name in descriptions[id(trial)] or not trial.is_dense})
                raise BadOptionError(
                    f"{shortened(self.typed)}: no result with {shortened(name)}={shortened(value)}"
                    f"{' and the settings before it' if value in there else ''}; the results have {name} {', '.join(there)}"
                )
        return [trial for trial in found if not trial.is_dense] or found


def check_dense(sides: Sequence[Side], chosen: Sequence[Sequence[LoadedTrial]], left_out: Sequence[Sequence[str]]) -> None:
    """Checks that a dense and a pruned model are compared only if the argument names the dense model.

    Args:
        sides: the two arguments.
        chosen: the trials of each.
        left_out: what was left out of the results of each, and why.

    Raises:
        ReportError: the argument of the dense model does not name it.
    """
    dense = [trials[0].is_dense for trials in chosen]
    if dense[0] == dense[1] or sides[dense.index(True)].names_dense:
        return
    side, gaps = sides[dense.index(True)], left_out[dense.index(True)]
    have = [
        f"{shortened(one.typed)} has {'only a dense model' if of_dense else _amounts(trials)}"
        for one, of_dense, trials in zip(sides, dense, chosen, strict=True)
    ]
    more = f" and {len(gaps) - 1} more" if len(gaps) > 1 else ""
    raise ReportError(
        f"{', and '.join(have)}: want two pruned models; to compare the dense model, name it, as in {side.with_settings({'sparsity': '0'})}"
        + (f" (left out: {gaps[0]}{more})" if gaps else "")
    )


def described(trial: LoadedTrial) -> dict[str, str]:
    """All settings of a trial that an argument may name."""
    own = settings_of(trial) | ({} if trial.seed is None else {"seed": str(trial.seed)})
    return {name: value for name, value in (dict(trial.arguments) | own | {DIGEST: trial.dense_digest}).items() if value}


def settings_of(trial: LoadedTrial) -> dict[str, str]:
    """The model, the sparsity, and the settings of the pruning."""
    settings = ({} if trial.is_dense else SWITCHES) | {name: value.strip('"') for name, value in trial.settings.items()}
    return {"pretrained": trial.pretrained, "sparsity": trial.sparsity} | settings


def telling_apart(descriptions: Sequence[Mapping[str, str]], wanted: Mapping[str, str]) -> list[str]:
    """Names of settings whose values differ between any two of the descriptions: few, and those that all have if they suffice.

    Args:
        wanted: settings that were named already.
    """
    names = dict.fromkeys(name for description in descriptions for name in description if name not in ("sparsity", "seed", *wanted))
    order = sorted(names, key=lambda name: (name == DIGEST, not all(name in description for description in descriptions), "." in name))
    chosen: list[str] = []

    def different(more: Sequence[str]) -> int:
        return len({tuple(description.get(name, NONE) for name in more) for description in descriptions})

    while (most := max((different([*chosen, name]) for name in order), default=0)) > max(1, different(chosen)):
        chosen.append(next(name for name in order if different([*chosen, name]) == most))
    for name in reversed(chosen):
        if different(others := [other for other in chosen if other != name]) == different(chosen):
            chosen = others
    return chosen


def _loosely_equal(value: str, wanted: str) -> bool:
    """Whether a value equals the typed one, as a number or without regard to case."""
    try:
        return float(value) == float(wanted)
    except ValueError:
        return value.lower() == wanted.lower()


def _amounts(trials: Sequence[LoadedTrial]) -> str:
    return ", ".join(dict.fromkeys(f"{trial.settings.get('pruner', 'pruned')} {trial.amount}" for trial in trials))


def _written(settings: Mapping[str, str]) -> str:
    """Settings as an argument has them. A value with a comma is in double quotes."""
    values = {name: json.dumps(value, ensure_ascii=False) if set(value) & set(',"') else value for name, value in settings.items()}
    return ",".join(f"{name}={value}" for name, value in values.items())


def _split(settings: str) -> list[str]:
    """The settings between commas."""
    parts = [""]
    for part in PARTS.findall(settings):
        if part == ",":
            parts.append("")
        else:
            parts[-1] += part
    return parts


def _unquoted(value: str) -> str:
    if len(value) > 2 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value, strict=False))
        except ValueError:
            return value
    return value
