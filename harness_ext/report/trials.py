"""Trials with the scores of their tasks, from sweep folders or results of lm-eval."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness_ext.errors import HarnessExtError, shortened
from harness_ext.report.margins import Margins
from harness_ext.report.perplexities import Key, Perplexity
from harness_ext.report.run_arguments import GENERATION, difference

CHANCE_METRICS = ("acc", "acc_norm")  # the declared chance of a task is the score of a guess among the choices
ALL = "all"  # the limit of a trial that used all items
SWITCHES = {"true_sequential": "false", "experts": "routed"}  # settings of a plan that are left out where they have these values


class ReportError(HarnessExtError, ValueError):
    """Results from which no report can be made, or which cannot be compared."""


@dataclass(frozen=True)
class TaskScore:
    """The score of one trial on one task.

    Args:
        task, version: as in the results.
        metric, filter: names of the score and of its filter.
        value, stderr: score and standard error from lm-eval. The error may be None.
        count: number of items.
        chance: score of a guess; 0 if it is unknown.
        chance_declared: whether the chance is known from the items or from the task.
        digests: digests of the items, by kind. Two results with equal digests of one kind are of the same items.
        prompts: how prompts and answers are made of the items, in words by kind: few-shot examples, chat template, system
            instruction, generation.
        scores: score of each item by its id; None without per-sample records.
        predictions: answers to the items, see ``answers``; None if the records have none.
        labels: right answers in the same order; None if the records do not tell them.
        own_chance: chance computed from the items, the mean of 1 / number of choices; None if the records do not tell it.
        metadata: metadata of the task, as in the results.
        margins: how far the right answers are ahead, of the dense model only; None without per-sample records.
        recall: all scores of a recall task by name, such as ``recall_at_5``; empty for other tasks.
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
    margins: Margins | None = None
    recall: Mapping[str, float] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)

    @property
    def corrected(self) -> float:
        return (self.value - self.chance) / (1 - self.chance)

    def in_order(self, ids: Sequence[str]) -> list[float]:
        """The scores of items in the order of their ids, for a task with per-sample records."""
        scores = self.scores or {}
        return [scores[key] for key in ids]


