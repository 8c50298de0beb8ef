"""``pytest --task-configs``: broken definitions are each found, ours have no findings, and without the option nothing happens."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BROKEN = Path(__file__).parents[1] / "support" / "broken_tasks"
SHARED = ROOT.parent / "shared" / "data" / "lre"

# file: the check that finds what is wrong, and the beginning of what it says
EXPECTED = {
    "yaml_syntax": ("yaml", "not YAML: "),
    "not_a_mapping": ("yaml", "a list, not a mapping"),
    "key_twice": ("duplicate-key", "test_split: the key 'test_split' stands twice"),
    "include_missing": ("include", "include: the include no_such_base.yaml is not there"),
    "include_cycle": ("include", "include: the include include_cycle.yaml leads back to itself"),
    "unknown_key": ("unknown-key", "fewshot_spilt: lm-eval knows no such key. Did you mean 'fewshot_split'?"),
    "unknown_fewshot_key": ("unknown-key", "fewshot_config.sampeler: lm-eval knows no such key there. Did you mean 'sampler'?"),
    "no_data": ("missing-key", "dataset_path: neither dataset_path nor custom_dataset"),
    "no_split": ("missing-key", "test_split: neither test_split nor validation_split"),
    "no_choices": ("missing-key", "doc_to_choice: a multiple_choice task without it"),
    "name_taken": ("name", "task: 'good' is taken by "),
    "member_missing": ("member", "task.1: there is no task, group or tag 'goood'. Did you mean 'good'?"),
    "module_missing": ("function", "custom_dataset: !function function.good: there is no module 'function'"),
    "function_missing": ("function", "custom_dataset: !function functions.god: "),
    "output_type": ("output-type", "output_type: no output type 'multi_choice'. Did you mean 'multiple_choice'?"),
    "metric": ("metric", "metric_list.0.metric: lm-eval has no metric 'accuracy_score'"),
    "aggregation": ("aggregation", "metric_list.0.aggregation: lm-eval has no aggregation 'average'"),
    "filter": ("filter", "filter_list.0.filter.0.function: lm-eval has no filter 'take_frist'. Did you mean 'take_first'?"),
    "template": ("template", "doc_to_text: not a Jinja template: "),
    "generation": ("generation", "generation_kwargs: an output_type of 'multiple_choice' generates nothing"),
    "fewshot_from_test": ("fewshot-split", "fewshot_split: few-shot examples come from 'test', the split that is evaluated"),
    "fails": ("build", "cannot be built: RuntimeError: no documents today"),
    "another_each_time": ("same-twice", "custom_dataset: document 0: another document when the task is built again, like 48 of 48"),
    "seed_ignored": ("seed", "metadata.my_seed: the same documents with my_seed 3, 4 and 5"),
    "target_outside": ("target", "doc_to_target: document 5: the target is choice 4 of 4"),
    "choice_twice": ("choices", "doc_to_choice: document 6: the choice 'Lima' stands more than once"),
    "choice_prefix": ("choices", "doc_to_choice: document 7: after tokenisation 'Lima' is the beginning of 'Lima Peru'"),
    "answer_told": ("answer-in-prompt", "doc_to_text: document 9: the answer "),
    "chance_declared": ("chance", "metadata.chance: declared as 0.5, and a guess among the choices is right with 0.2500"),
    "majority_declared": ("majority", "metadata.majority: declared as 0.9, and answering always "),
    "unbalanced": ("balance", "metadata.balanced: declared, but the right one of 4 choices is at places 0, 1, ... [40, 8, 0, 0] times"),
    "the_same": ("duplicates", "custom_dataset: document 11: the same as document 3; 1 of 48"),
    "long": ("context", "doc_to_text: document 13: "),
    "fewshot_overlap": ("fewshot", "num_fewshot: document 40: this document is among those that few-shot examples are drawn from"),
    "oracle_fails": ("oracle", "metric_list.acc: a model that knows every answer scores 0.0000: want 1.0"),
    "guess_wins": ("random", "metric_list.acc: a guess scores 1.0000: want 0.2500, or 0."),
    "text_fails": ("build", "doc_to_text: document 17: fails: KeyError: 'country'"),
    "answer_null": ("target", "doc_to_target: document 15: the target is null"),
    "long_examples": ("context", "doc_to_text: document 0: 5"),
    "stopped": ("oracle", "metric_list.exact_match: a model that knows every answer scores 0.2500: want 1.0; generation_kwargs.until ends"),
    "scores_fail": ("oracle", "process_results: lm-eval cannot score the answers: KeyError: 'gold'"),
}


def run(*arguments, cwd=ROOT):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rfs", *map(str, arguments)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=600)


def findings(output):
    """The findings by file, as (check, message) pairs."""
    found = {}
    for name, message, check in re.findall(r"^\S*?(\w+)\.yaml: (.*) \[([\w-]+)\]$", output, re.MULTILINE):
        found.setdefault(name, set()).add((check, message))
    return found


@pytest.fixture(scope="module")
def broken():
    return run("--task-configs", BROKEN, "--task-context-length", 400)


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.slow
def test_what_is_wrong_with_a_broken_definition_is_found_and_nothing_else(broken, name):
    check, beginning = EXPECTED[name]
    ((found, message),) = findings(broken.stdout)[name]
    assert found == check
    assert message.startswith(beginning)


@pytest.mark.slow
def test_nothing_is_found_in_the_good_one_and_every_check_finds_something(broken):
    from harness_ext.testing.documents import DOCUMENT_CHECKS
    from harness_ext.testing.static import STATIC_CHECKS

    assert broken.returncode == 1
    assert set(findings(broken.stdout)) == set(EXPECTED) == {path.stem for path in BROKEN.glob("*.yaml")} - {"good"}
    assert {check for check, _ in EXPECTED.values()} == {*STATIC_CHECKS, *DOCUMENT_CHECKS, "oracle", "random"}
    assert len({(check, beginning) for check, beginning in EXPECTED.values()}) == len(EXPECTED) >= 20


@pytest.mark.slow
def test_a_broken_task_does_not_stop_the_checks_of_the_others_and_later_checks_say_why_they_are_passed_over(broken):
    assert "INTERNALERROR" not in broken.stdout + broken.stderr
    assert "the YAML is wrong: unknown-key" in broken.stdout
    assert "the documents are wrong: target" in broken.stdout


@pytest.mark.slow
def test_our_own_definitions_have_no_findings(tmp_path):
    relations = SHARED
    if not SHARED.is_dir():  # a set of our own: eight countries
        cities = ["Lima", "Oslo", "Quito", "Rome", "Nairobi", "Havana", "Cairo", "Bern"]
        content = {"name": "capital", "prompt_templates": ["The capital of {} is"], "question": "What is the capital of {}?"}
        content["samples"] = [{"subject": f"Country {number}", "object": city} for number, city in enumerate(cities * 4)]
        relations = tmp_path / "capital.json"
        relations.write_text(json.dumps(content))
    small = {"relations": str(relations), "facts_items": 32}
    small |= {f"{family}_items": 64 for family in ("icl", "lookup", "hops", "mqar", "variables", "counting", "needle")}
    done = run("--task-configs", ROOT / "task_configs", "--task-metadata", json.dumps(small), "--task-limit", 32)
    assert done.returncode == 0, done.stdout[-3000:]
    skipped = re.findall(r"^SKIPPED \[\d+\] .*", done.stdout, re.MULTILINE)
    assert all("cannot be loaded from the hub" in line or "no context length was given" in line for line in skipped)
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 1000


@pytest.mark.slow
def test_the_static_part_builds_nothing():
    done = run("--task-configs", BROKEN, "--task-static", "--collect-only")
    assert "same-twice" not in done.stdout
    assert "unknown-key" in done.stdout


@pytest.mark.slow
def test_without_the_option_a_yaml_is_nothing_to_pytest_and_with_it_only_yaml_files_are_collected(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\ntestpaths = ['tests']\n")
    for folder in ("tests", "tasks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tests" / "test_one.py").write_text("def test_one():\n    pass\n")
    (tmp_path / "tasks" / "good.yaml").write_text(yaml.safe_dump({"group": "mine", "task": ["mine"]}))
    (tmp_path / "tests" / "not_a_task.yaml").write_text("a: 1\n")
    assert "1 passed" in run(cwd=tmp_path).stdout
    asked = run("--task-configs", "tasks", cwd=tmp_path)
    assert "test_one" not in asked.stdout
    assert asked.returncode == 0
    both = run("--task-configs", "tasks", "tests", "-v", cwd=tmp_path).stdout
    assert "test_one" in both
    assert "good.yaml" in both
    assert "not_a_task" not in both


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task-configs", "no/such/folder"], "no such folder"),
        (["--task-configs", ".", "--task-metadata", "{"], "not JSON"),
        (["--task-configs", ".", "--task-metadata", "[]"], "want a JSON object"),
    ],
    ids=str,
)
def test_bad_options_are_one_line(tmp_path, arguments, message):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 4
    assert message in done.stderr


def test_the_plugin_costs_nothing_at_the_start_of_pytest():
    code = (
        "import sys, harness_ext.testing.plugin, harness_ext.testing; "
        "print([m for m in ('torch', 'lm_eval', 'datasets', 'transformers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_pytest_has_nothing_to_warn_of(tmp_path):
    (tmp_path / "test_one.py").write_text("def test_one():\n    pass\n")
    done = run("-W", "error", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout.lower()
