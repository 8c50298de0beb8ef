"""The embedded models have learned what their cards say, and pruners of the default one come in the order that their papers give."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from harness_run import without_environment
from lm_eval import simple_evaluate
from transformers import AutoModelForCausalLM, AutoTokenizer

import harness_ext
from harness_ext.host.arguments import DEFAULT_MODEL
from harness_ext.host.model import PrunedHFLM
from harness_ext.plugins import Plugins
from harness_ext.tasks.people import population

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import score_lab

from harness_ext.tasks.lab_facts import facts_of

FAMILY = ("lab-xs", "lab-s", "lab-s4", "lab-m")
PRUNERS = ("random", "magnitude", "wanda", "sparsegpt")
BARS = {
    "lab_facts_closed": ("exact_match", 0.97),
    "lab_facts_open": ("exact_match", 0.95),
    "lab_unseen_open": ("exact_match", 0.95),
    "lab_unseen_override": ("exact_match", 0.95),
    "lab_facts_override": ("exact_match", 0.95),
    "kv_32": ("acc", 0.90),
    "icl_linear": ("acc", 0.85),
    "icl_nn": ("acc", 0.75),
    "icl_tree": ("acc", 0.75),
}


def folder_of(name):
    return Path(Plugins().models.get(name)[0])


def evaluate(name, tasks, **metadata):
    lm = PrunedHFLM.create_from_arg_obj({"pretrained": name}, {"batch_size": 1})
    with without_environment():
        return simple_evaluate(model=lm, tasks=tasks, metadata=metadata)


@pytest.fixture(scope="module")
def scores():
    """The group that the README shows, with fewer items."""
    items = {"facts_items": 96, "facts_choices": 2, "lookup_items": 16, "icl_items": 256}
    return evaluate(DEFAULT_MODEL, ["memory_vs_context"], **items)["results"]


@pytest.mark.parametrize("task", BARS)
@pytest.mark.slow
def test_the_default_model_passes_the_bar(scores, task):
    metric, bar = BARS[task]
    assert scores[task][f"{metric},none"] >= bar


@pytest.mark.parametrize("name", FAMILY[:-1])
@pytest.mark.slow
def test_a_smaller_model_uses_its_context_nearly_as_well(scores, name):
    tasks = {"lab_facts_open": 0.95, "lab_unseen_open": 0.95, "lab_facts_override": 0.95, "kv_32": 0.95, "icl_linear": 0.9, "icl_tree": 0.9}
    smaller = evaluate(name, list(tasks), facts_items=96, facts_choices=2, lookup_items=16, icl_items=256)["results"]
    for task, share in tasks.items():
        metric = BARS[task][0] + ",none"
        assert smaller[task][metric] >= share * scores[task][metric], task


@pytest.mark.slow
def test_every_score_has_a_standard_error(scores):
    tasks = {name for name in scores if name in score_lab.SCORES}
    assert tasks == set(score_lab.SCORES)
    for task in tasks:
        for metric, value in scores[task].items():
            if metric.endswith(",none") and "_stderr" not in metric:
                assert isinstance(scores[task][metric.replace(",none", "_stderr,none")], float), (task, metric, value)


@pytest.mark.slow
def test_it_does_not_fall_back_on_memory_where_a_passage_contradicts_it(scores):
    assert scores["lab_facts_override"]["memory_match,none"] <= 0.05


# --- the family


@pytest.mark.parametrize("name", FAMILY)
def test_a_model_is_small_enough_for_a_package_in_bf16_and_its_card_counts_its_parameters(name):
    folder = folder_of(name)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert max(path.stat().st_size for path in folder.iterdir()) <= 16e6
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert f"{sum(parameter.numel() for parameter in model.parameters()):,}" in (folder / "README.md").read_text(encoding="utf-8")


def test_all_models_together_are_small():
    assert sum(path.stat().st_size for name in FAMILY for path in folder_of(name).iterdir()) <= 16e6


def test_width_and_depth_shrink_together_and_the_tokenizer_is_the_same():
    shapes, tokenizers = [], set()
    for name in FAMILY:
        config = json.loads((folder_of(name) / "config.json").read_text())
        shapes.append((config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]))
        tokenizers.add((folder_of(name) / "tokenizer.json").read_text())
    for one, other in pairwise(shapes):
        assert one != other
        assert all(small <= large for small, large in zip(one, other, strict=True))
    assert sum(one[1:] == other[1:] for one, other in pairwise(shapes)) == 1  # two sizes differ in depth alone
    assert len(tokenizers) == 1


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.slow
def test_a_model_runs_under_the_plain_hf_model_with_the_same_scores(name):
    options = {"tasks": ["lab_facts_closed"], "metadata": {"facts_items": 16, "facts_choices": 0}}
    with without_environment():
        plain = simple_evaluate(model="hf", model_args={"pretrained": str(folder_of(name)), "device": "cpu"}, batch_size=16, **options)
    assert plain["results"]["lab_facts_closed"] == evaluate(name, options["tasks"], **options["metadata"])["results"]["lab_facts_closed"]


def test_facts_about_the_memorised_people_are_recalled_and_those_of_others_cannot_be():
    # The facts of the unseen people were drawn for the tasks alone; asked without a passage, they can only be guessed.
    people = population(0)
    model, tokenizer = (kind.from_pretrained(folder_of(DEFAULT_MODEL)) for kind in (AutoModelForCausalLM, AutoTokenizer))
    guesses = {}
    for crowd in ("memorised", "unseen"):
        facts = facts_of(people, crowd)[::37][:128]
        by_length = defaultdict(list)  # questions of one length need no padding
        for fact in facts:
            ids = tokenizer(fact.question)["input_ids"]
            by_length[len(ids)].append((ids, fact.answers[0]))
        right = 0
        for length, asked in by_length.items():
            told = model.generate(torch.tensor([ids for ids, _ in asked]), do_sample=False, max_new_tokens=2)[:, length:]
            right += sum(words.strip() == answer for words, (_, answer) in zip(tokenizer.batch_decode(told), asked, strict=True))
        guesses[crowd] = right / len(facts)
    assert guesses["memorised"] >= 0.97
    assert guesses["unseen"] <= 0.02  # chance is 1/4,096


# --- pruning


@pytest.fixture(scope="module")
def calibration():
    """A few sequences that the model wrote itself, made once for all pruners."""
    folder = folder_of(DEFAULT_MODEL)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    return Plugins().calibrations.get("self")[0](samples=8, length=128).input_ids(model, tokenizer)


@pytest.mark.parametrize("sparsity", [0.3, 0.7])
def test_the_layer_output_error_falls_from_random_to_magnitude_to_wanda_to_sparsegpt(calibration, sparsity):
    errors = []
    for pruner in PRUNERS:
        model = AutoModelForCausalLM.from_pretrained(folder_of(DEFAULT_MODEL))
        record = harness_ext.prune(model, pruner=pruner, sparsity=sparsity, calibration=calibration, measure_error=True)
        errors.append(sum(layer["output_error"] for layer in record["layers"].values()) / len(record["layers"]))
    assert errors == sorted(errors, reverse=True)
    assert min(errors) > 0


@pytest.mark.parametrize("pruner", ["wanda", "sparsegpt"])
def test_the_same_run_gives_the_same_weights_bit_for_bit(calibration, pruner):
    runs = []
    for _ in range(2):
        model = AutoModelForCausalLM.from_pretrained(folder_of(DEFAULT_MODEL))
        harness_ext.prune(model, pruner=pruner, sparsity=0.5, calibration=calibration)
        runs.append(model.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