@dataclass
class LoadedTrial:
    """One model, dense, pruned or quantised.

    Args:
        source: the folder or file of the results.
        pretrained: name of the model.
        pruning: the pruning record.
        calibration: source of the calibration text; None if nothing was calibrated.
        ratio: requested sparsity, as a number.
        parameters: number of parameters, including zeros; None if unknown.
        command: a command that gives the same numbers.
        versions: versions of the libraries that computed the results, by name.
        limit: ``--limit`` of lm-eval; None if all items were used.
        bits: bits per parameter; None if unknown.
        date: when the results were written, in seconds since 1970; None if unknown.
        from_checkpoint: whether the loaded weights were those of a pruned or quantised checkpoint.
        tasks: scores by task.
        deciding: model arguments that change prompts or answers, in words; empty if they are unknown.
        arguments: other model arguments that may change scores, without those of the pruning, in words.
        perplexities: by what they are of; such a task may have a score as well.
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
    from_checkpoint: bool = False
    tasks: dict[str, TaskScore] = field(default_factory=dict)
    deciding: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    perplexities: dict[Key, Perplexity] = field(default_factory=dict)

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
    def weight_bits(self) -> int | None:
        """Bits of a quantised weight; None where weights are not quantised."""
        bits = self.plan.get("bits", self.pruning.get("before", {}).get("bits"))
        return None if bits is None else int(bits)

    @property
    def is_dense(self) -> bool:
        return self.ratio == 0 and self.weight_bits is None

    @property
    def amount(self) -> str:
        """What was done to the weights, for a cell of a table: ``0.5``, ``4 bits``, or ``4 bits, sparsity 0.5``."""
        return amount(self.weight_bits, self.sparsity)

    @property
    def sparsity(self) -> str:
        """The sparsity that was asked for: ``0.5``, ``2:4``, or ``0`` for a dense model."""
        return "0" if self.is_dense else str(self.plan["sparsity"])

    @property
    def pattern(self) -> bool:
        """Whether the sparsity is an N:M pattern."""
        return ":" in self.sparsity

    @property
    def achieved(self) -> float:
        return float(self.pruning["achieved_sparsity"])

    @property
    def layers(self) -> dict[str, Mapping[str, Any]]:
        """The entries of the pruning record that count ``weights`` and ``zeros``, by the name of the linear layer."""
        entries: Mapping[str, Mapping[str, Any]] = self.pruning.get("layers", {})
        return {name: entry for name, entry in entries.items() if entry.get("weights") and "zeros" in entry}

    @property
    def seed(self) -> int | None:
        seed = self.plan.get("calibration_options", {}).get("seed")
        return None if self.is_dense or seed is None else int(seed)

    @property
    def nonzero(self) -> int | None:
        """Number of parameters without the zeros in pruned layers."""
        if self.parameters is None:
            return None
        return self.parameters - sum(int(entry.get("zeros", 0)) for entry in self.pruning.get("layers", {}).values())

    @property
    def settings(self) -> dict[str, str]:
        """All pruning settings but the sparsity and the seed. Trials with the same settings make one curve, unless they are quantised."""
        if self.is_dense:
            return {}
        plan, settings = self.plan, {name: str(self.plan[name]) for name in ("pruner", "modules", "allocation") if name in self.plan}
        if self.calibration is not None:
            settings["calibration"] = self.calibration
        for kind in ("pruner", "allocation", "calibration"):
            for name, value in plan.get(f"{kind}_options", {}).items():
                if (kind, name) != ("calibration", "seed"):
                    settings[f"{kind}.{name}"] = json.dumps(value, default=str)
        settings |= {"bits": str(self.weight_bits)} if self.weight_bits is not None else {}
        if "before" in self.pruning:
            settings["before"] = str(self.pruning["before"]["words"])
        switches = {name: str(plan[name]).lower() for name in SWITCHES if name in plan}
        settings |= {name: value for name, value in switches.items() if value != SWITCHES[name]}
        return settings | {"precision": str(plan.get("precision", ""))}

    def columns(self, series: str | None) -> dict[str, Any]:
        """The columns of a table that say which trial a row is of.

        Args:
            series: label of its series, if it has one.
        """
        return {
            "model": self.pretrained, "series": series, "pruner": self.settings.get("pruner"), "sparsity": self.sparsity, "seed": self.seed,
            "fingerprint": self.fingerprint, "bits": self.weight_bits,
        }  # fmt: skip

    @property
    def name(self) -> str:
        """A name for messages."""
        if self.is_dense:
            return f"{self.pretrained} dense ({self.source})"
        seed = "" if self.seed is None else f", seed {self.seed}"
        before = f"{self.pruning['before']['words']}, then " if "before" in self.pruning else ""
        return f"{self.pretrained} {before}{self.plan['pruner']} {self.amount}{seed} ({self.source})"


def amount(bits: int | None, sparsity: str) -> str:
    """A sparsity, and the bits of a quantised weight."""
    removed = f", sparsity {sparsity}" if sparsity != "0" else ""
    return sparsity if bits is None else f"{bits} bits{removed}"


def share_chances(trials: Sequence[LoadedTrial]) -> None:
    """Copies the chance that per-sample records tell to results of the same items without such records."""
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
    """Merges the trials of each setting into one trial with all tasks. A result that occurs twice counts once.

    Raises:
        ReportError: two results of the same trial and task that differ.
    """
    merged: dict[tuple[Any, ...], LoadedTrial] = {}
    for trial in trials:
        key = (trial.dense_digest, json.dumps(trial.settings, sort_keys=True), trial.sparsity, trial.seed)
        first = merged.setdefault(key, trial)
        if first is trial:
            continue
        for of, perplexity in trial.perplexities.items():
            known = first.perplexities.setdefault(of, perplexity)
            if not known.same(perplexity):
                raise ReportError(
                    f"task {of.task!r}: two results of the same trial differ, {of.metric} {known.value:.6g} of {first.name} "
                    f"and {perplexity.value:.6g} of {trial.name}: name only one of them"
                )
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
    return list(merged.values())


def check_same(one: LoadedTrial, score: TaskScore, other: LoadedTrial, compared: TaskScore) -> None:
    """Checks that two scores are of the same version and the same items of a task, with prompts and answers that are made alike.

    Raises:
        ReportError: they are not; the message names both trials.
    """
    both = f"{one.name} and {other.name}"
    if score.version != compared.version:
        raise ReportError(f"task {score.task!r}: version {score.version} and version {compared.version} are not the same task: {both}")
    if (score.metric, score.filter) != (compared.metric, compared.filter):
        option = "--filter" if score.metric == compared.metric else "--metric"
        raise ReportError(
            f"task {score.task!r}: {score.metric} ({score.filter}) and {compared.metric} ({compared.filter}) are not the same score: "
            f"{both}; choose a score that both have with {option}, or name only one of them"
        )
    if score.chance != compared.chance:
        raise ReportError(f"task {score.task!r}: chance {score.chance:g} and {compared.chance:g}: {both}")
    for kind in [kind for kind in score.prompts if kind in compared.prompts]:
        if score.prompts[kind] != compared.prompts[kind]:
            what = "answers are not generated alike" if kind == GENERATION else "the prompts are not the same"
            raise ReportError(f"task {score.task!r}: {score.prompts[kind]} and {compared.prompts[kind]}, {what}: {both}")
    same_model = one.dense_digest == other.dense_digest
    if same_model and one.deciding and other.deciding and (words := difference(one.deciding, other.deciding)):
        raise ReportError(f"task {score.task!r}: {words}, the prompts are not the same: {both}; name only one of them")
    if not same_items(score, compared):
        hint = f"; take those of one --limit: {_limit(one)} or {_limit(other)}" if one.limit != other.limit else ""
        raise ReportError(f"task {score.task!r}: {_items(score)} and {_items(compared)} are not the same items: {both}{hint}")


def same_items(one: TaskScore, other: TaskScore) -> bool:
    """Whether two results may be of the same items, with prompts that are made alike. What is unknown is taken as equal."""
    if any(other.prompts.get(kind, words) != words for kind, words in one.prompts.items()):
        return False
    if one.count is not None and other.count is not None and one.count != other.count:
        return False
    if any(other.digests.get(kind, digest) != digest for kind, digest in one.digests.items()):
        return False
    return one.scores is None or other.scores is None or one.scores.keys() == other.scores.keys()


def of_limit(trials: list[LoadedTrial], limit: str) -> list[LoadedTrial]:
    """The trials that were evaluated with a limit.

    Args:
        limit: a number as for ``lm_eval --limit``, or ``all`` for trials without a limit.

    Raises:
        ReportError: no trial has the limit.
    """
    selected = [trial for trial in trials if _limit(trial) == (limit if limit == ALL else _number(limit))]
    if not selected:
        limits = sorted({_limit(trial) for trial in trials})
        raise ReportError(f"--limit {shortened(limit)}: no results of that limit; there are {' and '.join(limits)}")
    return selected


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


def argument_notes(trials: Sequence[LoadedTrial]) -> list[str]:
    """Which results of one model were made with other arguments, such as another ``dtype``: a note for each kind."""
    first: dict[str, LoadedTrial] = {}
    found: dict[str, str] = {}
    for trial in trials:
        one = first.setdefault(trial.dense_digest, trial)
        if words := difference(one.arguments, trial.arguments):
            found.setdefault(words, f"other model arguments, which may change scores: {words} ({one.name} and {trial.name})")
    return list(found.values())
