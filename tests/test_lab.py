"""The embedded model has learned what its card says, and pruners of it come in the order that their papers give."""

import sys
from pathlib import Path

import pytest
import torch
from lm_eval import simple_evaluate
from transformers import AutoModelForCausalLM, AutoTokenizer

import harness_ext
from harness_ext.model import PrunedHFLM
from harness_ext.plugins import Plugins
from harness_ext.tasks.people import population

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import score_lab

PRUNERS = ("random", "magnitude", "wanda", "sparsegpt")


@pytest.fixture(scope="module")
def lab():
    return PrunedHFLM.create_from_arg_obj({}, {"batch_size": 1})


@pytest.fixture(scope="module")
def folder():
    return Plugins().models.get("lab")[0]


def test_it_recalls_memorised_facts_closed_book(lab):
    assert score_lab.exact_match(lab, score_lab.closed_book(population(0))[::4], "") >= 0.95


def test_it_reads_facts_about_people_it_never_met_and_believes_the_passage(lab):
    people = population(0)
    assert score_lab.exact_match(lab, score_lab.open_book(people, people.unseen, items=256), "") >= 0.90
    assert score_lab.exact_match(lab, score_lab.open_book(people, people.memorised, items=256), "") >= 0.80


def test_it_learns_functions_in_context(lab):
    results = simple_evaluate(model=lab, tasks=["icl"], metadata={"icl_items": 512})["results"]
    assert results["icl_linear"]["acc,none"] >= 0.80
    assert results["icl_nn"]["acc,none"] >= 0.70
    assert results["icl_tree"]["acc,none"] >= 0.70


def test_its_files_are_small_enough_for_a_package_and_in_bf16(folder):
    assert max(path.stat().st_size for path in folder.iterdir()) <= 16e6
    assert {p.dtype for p in AutoModelForCausalLM.from_pretrained(folder).parameters()} == {torch.bfloat16}
    assert (folder / "README.md").is_file()


@pytest.fixture(scope="module")
def calibration(folder):
    """A few sequences that the model wrote itself, made once for all pruners."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    return Plugins().calibrations.get("self")[0](samples=16, length=128).input_ids(model, tokenizer)


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7])
def test_the_layer_output_error_falls_from_random_to_magnitude_to_wanda_to_sparsegpt(folder, calibration, sparsity):
    errors = []
    for pruner in PRUNERS:
        model = AutoModelForCausalLM.from_pretrained(folder)
        record = harness_ext.prune(model, pruner=pruner, sparsity=sparsity, calibration=calibration, measure_error=True)
        errors.append(sum(layer["output_error"] for layer in record["layers"].values()) / len(record["layers"]))
    assert errors == sorted(errors, reverse=True)
    assert min(errors) > 0


@pytest.mark.parametrize("pruner", PRUNERS)
def test_the_same_run_gives_the_same_weights_bit_for_bit(folder, calibration, pruner):
    runs = []
    for _ in range(2):
        model = AutoModelForCausalLM.from_pretrained(folder)
        harness_ext.prune(model, pruner=pruner, sparsity=0.5, calibration=calibration)
        runs.append(model.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
