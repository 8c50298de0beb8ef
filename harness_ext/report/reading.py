"""Reads sweep folders, and the ``results_*.json`` of ``lm_eval --model pruned-hf --output_path``, into trials."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_ext.errors import HarnessExtError, nearest, one_line, shortened
from harness_ext.host.arguments import DEFAULT_MODEL
from harness_ext.method.sparsity import Sparsity
from harness_ext.report.answers import Answer, answers, chance_of
from harness_ext.report.checkpoints import beside_weights, calibration_of, changed_before, joined, name_apart
from harness_ext.report.chosen_scores import ChosenScores
from harness_ext.report.commands import command_of
from harness_ext.report.files import date_of, json_lines, json_object, results_files
from harness_ext.report.margins import Margins, margins_of
from harness_ext.report.perplexities import is_perplexity, perplexities_of
from harness_ext.report.run_arguments import GENERATION, deciding, generation_of, others
from harness_ext.report.trials import CHANCE_METRICS, LoadedTrial, ReportError, TaskScore
from harness_ext.report.unpruned import bits_of, name_of, record_of
from harness_ext.sweep.records import TrialRecord
from harness_ext.sweep.scores import is_number
from harness_ext.weights.checkpoint_record import CHECKPOINT

Rows = Callable[[str], "Iterable[Mapping[str, Any]] | None"]
PERCENT = ("squadv2",)
"""Tasks of lm-eval whose scores are percentages of the whole set, and no means over items."""


def read(paths: Sequence[Path], chosen: ChosenScores | None = None) -> tuple[list[LoadedTrial], list[str]]:
    """Reads the trials in folders and files.

    Args:
        paths: sweep folders, folders with ``results_*.json`` anywhere below, or such files.
        chosen: which score of a task counts.

    Returns:
        The trials, and what is left out and why.

    Raises:
        ReportError: a path does not exist, contains no results, or cannot be read.
    """
    trials: list[LoadedTrial] = []
    gaps: list[str] = []
    chosen = chosen or ChosenScores()
    for path in dict.fromkeys(paths):
        if not os.path.exists(path):
            raise ReportError(f"{shortened(path)}: no such file or folder")
        before = len(trials)
        if path.is_dir() and (path / "trials").is_dir():
            trials += _sweep(path, gaps, chosen)
        else:
            for file in results_files(path) if path.is_dir() else [path]:
                trials += _checked(file, gaps, chosen)
        if len(trials) == before:
            raise ReportError(
                f"{path}: no results in it; want the folder of a harness-ext sweep, or results_*.json of lm_eval --model pruned-hf"
                + (f" ({gaps[-1]})" if gaps else "")
            )
    name_apart(trials, [trial for trial in trials if trial.from_checkpoint])
    return trials, gaps


def _checked(file: Path, gaps: list[str], chosen: ChosenScores) -> list[LoadedTrial]:
    """The trial in a results file. Whatever is wrong in the file is one line that names it."""
    try:
        return _plain(file, gaps, chosen)
    except ReportError:
        raise
    except HarnessExtError as error:
        raise ReportError(f"{file}: {error}") from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{file}: damaged, this is not what lm_eval writes: {type(error).__name__}: {one_line(error)}") from error


def _sweep(folder: Path, gaps: list[str], chosen: ChosenScores) -> list[LoadedTrial]:
    from harness_ext.sweep.records import KEY, scan

    records, damaged = scan(folder)
    for corrupt, reason in damaged.items():
        gaps.append(f"{corrupt}: the record is corrupt and left out: {reason}")
    for failed in [file for file in sorted((folder / "failed").glob("*.json")) if KEY.fullmatch(file.stem)]:
        failure = json_object(failed)
        gaps.append(f"{failed}: the trial {failure.get('trial')} failed and has no results: {failure.get('error')}")
    trials, record_gaps = read_records(records, chosen)
    gaps += record_gaps
    return trials


def read_records(records: Sequence[TrialRecord], chosen: ChosenScores | None = None) -> tuple[list[LoadedTrial], list[str]]:
    """Turns records of a sweep into trials. Also returns what is left out and why.

    Args:
        records: records of a sweep.
        chosen: which score of a task counts.
    """
    chosen = chosen or ChosenScores()
    trials: list[LoadedTrial] = []
    gaps: list[str] = []
    for record in records:
        name, pruning = joined(record.pretrained, record.pruning)
        made_before, arguments = changed_before(record.pruning), _arguments(record.results["config"].get("model_args"))
        trial = LoadedTrial(
            source=str(record.folder), pretrained=name, pruning=pruning,
            calibration=calibration_of(pruning) if made_before else record.calibration,
            ratio=Sparsity.parse(pruning["plan"]["sparsity"]).ratio if made_before else record.ratio, parameters=record.parameters,
            command=record.command, versions=_versions(record.results, record.pruning), from_checkpoint=record.checkpoint is not None,
            limit=record.settings["limit"], bits=bits_of(record.results["config"], arguments),
            date=record.results.get("date"), deciding=deciding(arguments), arguments=others(arguments),
            perplexities=perplexities_of(record.results),
        )  # fmt: skip
        known = set(record.tasks)
        trial.tasks = _tasks(
            trial, record.results, gaps,
            lambda task, record=record, known=known: record.samples(task) if task in known else None,  # type: ignore[misc]
            record.items, chosen,
        )  # fmt: skip
        trials.append(trial)
    return trials, gaps


def _plain(file: Path, gaps: list[str], chosen: ChosenScores) -> list[LoadedTrial]:
    results = json_object(file)
    config = results.get("config", {})
    if not isinstance(results.get("results"), dict) or not isinstance(config, dict):
        raise ReportError(f"{file}: not a results file of lm_eval")
    for part in ("results", "configs"):
        for task, of_task in (results.get(part) or {}).items():
            if not isinstance(of_task, dict):
                raise ReportError(f"{file}: damaged, {part} of the task {task!r} is {shortened(of_task)} and not a mapping")
    arguments = _arguments(config.get("model_args"))
    pruning = config.get("pruning")
    if isinstance(pruning, dict) and "plan" in pruning:
        name = str(arguments.get("pretrained", DEFAULT_MODEL))
    elif config.get("model_num_parameters") is None:
        gaps.append(
            f"{file}: left out, it was not made by lm_eval --model pruned-hf, and it does not say how many parameters the model has"
        )
        return []
    else:
        beside = beside_weights(file, config, arguments, results.get("date"), gaps)
        if beside is None:
            return []
        name, pruning = name_of(config, arguments), record_of(config, arguments) | beside
    if missing := [name for name in ("dense_digest", "fingerprint", "achieved_sparsity") if name not in pruning]:
        raise ReportError(f"{file}: its pruning record has no {missing[0]}")
    _check_record(file, pruning)
    made_before, from_checkpoint = changed_before(pruning), CHECKPOINT in pruning
    name, pruning = joined(name, pruning)
    plan = pruning["plan"]
    calibration = calibration_of(pruning)
    if calibration is not None and not made_before:
        calibration = str(arguments.get("calibration", calibration))
    trial = LoadedTrial(
        source=str(file), pretrained=name, pruning=pruning, calibration=calibration,
        ratio=Sparsity.parse(plan["sparsity"]).ratio, parameters=config.get("model_num_parameters"), command=command_of(results, arguments),
        versions=_versions(results, pruning), limit=config.get("limit"), bits=bits_of(config, arguments), date=results.get("date"),
        from_checkpoint=from_checkpoint, deciding=deciding(arguments), arguments=others(arguments), perplexities=perplexities_of(results),
    )  # fmt: skip
    stamp = date_of(file)

    def rows(task: str) -> Iterable[Mapping[str, Any]] | None:
        names = (f"samples_{name}_{stamp}.jsonl" for name in (task.replace("/", "_"), _sanitized(task)))
        samples = next((path for path in map(file.with_name, names) if path.is_file()), None)
        return None if samples is None else json_lines(samples)

    trial.tasks = _tasks(trial, results, gaps, rows, {}, chosen)
    return [trial]


def _check_record(file: Path, pruning: Mapping[str, Any]) -> None:
    """Checks what a report reads of a pruning record.

    Raises:
        ReportError: a part is missing or is not what it should be.
    """
    plan, achieved = pruning["plan"], pruning["achieved_sparsity"]
    if not is_number(achieved) or not 0 <= achieved <= 1:
        raise ReportError(f"{file}: achieved_sparsity of its pruning record is {shortened(achieved)!r} and no number from 0 to 1")
    if not isinstance(plan, dict) or "sparsity" not in plan:
        raise ReportError(f"{file}: the plan of its pruning record has no sparsity")
    if (Sparsity.parse(plan["sparsity"]).ratio > 0 or plan.get("bits") is not None) and "pruner" not in plan:
        raise ReportError(f"{file}: the plan of its pruning record has no pruner")


def _tasks(
    trial: LoadedTrial,
    results: Mapping[str, Any],
    gaps: list[str],
    rows: Rows,
    items: Mapping[str, str],
    chosen: ChosenScores,
) -> dict[str, TaskScore]:
    """The scores by task."""
    task_scores = {}
    for task, scores in results["results"].items():
        if task not in results.get("configs", {}):  # a group: its tasks are in the results as well
            continue
        counts = chosen.of(task, scores)
        if counts is None:
            names = sorted({name.partition(",")[0] for name in scores if "," in name and "_stderr," not in name})
            if task not in {key.task for key in trial.perplexities} or not all(map(is_perplexity, names)):
                gaps.append(f"task {task!r}: left out, it has no score among {_lacks(chosen.metrics, names)} ({trial.name})")
            continue
        metric, filter_name, name = counts
        value = scores[name]
        value = value / 100 if task in PERCENT and is_number(value) else value
        if not is_number(value) or not 0 <= value <= 1:
            gaps.append(f"task {task!r}: left out, {name} is {value!r} and no number from 0 to 1 ({trial.name})")
            continue
        stderr = scores.get(f"{metric}_stderr,{filter_name}")
        metadata = results["configs"][task].get("metadata") or {}
        count = scores.get("sample_len") or results.get("n-samples", {}).get(task, {}).get("effective")
        digests = {"items": items[task]} if task in items else {}
        if task in results.get("task_hashes", {}):
            digests["task hash"] = str(results["task_hashes"][task])
        delimiter = results["configs"][task].get("target_delimiter", " ")
        items_read = _items(task, rows(task), metric, filter_name, float(value), trial, gaps, delimiter)
        chance, chance_known = _chance(task, metric, metadata.get("chance"), items_read.chance, gaps)
        task_scores[task] = TaskScore(
            task=task, version=str(results.get("versions", {}).get(task)), metric=metric, filter=filter_name, value=float(value),
            stderr=float(stderr) if isinstance(stderr, int | float) and math.isfinite(stderr) else None,
            count=count, chance=chance, chance_declared=chance_known, digests=digests, scores=items_read.scores,
            predictions=items_read.predictions, labels=items_read.labels, own_chance=items_read.chance, metadata=metadata,
            margins=items_read.margins, recall=recall_of(scores), prompts=_prompts(task, results),
        )  # fmt: skip
    return task_scores


def _lacks(metrics: Sequence[str], names: Sequence[str]) -> str:
    """The metrics that a task has not, those that it has, if any, and the one that may have been meant."""
    near = next((name for metric in metrics if (name := nearest(metric, names)) is not None), None)
    has = f"; it has {', '.join(names)}" if names else ""
    return f"{', '.join(metrics)}{has}" + (f". Did you mean {near!r}?" if near else "")


def _prompts(task: str, results: Mapping[str, Any]) -> dict[str, str]:
    """How prompts are made of the items of a task, in words by kind; only the kinds that the results tell."""
    prompts = {}
    if (shots := results.get("n-shot", {}).get(task)) is not None:
        prompts["examples"] = f"{shots} few-shot examples"
    if "chat_template_sha" in results:
        prompts["template"] = "a chat template" if results["chat_template_sha"] else "no chat template"
    if "system_instruction_sha" in results:
        sha = results["system_instruction_sha"]
        prompts["instruction"] = f"the system instruction {str(sha)[:8]}" if sha else "no system instruction"
    if (generation := generation_of(results.get("config", {}), results["configs"][task])) is not None:
        prompts[GENERATION] = generation
    return prompts


def recall_of(scores: Mapping[str, Any]) -> dict[str, float]:
    """The scores of a task that ranks all answers of a relation, by name; nothing for another task."""
    plain = {
        name.partition(",")[0]: float(value) for name, value in scores.items() if "," in name and is_number(value) and math.isfinite(value)
    }
    return {name: value for name, value in plain.items() if not name.endswith("_stderr")} if "recall_at_5" in plain else {}


def _chance(task: str, metric: str, declared: Any, from_items: float | None, gaps: list[str]) -> tuple[float, bool]:
    """The chance of a score, and whether it is known. It comes from the items, else from the metadata of the task; else it is 0."""
    if metric not in CHANCE_METRICS:
        return 0.0, True
    usable = is_number(declared) and 0 <= declared < 1
    if from_items is None:
        return (float(declared), True) if usable else (0.0, False)
    if usable and not math.isclose(declared, from_items, abs_tol=1e-4):
        gaps.append(f"task {task!r}: its metadata declare a chance of {declared:g}; the mean over its items, {from_items:.4g}, is used")
    return from_items, True


@dataclass(frozen=True)
class _Items:
    """What the per-sample records of a task contain; None for what is missing.

    Args:
        scores: scores by item id. The id comes from the document if all are unique, else from the task and lm-eval's number and hash.
        predictions, labels: see ``answers``.
        chance: see ``chance_of``.
        margins: see ``margins_of``; of the dense model only.
    """

    scores: dict[str, float] | None = None
    predictions: list[Answer] | None = None
    labels: list[Answer] | None = None
    chance: float | None = None
    margins: Margins | None = None


def _items(
    task: str,
    rows: Iterable[Mapping[str, Any]] | None,
    metric: str,
    filter_name: str,
    value: float,
    trial: LoadedTrial,
    gaps: list[str],
    delimiter: str,
) -> _Items:
    if rows is None:
        return _Items()
    kept = [row for row in rows if row.get("filter", "none") == filter_name]
    scores = [row.get(metric) for row in kept]
    if not kept or not all(isinstance(score, int | float) and 0 <= score <= 1 for score in scores):
        gaps.append(f"task {task!r}: no paired statistics, its per-sample records have no {metric} from 0 to 1 ({trial.name})")
        return _Items()
    if not math.isclose(sum(map(float, scores)) / len(scores), value, abs_tol=1e-6):  # type: ignore[arg-type]
        gaps.append(f"task {task!r}: no paired statistics, its score is not the mean of its per-sample records ({trial.name})")
        return _Items()
    document_ids = [row.get("id", row.get("doc", {}).get("id") if isinstance(row.get("doc"), dict) else None) for row in kept]
    named = all(isinstance(document_id, str) and not document_id.isdecimal() for document_id in document_ids)  # a count names no item
    if named and len(set(document_ids)) == len(document_ids):
        ids = [f"id:{document_id}" for document_id in document_ids]
    else:
        ids = [f"{task}:{row.get('doc_id')}:{row.get('doc_hash', '')}" for row in kept]
    if len(set(ids)) < len(ids):
        gaps.append(f"task {task!r}: no paired statistics, an item occurs twice in its per-sample records ({trial.name})")
        return _Items()
    values = list(map(float, scores))  # type: ignore[arg-type]
    predictions, labels = answers(kept, metric, values)
    chance = chance_of(kept, values) if metric in CHANCE_METRICS else None
    margins = margins_of(ids, kept, metric, values, delimiter) if trial.is_dense else None
    return _Items(dict(zip(ids, values, strict=True)), predictions, labels, chance, margins)


def _arguments(model_args: Any) -> dict[str, Any]:
    """Model arguments as values. ``simple_evaluate`` also accepts a string, and records it as such."""
    if isinstance(model_args, str):
        from lm_eval.utils import simple_parse_args_string

        return dict(simple_parse_args_string(model_args))
    return dict(model_args or {})


def _sanitized(task: str) -> str:
    from lm_eval.utils import sanitize_task_name

    return str(sanitize_task_name(task))


def _versions(results: Mapping[str, Any], pruning: Mapping[str, Any]) -> dict[str, str]:
    versions = {name: str(value) for name, value in pruning.get("environment", {}).items()}
    for name, key in (("lm_eval", "lm_eval_version"), ("transformers", "transformers_version")):
        if results.get(key):
            versions[name] = str(results[key])
    plugin = pruning.get("plugin")
    return versions | ({"plugin": f"{plugin['distribution']} {plugin['version']}"} if plugin else {})
