"""What a report reads: trials with the scores of their tasks, wherever they were written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness_ext.errors import HarnessExtError, shortened

CHANCE_METRICS = ("acc", "acc_norm")  # what a task declares as chance is the share of items that a guess among the choices gets right
ALL = "all"  # items, where there was no limit


class ReportError(HarnessExtError, ValueError):
    """Results from which no report can be made, or that must not be put side by side."""


@dataclass(frozen=True)
class TaskScore:
    """The score of one trial on one task.

    Args:
        task, version: as in the results.
        metric, filter: which of the scores it is.
        value, stderr: as lm-eval computed them; the error may be None.
        count: the number of items.
        chance: the score of a guess; 0 where nothing tells it.
        chance_declared: whether the items or the task tell the chance.
        own_chance: of the items: the mean of 1/number of choices; None where the records do not tell.
        metadata: of the task, as in the results.
        digests: of the items, by kind: two results that have a digest of the same kind are of the same items if it is equal.
        scores: of each item by its id, None where there are no per-sample records.
        predictions: of the items, see ``answers``; None where the records have none.
        labels: that are right, in the same order; None where the records do not say.
    """

    task: str
    version: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    count: int | None
    chance: float
    chance_declared: bool
    digests: Mapping[str, str]
    scores: Mapping[str, float] | None
    predictions: Sequence[str | int] | None = None
    labels: Sequence[str | int] | None = None
    own_chance: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def corrected(self) -> float:
        return (self.value - self.chance) / (1 - self.chance)


@dataclass
class LoadedTrial:
    """One model, dense or pruned.

    Args:
        source: the folder or file that it was read from.
        pretrained: the name of the model, and ``dense_digest`` of its weights.
        plan: of the pruning record.
        pruning: the pruning record.
        ratio: the sparsity asked for, as a number.
        parameters: of the model, zeros included; None if the results do not say.
        command: that gives the same numbers.
        versions: of what computed them.
        limit: of the items, as lm-eval took it; None if all were asked.
        bits: of a parameter; None if the results do not say.
        date: when the results were written, in seconds since 1970; None if they do not say.
        tasks: by name.
    """

    source: str
    pretrained: str
    pruning: Mapping[str, Any]
    calibration: str | None
    ratio: float
    parameters: int | None
    command: str
    versions: Mapping[str, str]
    limit: float | None = None
    bits: float | None = None
    date: float | None = None
    tasks: dict[str, TaskScore] = field(default_factory=dict)

    @property
    def plan(self) -> Mapping[str, Any]:
        plan: Mapping[str, Any] = self.pruning["plan"]
        return plan

    @property
    def dense_digest(self) -> str:
        return str(self.pruning["dense_digest"])

    @property
    def fingerprint(self) -> str:
        return str(self.pruning["fingerprint"])

    @property
    def is_dense(self) -> bool:
        return self.ratio == 0

    @property
    def sparsity(self) -> str:
        return str(self.plan["sparsity"])

    @property
    def pattern(self) -> bool:
        """Whether N of every M weights go, which is another constraint than a ratio."""
        return ":" in self.sparsity

    @property
    def achieved(self) -> float:
        return float(self.pruning["achieved_sparsity"])

    @property
    def seed(self) -> int | None:
        found = self.plan.get("calibration_options", {}).get("seed")
        return None if self.is_dense or found is None else int(found)

    @property
    def nonzero(self) -> int | None:
        """Parameters less the zeros in the layers that were pruned."""
        if self.parameters is None:
            return None
        return self.parameters - sum(int(entry.get("zeros", 0)) for entry in self.pruning.get("layers", {}).values())

    @property
    def settings(self) -> dict[str, str]:
        """What makes one curve: all that was asked for but the sparsity and the seed."""
        if self.is_dense:
            return {}
        plan, found = self.plan, {name: str(self.plan[name]) for name in ("pruner", "modules", "allocation") if name in self.plan}
        if self.calibration is not None:
            found["calibration"] = self.calibration
        for kind in ("pruner", "allocation", "calibration"):
            for name, value in plan.get(f"{kind}_options", {}).items():
                if (kind, name) != ("calibration", "seed"):
                    found[f"{kind}.{name}"] = json.dumps(value, default=str)
        found |= {"true_sequential": "true"} if plan.get("true_sequential") else {}
        return found | {"precision": str(plan.get("precision", ""))}

    @property
    def name(self) -> str:
        """For messages."""
        if self.is_dense:
            return f"{self.pretrained} dense ({self.source})"
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.pretrained} {self.plan['pruner']} {self.sparsity}{seed} ({self.source})"


def share_chances(trials: Sequence[LoadedTrial]) -> None:
    """Gives the chance of the items, which per-sample records tell, to results of the same items without such records."""
    known: dict[str, list[TaskScore]] = {}
    for trial in trials:
        for task, score in trial.tasks.items():
            if score.own_chance is not None:
                known.setdefault(task, []).append(score)
    for trial in trials:
        for task, score in trial.tasks.items():
            if score.own_chance is None and score.metric in CHANCE_METRICS:
                same = next((other for other in known.get(task, []) if other.metric in CHANCE_METRICS and same_items(score, other)), None)
                if same is not None and same.own_chance is not None:
                    trial.tasks[task] = replace(score, chance=same.own_chance, chance_declared=True, own_chance=same.own_chance)


def merge(trials: list[LoadedTrial]) -> list[LoadedTrial]:
    """One trial for each setting, with all its tasks; the same result twice counts once.

    Raises:
        ReportError: two results of the same trial and task that differ.
    """
    found: dict[tuple[Any, ...], LoadedTrial] = {}
    for trial in trials:
        key = (trial.dense_digest, json.dumps(trial.settings, sort_keys=True), trial.sparsity if not trial.is_dense else "0", trial.seed)
        first = found.setdefault(key, trial)
        if first is trial:
            continue
        for task, score in trial.tasks.items():
            other = first.tasks.get(task)
            if other is None:
                first.tasks[task] = score
                continue
            check_same(first, other, trial, score)
            if other.value != score.value or (other.scores and score.scores and dict(other.scores) != dict(score.scores)):
                raise ReportError(
                    f"task {task!r}: two results of the same trial differ, {other.value:.6g} of {first.name} and {score.value:.6g} of "
                    f"{trial.name}: name only one of them"
                )
            if other.scores is None and score.scores is not None:
                first.tasks[task] = score
    return list(found.values())


def check_same(one: LoadedTrial, score: TaskScore, other: LoadedTrial, compared: TaskScore) -> None:
    """Refuses to put scores of different versions of a task, or of different items, side by side.

    Raises:
        ReportError: names both.
    """
    both = f"{one.name} and {other.name}"
    if score.version != compared.version:
        raise ReportError(f"task {score.task!r}: version {score.version} and version {compared.version} are not the same task: {both}")
    if (score.metric, score.filter) != (compared.metric, compared.filter):
        raise ReportError(
            f"task {score.task!r}: {score.metric} ({score.filter}) and {compared.metric} ({compared.filter}) are not the same score: {both}"
        )
    if score.chance != compared.chance:
        raise ReportError(f"task {score.task!r}: chance {score.chance:g} and {compared.chance:g}: {both}")
    if not same_items(score, compared):
        hint = f"; take those of one --limit: {_limit(one)} or {_limit(other)}" if one.limit != other.limit else ""
        raise ReportError(f"task {score.task!r}: {_items(score)} and {_items(compared)} are not the same items: {both}{hint}")


def same_items(one: TaskScore, other: TaskScore) -> bool:
    """Whether nothing that is known says that two results are of different items."""
    if one.count is not None and other.count is not None and one.count != other.count:
        return False
    if any(other.digests.get(kind, digest) != digest for kind, digest in one.digests.items()):
        return False
    return one.scores is None or other.scores is None or one.scores.keys() == other.scores.keys()


def of_limit(trials: list[LoadedTrial], limit: str) -> list[LoadedTrial]:
    """Those that were evaluated with a limit.

    Args:
        limit: ``all`` for those without one, or as for ``lm_eval --limit``.

    Raises:
        ReportError: there are none.
    """
    found = [trial for trial in trials if _limit(trial) == (limit if limit == ALL else _number(limit))]
    if not found:
        there = sorted({_limit(trial) for trial in trials})
        raise ReportError(f"--limit {shortened(limit)}: no results of that limit; there are {' and '.join(there)}")
    return found


def _limit(trial: LoadedTrial) -> str:
    return ALL if trial.limit is None else f"{trial.limit:g}"


def _number(limit: str) -> str:
    try:
        return f"{float(limit):g}"
    except ValueError:
        raise ReportError(f"--limit {shortened(limit)}: want {ALL}, or a number of items such as 64") from None


def _items(score: TaskScore) -> str:
    digest = next(iter(score.digests.values()), None)
    return f"{score.count} items" + (f" (digest {digest[:16]})" if digest else "")
