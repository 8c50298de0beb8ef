"""The checks of task definitions, called one by one: nothing is found in tasks of any shape, and a check that cannot look says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lm_eval.tasks._index import TaskIndex
from refusals import raises_line
from scipy import stats

from harness_ext.testing import Built, NotCheckedError, check_documents, check_oracle, check_random, check_static, names_below
from harness_ext.testing.definition import UnreadableIncludeError, read, whole
from harness_ext.testing.documents import check_one
from harness_ext.testing.models import cut
from harness_ext.testing.pipeline import guesses

ROOT = Path(__file__).parents[2]
FUNCTIONS = Path(__file__).parents[1] / "support" / "broken_tasks" / "functions.py"

METRICS = "metric_list:\n" + "".join(
    f"  - metric: {name}\n    aggregation: mean\n    higher_is_better: true\n" for name in ("acc", "acc_norm")
)
EXACT = "metric_list:\n  - metric: exact_match\n    aggregation: mean\n    higher_is_better: true\n"
STRIP = "filter_list:\n  - name: strip\n    filter:\n      - function: remove_whitespace\n      - function: take_first\n"
RANKED = "output_type: multiple_choice\ncustom_dataset: !function functions.with_answers\n"
WRITTEN = "output_type: generate_until\ncustom_dataset: !function functions.with_answers\n"
LETTERS = r'doc_to_text: "{{prompt}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"'

# Tasks as lm-eval's own are written, and those of their checks that have nothing to go by (besides the context length).
SHAPES = {
    "letters": (f"{RANKED}{LETTERS}\ndoc_to_choice: [A, B, C, D]\ndoc_to_target: target\n{METRICS}", set()),
    "names": (f"{RANKED}doc_to_text: prompt\ndoc_to_choice: choices\ndoc_to_target: city\n{METRICS}", set()),
    "two_are_right": (f"{RANKED}doc_to_text: prompt\ndoc_to_choice: choices\ndoc_to_target: !function more.two\n{METRICS}", set()),
    "prompts_ranked": (
        f"{RANKED}doc_to_text: !function more.which\ndoc_to_choice: !function more.prompts\ndoc_to_target: !function more.end\n{METRICS}",
        set(),
    ),
    "examples": (
        f"{RANKED}doc_to_text: prompt\ndoc_to_choice: choices\ndoc_to_target: target\ntraining_split: train\nnum_fewshot: 2\n{METRICS}",
        set(),
    ),
    "written": (f'{WRITTEN}doc_to_text: "{{{{prompt}}}} In"\ndoc_to_target: city\n{EXACT}{STRIP}', {"random"}),
    "no_delimiter": (f'{WRITTEN}doc_to_text: "{{{{prompt}}}} In "\ndoc_to_target: city\ntarget_delimiter: ""\n{EXACT}', {"random"}),
    "greedy": (
        f"{RANKED.replace('multiple_choice', 'loglikelihood')}doc_to_text: prompt\ndoc_to_target: city\n"
        "metric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n",
        {"random"},
    ),
    "rolling": (
        f'{RANKED.replace("multiple_choice", "loglikelihood_rolling")}doc_to_text: ""\ndoc_to_target: "{{{{prompt}}}}"\n'
        "metric_list:\n  - metric: word_perplexity\n",
        {"oracle", "random"},
    ),
}
MORE = """
def two(doc):
    return [doc["target"], (doc["target"] + 1) % 4]

def which(doc):
    return doc["number"] // 2 % 2

def prompts(doc):
    return [f"{name} is not place {doc['number']}" for name in ("Lima", "Oslo")]

def end(doc):
    return f"but place {doc['number'] + 1}"
