"""Every YAML below task_configs, loaded strictly: lm-eval itself skips a file that it cannot read without a word."""

from __future__ import annotations

import importlib
import re
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import lm_eval.tasks
import pytest
import yaml
from lm_eval.config.group import AggMetricConfig, GroupConfig
from lm_eval.config.task import TaskConfig
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from harness_ext.errors import BadOptionError
from harness_ext.host import registration
from harness_ext.tasks import dials, icl
from harness_ext.tasks.functions import FAMILIES
from harness_ext.tasks.options import TaskOptions
from harness_ext.tasks.qa import FactTask
from harness_ext.tasks.qa_recall import RecallTask

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "task_configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
NAMED = [path for path in FILES if not path.name.startswith("_")]
TASKS = [path for path in NAMED if "group" not in load_yaml(path, resolve_func=False)]
GROUPS = [path for path in NAMED if path not in TASKS]
ICL = [path for path in TASKS if path.parent.name == "icl"]
PREFIXES = ("icl_", "facts_", "lookup_", "hub_", "hops_", "mqar_", "variables_", "counting_", "needle_")
DECLARED = {"version", "ability", "family", "chance", "majority", "balanced", "answer_in_prompt"}  # checked by harness_ext.testing
PAGES = {"icl": "icl.md", "dials": "dials.md"}  # in docs, by folder; the others are on facts.md


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


def names(kind):
    return {field.name for field in fields(kind)}


def used_in(documentation):
    """The words that a page sets in code, in the text or as a block."""
    text = documentation.read_text(encoding="utf-8")
    blocks = re.findall(r"^```.*?^```", text, flags=re.DOTALL | re.MULTILINE)
    for block in blocks:
        text = text.replace(block, "")
    code = " ".join([*blocks, *re.findall(r"`[^`]+`", text)])
    return set(re.findall(r"\b\w+\b(?!\*)", code))  # icl_* is a pattern and not a name


