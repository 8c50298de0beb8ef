"""The ICL tasks: the items, their options, the scores, and all of it through lm-eval's own pipeline."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from pathlib import Path

import lm_eval.tasks
import numpy as np
import pytest
from lm_eval import simple_evaluate
from lm_eval._cli.harness import HarnessCLI
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import TaskIndex
from refusals import raises_line

from harness_ext.errors import BadOptionError, UnknownNameError
from harness_ext.host import registration
from harness_ext.tasks import functions, icl
from harness_ext.tasks.functions import FAMILIES, ImpossibleDrawError
from harness_ext.tasks.icl import Options, item, process_results, render
from harness_ext.tasks.words import read_categories

CONFIGS = Path(__file__).parents[2] / "task_configs"
NAMES = sorted(FAMILIES)


def manager(**metadata):
    """A task manager that knows our tasks alone: indexing lm-eval's own takes seconds."""
    registration.register()
    return TaskManager(include_path=str(CONFIGS), include_defaults=False, metadata=metadata)


def docs(task, **metadata):
    return list(manager(**metadata).load([task])["tasks"][task].test_docs())


class Chooser(LM):
    """Holds the label that ``choose`` gives for an item to be the likeliest."""

    def __init__(self, choose):
        super().__init__()
        self.choose, self.requests = choose, []

    def loglikelihood(self, requests, disable_tqdm=False):
        self.requests += requests
        chosen = [request.args[1] == f" {self.choose(request.doc)}" for request in requests]
        return [(-0.5 if yes else -2.0, yes) for yes in chosen]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError

    def generate_until(self, requests, disable_tqdm=False):
        raise NotImplementedError


