"""Checks of a task's YAML without data or a model. They find what lm-eval skips, ignores or fails on later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness_ext.errors import did_you_mean
from harness_ext.testing import functions
from harness_ext.testing.definition import Definition, Function, UnreadableError, files_below, read, whole
from harness_ext.testing.findings import Finding

_Found = Iterator[tuple[str, str]]  # key and message
_NOT_TASK_FIELDS = ("include", "class", "group", "task_list")


def check_static(file: Path, *, names: Mapping[str, Path] | None = None) -> list[Finding]:
    """All findings in one file.

    Args:
        file: a task, a group, or a part that other files include. A part has neither ``task`` nor ``group``; only its own keys are checked.
        names: files of all tasks, groups and tags, from ``names_below``. If None, members of groups are not looked up.
    """
    return [finding for check in STATIC_CHECKS for finding in check_one(check, file, names=names)]


def check_one(check: str, file: Path, *, names: Mapping[str, Path] | None = None) -> list[Finding]:
    """The findings of one check of :data:`STATIC_CHECKS`."""
    try:
        definition = read(file)
    except UnreadableError as error:
        return [Finding("yaml", file, "", str(error))] if check == "yaml" else []
    try:
        config = whole(definition)
    except UnreadableError as error:
        if check == "include":
            return [Finding("include", file, "include", str(error))]
        config = definition.own
        if check not in ("duplicate-key", "unknown-key", "function"):
            return []
    return [Finding(check, file, key, message) for key, message in STATIC_CHECKS[check](definition, config, names)]


def names_below(folders: Iterable[Path]) -> dict[str, Path]:
    """All tasks, groups and tags below folders, each with its first file in the order of lm-eval. Unreadable files are ignored."""
    files: dict[str, Path] = {}
    for file in files_below(folders):
        try:
            config = whole(read(file))
        except UnreadableError:
            continue
        tags = config.get("tag") or []
        for name in [config.get("group") if is_group(config) else config.get("task"), *([tags] if isinstance(tags, str) else tags)]:
            if isinstance(name, str):
                files.setdefault(name, file)
    return files


def is_group(config: Mapping[str, Any]) -> bool:
    return "group" in config and "class" not in config


def is_part(config: Mapping[str, Any]) -> bool:
    """Whether a file is a part that other files include."""
    return "task" not in config and "group" not in config


# --- the checks, which yield the key and the message of each finding


def _yaml(definition: Definition, config: Mapping[str, Any], names: Any) -> _Found:
    return iter(())  # read() finds these problems


def _include(definition: Definition, config: Mapping[str, Any], names: Any) -> _Found:
    return iter(())


def _duplicate_key(definition: Definition, config: Mapping[str, Any], names: Any) -> _Found:
    for key in definition.duplicates:
        yield key, f"the key {key.rpartition('.')[2]!r} stands twice; lm-eval uses the last one"


def _unknown_key(definition: Definition, config: Mapping[str, Any], names: Any) -> _Found:
    task, group, fewshot, aggregate = _schemas()
    allowed = {*task, *_NOT_TASK_FIELDS, *(group if is_group(config) else ())}
    own = definition.own
    if "class" not in config:  # a custom class may read any key
        for key in sorted(set(own) - allowed):
            yield key, f"lm-eval knows no such key.{did_you_mean(key, allowed)}".rstrip()
    nested: list[tuple[str, Any, frozenset[str], frozenset[str]]] = [("fewshot_config", own.get("fewshot_config"), fewshot, frozenset())]
    entries = own.get("aggregate_metric_list")
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        nested.append((f"aggregate_metric_list.{number}", entry, aggregate, frozenset({"metric"})))
    for place, mapping, known, required in nested:
        if isinstance(mapping, dict):
            for key in sorted(set(mapping) - set(known)):
                yield f"{place}.{key}", f"lm-eval knows no such key there.{did_you_mean(str(key), known)}".rstrip()
            for key in sorted(required - set(mapping)):
                yield place, f"without the key {key!r}"


def _missing_key(definition: Definition, config: Mapping[str, Any], names: Any) -> _Found:
    if is_part(config) or is_group(config) or "class" in config:
        return
    if not (config.get("dataset_path") or config.get("custom_dataset")):
        yield "dataset_path", "neither dataset_path nor custom_dataset: the task has no data"
    if not (config.get("test_split") or config.get("validation_split")):
        yield "test_split", "neither test_split nor validation_split: there is nothing to evaluate on"
    if config.get("output_type") != "loglikelihood_rolling" and config.get("doc_to_text") is None and not config.get("use_prompt"):
        yield "doc_to_text", "without it there is no prompt"
    if config.get("doc_to_target") is None and not config.get("use_prompt") and not config.get("process_results"):
        yield "doc_to_target", "without it there is no right answer, and no process_results to do without"
    if config.get("output_type") == "multiple_choice" and config.get("doc_to_choice") is None:
        yield "doc_to_choice", "a multiple_choice task without it has no choices"


def _function(definition: Definition, config: Mapping[str, Any], names: Any) -> _Found:
    for key, reference in definition.functions:
        if problem := functions.problem(reference, definition.path.parent):
            yield key, f"!function {reference}: {problem}"


def _output_type(definition: Definition, config: Mapping[str, Any], names: Any) -> _Found:
    from lm_eval.api.task import ALL_OUTPUT_TYPES

    kind = definition.own.get("output_type")
    if kind is not None and kind not in ALL_OUTPUT_TYPES:
        yield "output_type", f"no output type {kind!r}.{did_you_mean(str(kind), ALL_OUTPUT_TYPES)} Types: {', '.join(ALL_OUTPUT_TYPES)}"


def _metric(definition: Definition, config: Mapping[str, Any], names: Any) -> _Found:
    from lm_eval.api.registry import METRIC_REGISTRY

    ours = functions.registered_beside(definition.path.parent)
    for number, entry in enumerate(_list(definition.own, "metric_list")):
        place = f"metric_list.{number}"
        name = entry.get("metric") if isinstance(entry, dict) else None
        if name is None:
            yield place, "an entry without the key 'metric'"
        elif config.get("process_results") is not None or "class" in config or isinstance(name, Function):
            continue  # such a task may name its metrics freely
        elif is_part(config) or is_group(config):
            continue  # the tasks that inherit them may have a process_results
        elif name not in METRIC_REGISTRY and name not in ours and not entry.get("hf_evaluate"):
            near = did_you_mean(str(name), METRIC_REGISTRY)
            yield f"{place}.metric", f"lm-eval has no metric {name!r} and would ask the hub for it.{near}".rstrip()


def _aggregation(definition: Definition, config: Mapping[str, Any], names: Any) -> _Found:
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    ours = functions.registered_beside(definition.path.parent)
    for number, entry in enumerate(_list(definition.own, "metric_list")):
        name = entry.get("aggregation") if isinstance(entry, dict) else None
        if isinstance(name, str) and not isinstance(name, Function) and name not in AGGREGATION_REGISTRY and name not in ours:
            near = did_you_mean(name, AGGREGATION_REGISTRY)
            yield f"metric_list.{number}.aggregation", f"lm-eval has no aggregation {name!r}.{near}".rstrip()
    for number, entry in enumerate(_list(definition.own, "aggregate_metric_list")):
        name = entry.get("aggregation", "mean") if isinstance(entry, dict) else "mean"
        if name != "mean" and not isinstance(name, Function):
            yield f"aggregate_metric_list.{number}.aggregation", f"a group has no aggregation {name!r}: want mean or a !function"


def _filter(definition: Definition, config: Mapping[str, Any], names: Any) -> _Found:
    from lm_eval.api.registry import FILTER_REGISTRY

    ours = functions.registered_beside(definition.path.parent)
    for number, entry in enumerate(_list(definition.own, "filter_list")):
        place = f"filter_list.{number}"
        if not isinstance(entry, dict) or not {"name", "filter"} <= set(entry):
            yield place, "want the keys 'name' and 'filter'"
            continue
        for step, function in enumerate(entry["filter"] or []):
            name = function.get("function") if isinstance(function, dict) else None
            if name is None:
                yield f"{place}.filter.{step}", "an entry without the key 'function'"
            elif not isinstance(name, Function) and name not in FILTER_REGISTRY and name not in ours:
                near = did_you_mean(str(name), FILTER_REGISTRY)
                yield f"{place}.filter.{step}.function", f"lm-eval has no filter {name!r}.{near}".rstrip()


def _template(definition: Definition, config: Mapping[str, Any], names: Any) -> _Found:
    import jinja2

    for key in ("description", "doc_to_text", "doc_to_target", "doc_to_choice", "gen_prefix", "doc_to_decontamination_query"):
        templates = definition.own.get(key)
        for number, text in enumerate(templates if isinstance(templates, list) else [templates]):
            if isinstance(text, str) and not isinstance(text, Function):
                try:
                    jinja2.Environment().parse(text)
                except jinja2.TemplateSyntaxError as error:
                    yield f"{key}.{number}" if isinstance(templates, list) else key, f"not a Jinja template: {error}"


def _generation(definition: Definition, config: Mapping[str, Any], names: Any) -> _Found:
    own = definition.own
    if is_part(config) or is_group(config) or "class" in config:
        return
    if config.get("generation_kwargs") and config.get("output_type", "generate_until") != "generate_until":
        place = "generation_kwargs" if "generation_kwargs" in own else "output_type"
        yield place, f"an output_type of {config.get('output_type')!r} generates nothing: generation_kwargs are ignored"


def _fewshot_split(definition: Definition, config: Mapping[str, Any], names: Any) -> _Found:
    if is_part(config) or is_group(config) or "class" in config:
        return
    settings = config.get("fewshot_config")
    settings = settings if isinstance(settings, dict) else {}
    tested = config.get("test_split") or config.get("validation_split")
    split = settings.get("split") or config.get("fewshot_split")
    if split is None and settings.get("samples") is None and config.get("num_fewshot"):
        split = config.get("training_split") or config.get("validation_split") or tested
    if tested is not None and split == tested:
        place = next((key for key in ("fewshot_config", "fewshot_split", "num_fewshot") if definition.own.get(key)), "test_split")
        yield place, f"few-shot examples come from {split!r}, the split that is evaluated"


def _name(definition: Definition, config: Mapping[str, Any], names: Mapping[str, Path] | None) -> _Found:
    if is_part(config):
        return
    key = "group" if is_group(config) else "task"
    name = config.get(key)
    if not isinstance(name, str) or not name:
        yield key, f"{name!r} is no name: want a text"
    elif names is not None and (other := names.get(name)) is not None and other != definition.path:
        yield key, f"{name!r} is taken by {other}: lm-eval skips the later file"


def _member(definition: Definition, config: Mapping[str, Any], names: Mapping[str, Path] | None) -> _Found:
    if not is_group(config):
        return
    entries = definition.own.get("task")
    members = entries if isinstance(entries, list) else [entries]
    for number, member in enumerate(members if entries is not None else []):
        inline = isinstance(member, dict)
        name = (member.get("task") if not isinstance(member.get("task"), list) else None) if inline else member
        if inline and ("group" in member or "dataset_path" in member or "custom_dataset" in member or "include" in member):
            continue  # the member is defined here
        if not isinstance(name, str):
            yield f"task.{number}", f"{str(member)[:80]!r} is no member: want a name, or a mapping with 'task' or 'group'"
        elif names is not None and name not in names and name not in _stock():
            near = did_you_mean(name, [*names, *_stock()])
            yield f"task.{number}", f"there is no task, group or tag {name!r}.{near}".rstrip()


STATIC_CHECKS: dict[str, Callable[[Definition, Mapping[str, Any], Mapping[str, Path] | None], _Found]] = {
    "yaml": _yaml,
    "include": _include,
    "duplicate-key": _duplicate_key,
    "unknown-key": _unknown_key,
    "missing-key": _missing_key,
    "name": _name,
    "member": _member,
    "function": _function,
    "output-type": _output_type,
    "metric": _metric,
    "aggregation": _aggregation,
    "filter": _filter,
    "template": _template,
    "generation": _generation,
    "fewshot-split": _fewshot_split,
}


def _list(own: Mapping[str, Any], key: str) -> list[Any]:
    value = own.get(key)
    return value if isinstance(value, list) else [value] if isinstance(value, dict) else []


@lru_cache(maxsize=1)
def _schemas() -> tuple[frozenset[str], ...]:
    """Known keys of tasks, groups, few-shot settings and aggregated metrics."""
    from lm_eval.config.group import AggMetricConfig, GroupConfig
    from lm_eval.config.task import FewshotConfig, TaskConfig

    return tuple(
        frozenset(field.name for field in fields(kind) if field.init or field.default is not MISSING)
        for kind in (TaskConfig, GroupConfig, FewshotConfig, AggMetricConfig)
    )


@lru_cache(maxsize=1)
def _stock() -> Mapping[str, Path]:
    """Names of lm-eval's own tasks, which a group may contain. They are read from the YAML files."""
    import lm_eval.tasks

    return names_below([Path(lm_eval.tasks.__file__).parent])