def duplicates(node):
    """The keys that a YAML mapping holds twice, at any depth; lm-eval uses the last one."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        return {key for key in keys if keys.count(key) > 1}.union(*(duplicates(value) for _, value in node.value))
    return set().union(*(duplicates(value) for value in node.value)) if isinstance(node, yaml.SequenceNode) else set()


def test_there_are_tasks_and_nothing_but_configs_and_their_documentation():
    assert TASKS
    assert GROUPS
    assert {path.suffix for path in CONFIGS.rglob("*") if path.is_file()} == {".yaml", ".md"}


@each(FILES)
def test_a_config_can_be_parsed_and_has_no_key_twice_or_unknown(path):
    config = load_yaml(path, resolve_func=False, recursive=False)
    allowed = names(GroupConfig) if path in GROUPS else names(TaskConfig) | {"include", "class"}
    assert set(config) <= allowed
    assert not duplicates(yaml.compose(path.read_text(encoding="utf-8")))
    for include in [config["include"]] if "include" in config else []:
        assert (path.parent / include).is_file()


@each(TASKS)
def test_the_functions_of_a_task_exist_and_its_lists_have_no_unknown_key(path):
    config = load_yaml(path)
    assert callable(config["custom_dataset"])
    assert config.get("class") in (FactTask, RecallTask) or callable(config["process_results"])
    assert all(set(metric) == {"metric", "aggregation", "higher_is_better"} for metric in config["metric_list"])
    assert config["metadata"]["version"]


@each(TASKS)
def test_the_options_of_a_task_exist_and_are_possible(path):
    config = load_yaml(path)
    source = importlib.import_module(config["custom_dataset"].__module__)
    assert source.__name__ in registration.SOURCES
    options = config.get("metadata") or {}
    assert all(name in DECLARED or name.startswith(PREFIXES) for name in options)
    needs_files = pytest.raises(BadOptionError, match="pass --metadata") if path.parent.name == "lre" else nullcontext()
    with needs_files:
        source.check_task(**options, **config.get("dataset_kwargs", {}))


@each(TASKS)
def test_a_task_declares_its_ability(path):
    config = load_yaml(path, resolve_func=False)
    closed = config.get("dataset_kwargs", {}).get("condition") == "closed"
    assert closed is ("closed" in path.stem or "recall" in path.stem)
    assert config["metadata"]["ability"] == ("recall" if closed else "in-context")


@each(TASKS)
def test_a_task_tells_which_scores_are_better_when_higher(path):
    for metric in load_yaml(path)["metric_list"]:
        assert metric["higher_is_better"] is not metric["metric"].startswith(("memory_", "median_rank", "lost"))


def members(name, seen=()):
    """The tasks of a group, by hand."""
    assert name not in seen
    (path,) = [path for path in NAMED if path.stem == name]
    if path in TASKS:
        return [path]
    return [task for member in load_yaml(path)["task"] for task in members(member, (*seen, name))]


@each(GROUPS)
def test_the_members_of_a_group_exist_and_report_the_metrics_that_it_averages(path):
    config = load_yaml(path)
    tasks = members(path.stem)
    assert len(tasks) == len(set(tasks)) > 0
    averaged = config.get("aggregate_metric_list", [])
    assert all(set(entry) <= names(AggMetricConfig) for entry in averaged)
    for task in tasks:
        assert {entry["metric"] for entry in averaged} <= {metric["metric"] for metric in load_yaml(task)["metric_list"]}


def test_memory_and_context_are_told_apart():
    recall, context, both = (members(name) for name in ("fact_recall", "in_context", "memory_vs_context"))
    assert [path.stem for path in recall] == ["lab_facts_closed"]
    assert not any("closed" in path.stem for path in context)
    assert both == [*recall, *context]


@each(NAMED)
def test_a_config_is_named_after_its_file(path):
    config = load_yaml(path, resolve_func=False)
    assert config.get("group", config.get("task")) == path.stem


def test_names_are_unique_and_none_is_taken_by_lm_eval():
    ours = [path.stem for path in NAMED]
    assert len(ours) == len(set(ours))
    # Read as text: parsing all of lm-eval's files takes seconds.
    stock = "\n".join(path.read_text(encoding="utf-8") for path in Path(lm_eval.tasks.__file__).parent.rglob("*.yaml"))
    theirs = set(re.findall(r"""(?m)^\s*(?:-|(?:- )?(?:task|group|tag):)\s*["']?([\w-]+)["']?\s*$""", stock))
    assert {"hellaswag", "mmlu", "ai2_arc"} <= theirs
    assert not set(ours) & theirs


def test_lm_eval_finds_every_config():
    found = TaskManager(include_path=str(CONFIGS), include_defaults=False)
    assert set(found.all_subtasks) == {path.stem for path in TASKS}
    assert set(found.all_groups) == {path.stem for path in GROUPS}
    assert not found.all_tags


@each(NAMED)
def test_a_config_is_documented(path):
    assert path.stem in used_in(path.parent / "README.md")
    words = used_in(ROOT / "docs" / PAGES.get(path.parent.name, "facts.md"))
    assert path.stem in words or {path.stem.split("_")[0], "hub_facts"} <= words


for source in registration.SOURCES:
    importlib.import_module(source)
DIALS = {name for kind in dials.KINDS.values() for name in kind.options.names()}
OPTIONS = {name for options in TaskOptions.__subclasses__() for name in options.names()}


@pytest.mark.parametrize("page", [*sorted(CONFIGS.rglob("README.md")), *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.parent.name)
def test_the_documentation_names_no_option_that_does_not_exist(page):
    mentioned = {word for word in used_in(page) if word.startswith(PREFIXES)}
    assert mentioned <= OPTIONS | {path.stem for path in NAMED}


def test_every_option_is_documented():
    assert set(icl.Options.names()) <= used_in(ROOT / "docs" / "icl.md")
    assert used_in(ROOT / "docs" / "dials.md") >= DIALS
    assert OPTIONS - set(icl.Options.names()) - DIALS <= used_in(ROOT / "docs" / "facts.md")


@each([path for path in ICL if load_yaml(path, resolve_func=False)["dataset_kwargs"]["family"] in FAMILIES])
def test_an_icl_task_ships_the_scores_of_reference_learners(path):
    config = load_yaml(path)
    chance = 1 / icl.check_task(**config["metadata"], **config["dataset_kwargs"]).labels
    page = (ROOT / "docs" / "icl.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{path.stem}` \| (0\.\d\d) \|((?: 0\.\d{{3}} ± 0\.\d{{3}} \|){{5}})$", page, re.MULTILINE)
    majority, *learners = [float(score) for score in re.findall(r"(0\.\d{3}) ±", row[1])]
    assert float(row[0]) == majority == chance
    assert min(learners) > chance + 0.2