"""


@pytest.fixture
def built(tmp_path):
    """Writes a task into a folder of its own and gives it as the checks want it."""

    def write(content, name="mine", **others):
        shutil.copy(FUNCTIONS, tmp_path)
        (tmp_path / "more.py").write_text(MORE)
        file = tmp_path / f"{name}.yaml"
        file.write_text(f"task: {name}\ntest_split: test\n{content}metadata:\n  version: 1.0\n{others.pop('declared', '')}")
        return Built(file, name, [tmp_path], **others)

    return write


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_found_in_tasks_of_any_shape(built, shape):
    content, unchecked = SHAPES[shape]
    task = built(content, longest=2000)
    assert check_static(task.file) == []
    assert check_documents(task) == []
    for name, check in (("oracle", check_oracle), ("random", check_random)):
        if name in unchecked:
            with pytest.raises(NotCheckedError):
                check(task)
        else:
            assert check(task) == []


def test_the_chance_of_a_task_with_two_right_answers_is_twice_as_high(built):
    content = SHAPES["two_are_right"][0]
    assert check_one("chance", built(content, declared="  chance: 0.5\n")) == []
    (found,) = check_one("chance", built(content, declared="  chance: 0.25\n"))
    assert "0.5000" in found.message


@pytest.mark.parametrize(("check", "declared"), [("chance", "  chance: 0.25\n"), ("balance", "  balanced: true\n"), ("context", "")])
def test_what_cannot_be_checked_is_said_and_does_not_stop_the_other_checks(built, check, declared):
    task = built(SHAPES["written"][0], declared=declared)
    with pytest.raises(NotCheckedError):
        check_one(check, task)
    assert check_documents(task) == []


def test_a_task_is_built_from_its_files_as_they_are_now(built):
    content = SHAPES["names"][0]
    assert check_documents(built(content)) == []
    (found,) = check_one("target", built(content.replace("doc_to_target: city", "doc_to_target: number")))
    assert found.document == 4


def test_the_context_holds_the_description_and_the_examples_that_lm_eval_puts_before_a_prompt(built):
    content = SHAPES["examples"][0]
    alone, described = (check_one("context", built(f"{first}{content}", longest=1))[0].message for first in ("", "description: 'a b c '\n"))
    assert int(described.split()[0]) == int(alone.split()[0]) + 3
    zero = check_one("context", built(content.replace("num_fewshot: 2", "num_fewshot: 0"), longest=1))[0].message
    assert int(alone.split()[0]) > 2.5 * int(zero.split()[0])


@pytest.mark.parametrize(("size", "chance"), [(1, 0.5), (20, 0.25), (48, 1 / 16), (256, 0.5), (300, 0.01)])
def test_what_chance_leaves_open_is_as_wide_as_the_binomial_distribution_says(size, chance):
    least, most = guesses([chance] * size, 1e-3)
    right = stats.binom(size, chance)
    assert round(least * size) == right.ppf(0.0005)
    assert round(most * size) == right.ppf(0.9995)


def test_what_chance_leaves_open_among_documents_with_different_choices():
    chances = [0.5, 1.0, 0.25]
    assert guesses(chances, 0.2) == (1 / 3, 1.0)  # of 1, 2 or 3 right ones: 3/8, 4/8 and 1/8
    assert guesses(chances, 0.3) == (1 / 3, 2 / 3)


def test_a_completion_ends_at_the_first_of_the_strings_that_end_it():
    assert cut("a b. c\nd", ["\n", "."]) == cut("a b. c\nd", ".") == "a b"
    assert cut("a b", None) == cut("a b", [""]) == "a b"


def test_a_function_is_looked_for_below_a_key_that_stands_twice_as_lm_eval_does(built):
    content = SHAPES["names"][0].replace("doc_to_target: city", "doc_to_target: !function functions.no_such\ndoc_to_target: city")
    found = {finding.check: finding.key for finding in check_static(built(content).file)}
    assert found == {"duplicate-key": "doc_to_target", "function": "doc_to_target"}


def test_the_names_of_a_folder_are_those_that_lm_eval_indexes():
    folder = ROOT / "task_configs"
    assert set(names_below([folder])) == set(TaskIndex().build([folder]))


def test_an_include_that_cannot_be_read_is_named_whatever_its_error_says(tmp_path):
    (tmp_path / "base.yaml").write_text("doc_to_text: !include prompt.txt\n")
    (tmp_path / "middle.yaml").write_text("include: base.yaml\n")
    (tmp_path / "task.yaml").write_text("include: middle.yaml\ntask: mine\n")
    with raises_line(UnreadableIncludeError, "the include base.yaml: not YAML: ", "!include") as error:
        whole(read(tmp_path / "task.yaml"))
    assert "middle.yaml" not in str(error.value)
