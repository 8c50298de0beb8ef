"""Key-value lookup: prompts that a reader without any knowledge answers, and nobody else."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from refusals import raises_line

from harness_ext.errors import BadOptionError
from harness_ext.host import registration
from harness_ext.tasks import lookup
from harness_ext.tasks.lookup import VALUES, Options, check_options, check_task, item, render_pairs

CONFIGS = Path(__file__).parents[2] / "task_configs"
LENGTHS = {path.stem: int(path.stem.removeprefix("kv_")) for path in CONFIGS.glob("lookup/kv_*.yaml")}
EACH = sorted(LENGTHS.items(), key=lambda entry: entry[1])


def manager(**metadata):
    registration.register()
    return TaskManager(include_path=str(CONFIGS), include_defaults=False, metadata=metadata)


def docs(task, **metadata):
    return list(manager(**metadata).load([task])["tasks"][task].test_docs())


def items(**options):
    return [item(Options(**options), index) for index in range(options["items"])]


def pairs_of(prompt):
    """The pairs of a prompt, and the key that it asks for."""
    *pairs, query = prompt.split("\n\n")
    read = [re.fullmatch(r"Key: (\d, \d, \d)\nValue: ([a-z]+)", pair).groups() for pair in pairs]
    return read, re.fullmatch(r"Key: (\d, \d, \d)\nValue:", query)[1]


def test_the_prompt_is_a_pair_of_lines_for_each_key_and_the_query_without_its_value():
    prompt = render_pairs(np.array([[0, 0, 7], [9, 1, 0], [0, 0, 7]]), np.array([0, 15]))
    assert prompt == "Key: 0, 0, 7\nValue: apple\n\nKey: 9, 1, 0\nValue: tree\n\nKey: 0, 0, 7\nValue:"
    assert render_pairs(np.array([[1, 2, 3]]), np.array([3])) == f"Key: 1, 2, 3\nValue: {VALUES[3]}"


@pytest.mark.parametrize(("task", "pairs"), EACH)
def test_a_reader_of_the_prompt_alone_answers_every_item(task, pairs):
    for doc in docs(task, lookup_items=40):
        read, query = pairs_of(doc["prompt"])
        keys = [key for key, _ in read]
        assert len(set(keys)) == len(keys) == pairs
        assert doc["choices"][doc["target"]] == dict(read)[query]
        assert keys.index(query) == doc["position"]
        assert tuple(doc["choices"]) == VALUES


@pytest.mark.parametrize("pairs", [1, 4, 32])
def test_the_pair_that_is_asked_for_is_at_every_place_equally_often(pairs):
    assert Counter(doc["position"] for doc in items(items=3 * pairs, pairs=pairs)) == dict.fromkeys(range(pairs), 3)


def test_a_prompt_can_hold_every_key_there_is():
    doc = item(Options(pairs=1000), 999)
    read, query = pairs_of(doc["prompt"])
    assert {key for key, _ in read} == {", ".join(f"{number:03}") for number in range(1000)}
    assert (doc["position"], read[-1]) == (999, (query, VALUES[doc["target"]]))


def test_values_and_keys_are_uniform():
    found = items(items=1024, pairs=16)
    values = Counter(doc["target"] for doc in found)
    shown, keys = zip(*(pair for doc in found for pair in [(value, key) for key, value in pairs_of(doc["prompt"])[0]]), strict=True)
    digits = [Counter(key.split(", ")[place] for key in keys) for place in range(3)]
    for counts, cells in ((values, 16), (Counter(shown), 16), *((counts, 10) for counts in digits)):
        expected = counts.total() / cells
        assert len(counts) == cells
        # Chi-square with cells - 1 degrees: mean cells - 1, variance twice that. Keys without repetition vary a little less.
        assert sum((count - expected) ** 2 / expected for count in counts.values()) < cells - 1 + 5 * (2 * (cells - 1)) ** 0.5


@pytest.mark.parametrize("pairs", [4, 32])
def test_guesses_that_do_not_look_the_key_up_score_what_the_documentation_says(pairs):
    found = items(items=1024, pairs=pairs)
    expected = {  # the share of items in which the guess is right
        "constant": 1 / 16,
        "value shown last": 1 / pairs + (1 - 1 / pairs) / 16,
        "value shown first": 1 / pairs + (1 - 1 / pairs) / 16,
    }
    shown = [[value for _, value in pairs_of(doc["prompt"])[0]] for doc in found]
    guesses = {"constant": ["king"] * 1024, "value shown last": [s[-1] for s in shown], "value shown first": [s[0] for s in shown]}
    for name, share in expected.items():
        right = np.mean([guess == doc["choices"][doc["target"]] for guess, doc in zip(guesses[name], found, strict=True)])
        assert abs(right - share) < 4 * (share * (1 - share) / 1024) ** 0.5


def test_an_item_depends_on_the_options_and_its_number_alone():
    assert items(items=9, pairs=8)[:4] == items(items=4, pairs=8)
    prompts = [
        item(Options(pairs=pairs, seed=seed), index)["prompt"] for pairs in (4, 8) for seed in (0, 1, 2**32 - 1) for index in range(5)
    ]
    assert len(set(prompts)) == len(prompts)


DIGESTS = {
    "kv_4": "5a8e6fbbf0910771",
    "kv_8": "7462d9e9757c3c1a",
    "kv_16": "d5c809ccedc122d8",
    "kv_32": "d6637b6b952f320e",
    "kv_64": "0e680e6124d173af",
    "kv_128": "fb1da1adc78c234f",
    "kv_256": "415c887f6b57e175",
    "kv_512": "f78b602c818eae48",
}


@pytest.mark.parametrize(("task", "pairs"), EACH)
def test_items_are_the_same_on_every_machine_and_with_every_library_version(task, pairs):
    # A change here changes the published tasks: give them a new version.
    text = "\n".join(f"{doc['prompt']} {doc['choices'][doc['target']]}\n" for doc in items(items=32, pairs=pairs))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DIGESTS[task]


def test_a_task_has_1024_items():
    assert len(docs("kv_4")) == 1024


# --- options


def test_options_are_set_by_metadata_and_win_over_the_task():
    assert docs("kv_8", lookup_items=3, lookup_seed=7, pairs=3, seed=1, items=9) == items(items=3, pairs=8, seed=7)
    assert docs("kv_8", lookup_items=3, lookup_pairs=5) == items(items=3, pairs=5)


@pytest.mark.parametrize(
    ("metadata", "parts"),
    [
        ({"lookup_pair": 3}, ["'lookup_pair'", "Did you mean 'lookup_pairs'?", "lookup_items"]),
        ({"lookup_pairs": 1001}, ["lookup_pairs=1001", "1000"]),
        ({"lookup_pairs": 0}, ["lookup_pairs=0", "1000"]),
        ({"lookup_pairs": "8"}, ["lookup_pairs='8'"]),
        ({"lookup_items": 0}, ["lookup_items=0", "1000000"]),
        ({"lookup_items": True}, ["lookup_items=True"]),
        ({"lookup_seed": -1}, ["lookup_seed=-1", "4294967295"]),
        ({"lookup_seed": 1.5}, ["lookup_seed=1.5"]),
    ],
)
def test_an_option_that_no_task_could_take_is_refused_at_once(metadata, parts):
    for call in (
        lambda: check_options(metadata),
        lambda: check_task(**metadata),
        lambda: lookup.load(**metadata),
        lambda: manager(**metadata),
    ):
        with raises_line(BadOptionError, *parts):
            call()


# --- scores


class Chooser(LM):
    """Holds the value that ``choose`` gives for an item to be the likeliest."""

    def __init__(self, choose):
        super().__init__()
        self.choose = choose

    def loglikelihood(self, requests, disable_tqdm=False):
        chosen = [request.args == (request.doc["prompt"], f" {self.choose(request.doc)}") for request in requests]
        return [(-0.5 if yes else -2.0, yes) for yes in chosen]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError

    def generate_until(self, requests, disable_tqdm=False):
        raise NotImplementedError


def test_the_scores_through_lm_eval_are_those_of_the_items(monkeypatch):
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda storage: None)

    def nearsighted(doc):  # sees the later half of the prompt alone
        read, query = pairs_of(doc["prompt"])
        return dict(read[len(read) // 2 :]).get(query, "nothing")

    tasks = manager(lookup_items=64)
    results = simple_evaluate(model=Chooser(nearsighted), tasks=["kv_4", "kv_16"], task_manager=tasks)["results"]
    for task in ("kv_4", "kv_16"):
        result = results[task]
        first = np.mean([doc["target"] == 0 for doc in items(items=64, pairs=LENGTHS[task]) if doc["position"] < LENGTHS[task] // 2])
        share = 0.5 + 0.5 * first  # of equally likely choices the first counts
        assert result["acc,none"] == pytest.approx(share)
        assert result["exact_match,none"] == pytest.approx(0.5)
        assert result["acc_norm_chance,none"] == pytest.approx((share - 1 / 16) / (15 / 16))
        assert result["acc_stderr,none"] == pytest.approx((share * (1 - share) / 63) ** 0.5)
        assert result["acc_norm_chance_stderr,none"] == pytest.approx(result["acc_stderr,none"] * 16 / 15)