@pytest.fixture
def evaluate(monkeypatch):
    """lm-eval's ``simple_evaluate``, without the seconds that its report on the machine takes."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda storage: None)
    return lambda choose, tasks, **metadata: simple_evaluate(model=Chooser(choose), tasks=tasks, task_manager=manager(**metadata))


def random_label(doc):
    return random.Random(doc["prompt"]).randrange(len(doc["choices"]))


# --- items


DIGESTS = {
    "icl_linear": "7693ec5069dbd69e",
    "icl_linear_2digit": "e8ae70a2f3400678",
    "icl_linear_k4": "41166229b87e8517",
    "icl_nn": "e82d837371b2c1e7",
    "icl_nn_2digit": "d937f8d1ff9f89ed",
    "icl_nn_k4": "71a73d0f9abff316",
    "icl_tree": "4c66c848aa8a3e96",
    "icl_tree_2digit": "e046009c7096bfc6",
    "icl_tree_k4": "298eb4bfa11abe6e",
    "icl_words": "0ace1cb88caf245d",
    "icl_words_shuffled": "71c25486643ba956",
}


@pytest.mark.parametrize("task", sorted(path.stem for path in CONFIGS.glob("icl/icl_*.yaml")))
def test_items_are_the_same_on_every_machine_and_with_every_library_version(task):
    # A change here changes the published tasks: give them a new version.
    text = "\n".join(f"{doc['prompt']} {doc['choices'][doc['target']]}\n" for doc in docs(task, icl_items=64))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DIGESTS[task]


def test_the_ability_of_a_task_is_in_the_results(evaluate):
    for metadata in ({}, {"icl_seed": 1}):
        configs = evaluate(random_label, ["icl_words", "kv_4"], icl_items=4, lookup_items=4, **metadata)["configs"]
        assert {config["metadata"]["ability"] for config in configs.values()} == {"in-context"}


@pytest.mark.parametrize("task", ["icl_words", "icl_words_shuffled"])
def test_the_tasks_of_words_show_eight_exemplars_of_each_of_two_categories(task):
    for doc in docs(task, icl_items=20):
        assert Counter(doc["labels"][:-1]) == {0: 8, 1: 8}
        assert doc["prompt"].count("\n") == 16
    assert {len(doc["choices"]) for doc in docs(task, icl_labels=4, icl_items=4)} == {4}


def test_who_reads_the_categories_off_the_exemplars_scores_one_in_words_and_chance_if_they_are_shuffled(evaluate):
    categories = {word: name for name, words in read_categories(None).items() for word in words}

    def nearest(doc):
        *words, query = doc["words"]
        alike = [label for word, label in zip(words, doc["labels"], strict=False) if categories[word] == categories[query]]
        return doc["choices"][Counter(alike).most_common(1)[0][0]]

    found = evaluate(nearest, ["icl_words", "icl_words_shuffled"], icl_items=256)["results"]
    assert found["icl_words"]["acc,none"] == found["icl_words"]["exact_match,none"] == 1
    assert abs(found["icl_words_shuffled"]["acc,none"] - 0.5) < 4 * found["icl_words_shuffled"]["acc_stderr,none"]


def test_a_task_has_2048_items_and_each_label_is_right_equally_often():
    assert Counter(doc["target"] for doc in docs("icl_linear_k4")) == dict.fromkeys(range(4), 512)


@pytest.mark.parametrize("family", NAMES)
def test_an_item_does_not_depend_on_how_many_there_are(family):
    few, many = (icl.load(family=family, icl_items=items)["test"].to_list() for items in (5, 9))
    assert many[:5] == few
    assert many[7] == item(family, Options(items=1), 7)


def test_all_prompts_differ_between_items_seeds_families_and_numbers_of_labels():
    prompts = [
        item(family, Options(seed=seed, labels=labels), index)["prompt"]
        for family in NAMES for seed in (0, 1, 2**32 - 1) for labels in (2, 4) for index in range(4)
    ]  # fmt: skip
    assert len(set(prompts)) == len(prompts)


def test_the_prompt_is_one_pair_of_lines_for_each_exemplar_and_the_query_without_its_label():
    prompt = render(np.array([[3, 7, 0, 9], [10, -2, 4, 4], [1, 2, 3, 5]]), np.array([1, 3, 0]))
    assert prompt == "Input: 3, 7, 0, 9\nOutput: 1\n\nInput: 10, -2, 4, 4\nOutput: 3\n\nInput: 1, 2, 3, 5\nOutput:"


@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("family", NAMES)
def test_the_prompt_can_be_read_back(family, labels):
    exemplar = rf"Input: (\d), (\d), (\d), (\d)\nOutput: ([0-{labels - 1}])\n\n"
    for index in range(8):
        doc = item(family, Options(labels=labels), index)
        assert re.fullmatch(rf"({exemplar}){{32}}Input: \d, \d, \d, \d\nOutput:", doc["prompt"])
        read = [list(map(int, found)) for found in re.findall(exemplar, doc["prompt"])]
        assert read == [[*point, label] for point, label in zip(doc["points"], doc["labels"], strict=True)][:-1]
        assert doc["prompt"].endswith("Input: " + ", ".join(map(str, doc["points"][-1])) + "\nOutput:")
        assert doc["choices"] == [str(label) for label in range(labels)]
        assert doc["target"] == doc["labels"][-1]


def test_the_query_is_no_exemplar_and_no_exemplar_comes_twice():
    for doc in docs("icl_tree", icl_items=64):
        assert len(set(map(tuple, doc["points"]))) == 33


@pytest.mark.parametrize("task", ["icl_linear_2digit", "icl_nn_2digit", "icl_tree_2digit"])
def test_the_two_digit_variant_has_inputs_from_0_to_99(task):
    inputs = {x for doc in docs(task, icl_items=32) for point in doc["points"] for x in point}
    assert inputs == set(range(100))


# --- no score without learning


@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("family", NAMES)
def test_guesses_that_learn_nothing_score_one_over_k(family, labels):
    options = Options(items=240, labels=labels)
    items = [item(family, options, index) for index in range(options.items)]

    def score(guess):
        return sum(guess(doc["labels"][:-1]) == doc["target"] for doc in items) / len(items)

    for label in range(labels):
        assert score(lambda _, label=label: label) == 1 / labels
    assert score(lambda shown: Counter(sorted(shown)).most_common(1)[0][0]) == 1 / labels
    for position in (-1, -2, 0, 15):  # of the exemplar whose label is repeated
        error = (1 / labels * (1 - 1 / labels) / len(items)) ** 0.5
        assert abs(score(lambda shown, position=position: shown[position]) - 1 / labels) < 4 * error


def test_the_majority_scores_one_over_k_where_the_labels_do_not_divide_the_exemplars():
    options = Options(items=240, labels=3)
    items = [item("linear", options, index) for index in range(options.items)]
    right = sum(Counter(doc["labels"][:-1]).most_common(1)[0][0] == doc["target"] for doc in items) / len(items)
    assert abs(right - 1 / 3) < 4 * (2 / 9 / len(items)) ** 0.5


# --- options


def test_options_are_set_by_metadata():
    options = Options(items=3, dimensions=2, exemplars=6, labels=3, low=-5, high=20, seed=3)
    metadata = {f"icl_{name}": value for name, value in vars(options).items()}
    assert docs("icl_nn", **metadata) == [item("nn", options, index) for index in range(3)]


def test_metadata_wins_over_the_task_and_both_over_the_defaults():
    assert docs("icl_linear_k4", icl_items=2) == [item("linear", Options(labels=4), index) for index in range(2)]
    assert docs("icl_linear_k4", icl_items=2, icl_labels=3) == [item("linear", Options(labels=3), index) for index in range(2)]


def test_options_are_set_by_a_task_of_ones_own(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        f"include: {CONFIGS / 'icl' / 'icl_tree.yaml'}\ntask: mine\nmetadata:\n  version: 1\n  icl_items: 4\n  icl_exemplars: 8\n"
    )
    found = TaskManager(include_path=[str(CONFIGS), str(tmp_path)], include_defaults=False).load(["mine"])["tasks"]["mine"]
    assert list(found.test_docs()) == [item("tree", Options(exemplars=8), index) for index in range(4)]


def test_model_arguments_do_not_change_the_items():
    # lm-eval mixes them into the metadata of every task.
    arguments = {
        "pretrained": "lab-s", "sparsity": 0.7, "pruner": "wanda", "pruner.block_size": 64, "calibration.seed": 1, "seed": 5, "items": 1,
        "labels": 4, "dtype": "float32", "device": None,
    }  # fmt: skip
    assert docs("icl_nn", icl_items=4, **arguments) == docs("icl_nn", icl_items=4)


ALONE = [
    ({"icl_sed": 3}, ["'icl_sed'", "Did you mean 'icl_seed'?"]),
    ({"icl_family": "tree"}, ["'icl_family'"]),
    ({"icl_seed": -1}, ["icl_seed=-1", "4294967295"]),
    ({"icl_seed": 2**32}, ["icl_seed=4294967296", "4294967295"]),
    ({"icl_seed": None}, ["icl_seed=None"]),
    ({"icl_items": 0}, ["icl_items=0"]),
    ({"icl_items": True}, ["icl_items=True"]),
    ({"icl_exemplars": "32"}, ["icl_exemplars='32'"]),
    ({"icl_exemplars": 5000}, ["icl_exemplars=5000", "4096"]),
    ({"icl_labels": 1}, ["icl_labels=1", "10"]),
    ({"icl_labels": 11}, ["icl_labels=11", "10"]),
    ({"icl_dimensions": 17}, ["icl_dimensions=17", "16"]),
    ({"icl_high": 9.5}, ["icl_high=9.5"]),
    ({"icl_low": -(10**7)}, ["icl_low=-10000000", "-1000000"]),
]
TOGETHER = [
    ({"icl_low": 9}, ["icl_low=9", "icl_high=9"]),
    ({"icl_exemplars": 2, "icl_labels": 4}, ["icl_exemplars=2", "4"]),
    ({"icl_dimensions": 1}, ["icl_dimensions=1", "10 points", "32 exemplars"]),
    ({"icl_dimensions": 1, "icl_labels": 4, "icl_high": 99}, ["0..99", "4 labels", "32 exemplars"]),
]


@pytest.mark.parametrize(("metadata", "parts"), ALONE)
def test_an_option_that_no_task_could_take_is_refused_by_the_task_manager_at_once(metadata, parts):
    with raises_line(BadOptionError, *parts):
        manager(**metadata)


@pytest.mark.parametrize(("metadata", "parts"), TOGETHER)
def test_options_that_are_impossible_together_are_refused_when_a_task_is_looked_up_or_loaded(metadata, parts, monkeypatch):
    monkeypatch.setattr(functions, "MAX_DRAWS", 50)
    for task in ("icl", "icl_linear", "icl_*"):
        with raises_line(BadOptionError, *parts):
            manager(**metadata).match_tasks([task])
    for task in ("icl", "icl_linear"):
        with raises_line(BadOptionError, *parts):
            manager(**metadata).load([task])


def test_a_draw_that_does_not_exist_is_an_error_of_its_own(monkeypatch):
    monkeypatch.setattr(functions, "MAX_DRAWS", 50)
    with pytest.raises(ImpossibleDrawError):
        icl.check_task(family="tree", icl_dimensions=1, icl_labels=4, icl_high=99)


def test_an_option_that_only_another_task_could_not_take_is_accepted():
    # By itself icl_low=50 is above the default icl_high=9, but not above this task's 99.
    assert docs("icl_linear_2digit", icl_low=50, icl_items=2) == [item("linear", Options(low=50, high=99), index) for index in range(2)]
    assert manager(icl_low=50).match_tasks(["icl_linear_2digit"]) == ["icl_linear_2digit"]


def test_a_task_with_an_unknown_family_or_option_is_refused():
    with raises_line(UnknownNameError, "'tre'", "Did you mean 'tree'?", "linear, nn, tree"):
        icl.load(family="tre")
    with raises_line(BadOptionError, "'icl_range'"):
        icl.load(family="tree", icl_range=9)


class ModelLoadedError(Exception):
    """Stands for the moment in which lm-eval would load a model."""


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        (["icl_items=4"], ModelLoadedError),
        (["icl_sed=3"], BadOptionError),
        (["icl_seed=first"], BadOptionError),
        (["icl_low=9"], BadOptionError),
        (["icl_labels=4", "icl_dimensions=1", "icl_high=99"], ImpossibleDrawError),
    ],
)
def test_the_command_refuses_bad_options_before_it_loads_a_model(metadata, error, monkeypatch):
    def get_model(name):
        raise ModelLoadedError(name)

    monkeypatch.setattr(functions, "MAX_DRAWS", 50)
    own, files = Path(lm_eval.tasks.__file__).parent, TaskIndex._iter_yaml_files
    monkeypatch.setattr("lm_eval.api.registry.get_model", get_model)
    monkeypatch.setattr(TaskIndex, "_iter_yaml_files", staticmethod(lambda root: [] if root == own else files(root)))
    registration.register()
    command = ["lm_eval", "run", "--model", "pruned-hf", "--model_args", "sparsity=0.7", "--tasks", "icl", "--metadata", *metadata]
    monkeypatch.setattr("sys.argv", command)
    cli = HarnessCLI()
    with pytest.raises(error):
        cli.execute(cli.parse_args())


# --- scores


@pytest.mark.parametrize(
    ("target", "results", "expected"),
    [
        (1, [(-2.0, False), (-1.0, True)], (1, 1, 1)),
        (1, [(-2.0, False), (-1.0, False)], (1, 1, 0)),  # the likeliest label, but some other text is likelier still
        (1, [(-1.0, True), (-2.0, False)], (0, -1, 0)),
        (0, [(-1.0, False), (-1.0, False)], (1, 1, 0)),  # the first of equally likely labels counts as the answer
        (1, [(-1.0, False), (-1.0, False)], (0, -1, 0)),
        (2, [(-9.0, False), (-8.0, False), (-1.0, True), (-3.0, False)], (1, 1, 1)),
        (3, [(-9.0, False), (-8.0, False), (-1.0, True), (-3.0, False)], (0, -1 / 3, 0)),
    ],
)
def test_scores_of_one_item(target, results, expected):
    found = process_results({"target": target}, results)
    assert found == pytest.approx(dict(zip(("acc", "acc_norm_chance", "exact_match"), expected, strict=True)))


def test_a_model_that_knows_the_answers_scores_one(evaluate):
    results = evaluate(lambda doc: doc["target"], ["icl", "icl_tree_k4"], icl_items=24)["results"]
    for task in ("icl", "icl_linear", "icl_nn", "icl_tree", "icl_tree_k4"):
        assert [results[task][f"{metric},none"] for metric in ("acc", "acc_norm_chance", "exact_match")] == [1, 1, 1]
        assert results[task]["acc_stderr,none"] == 0


@pytest.mark.parametrize(("tasks", "labels"), [(["icl"], 2), (["icl_tree_k4"], 4)])
def test_a_constant_answer_scores_exactly_chance(tasks, labels, evaluate):
    for label in (0, labels - 1):
        for result in evaluate(lambda _, label=label: label, tasks, icl_items=40)["results"].values():
            assert result["acc,none"] == 1 / labels
            assert result["acc_norm_chance,none"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("task", ["icl_linear", "icl_nn_k4"])
def test_a_random_guess_scores_chance_and_the_standard_errors_say_how_far_off(task, evaluate):
    items, labels = 160, 4 if task.endswith("k4") else 2
    result = evaluate(random_label, [task], icl_items=items)["results"][task]
    right = [float(random_label(doc) == doc["target"]) for doc in docs(task, icl_items=items)]
    expected = {"acc": np.mean(right), "acc_norm_chance": (np.mean(right) - 1 / labels) / (1 - 1 / labels), "exact_match": np.mean(right)}
    assert {metric: result[f"{metric},none"] for metric in expected} == pytest.approx(expected)
    error = np.std(right, ddof=1) / items**0.5
    expected = {"acc": error, "acc_norm_chance": error / (1 - 1 / labels), "exact_match": error}
    assert {metric: result[f"{metric}_stderr,none"] for metric in expected} == pytest.approx(expected)
    assert abs(result["acc_norm_chance,none"]) < 4 * result["acc_norm_chance_stderr,none"]


def test_the_group_is_the_mean_of_its_three_tasks(evaluate):
    results = evaluate(lambda doc: doc["target"] if doc["points"][0][0] < 5 else random_label(doc), ["icl"], icl_items=40)
    tasks = [results["results"][f"icl_{family}"] for family in NAMES]
    assert results["group_subtasks"]["icl"] == [f"icl_{family}" for family in NAMES]
    assert len({task["acc,none"] for task in tasks}) > 1
    for metric in ("acc", "acc_norm_chance", "exact_match"):
        assert results["groups"]["icl"][f"{metric},none"] == pytest.approx(np.mean([task[f"{metric},none"] for task in tasks]))
        pooled = sum(task[f"{metric}_stderr,none"] ** 2 for task in tasks) ** 0.5 / 3
        assert results["groups"]["icl"][f"{metric}_stderr,none"] == pytest.approx(pooled, rel=0.05)


def test_the_model_is_asked_for_each_label_after_a_space_and_the_prompt_has_none(evaluate, monkeypatch):
    asked = []
    original = Chooser.loglikelihood
    monkeypatch.setattr(Chooser, "loglikelihood", lambda lm, requests, **_: asked.extend(requests) or original(lm, requests))
    evaluate(random_label, ["icl_tree_k4"], icl_items=3)
    expected = [(item("tree", Options(labels=4), index)["prompt"], f" {label}") for index in range(3) for label in range(4)]
    assert sorted(request.args for request in asked) == sorted(expected)
