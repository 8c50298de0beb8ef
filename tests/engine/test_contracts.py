"""Each test that authors inherit can fail: here are plugins that break one rule each, and what they are told."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from broken_allocations import BROKEN_ALLOCATIONS, Even
from broken_calibrations import BROKEN_CALIBRATIONS, Fixed
from broken_pruners import BROKEN_PRUNERS, Good, Whole
from broken_quantizers import BROKEN_QUANTIZERS
from broken_statistics import BROKEN_STATISTICS
from refusals import raises_line

from harness_ext import PluginError
from harness_ext.engine.checks import check_marks, check_modules, marks, untouched
from harness_ext.testing import AllocationContract, CalibrationContract, PrunerContract, QuantizerContract, TaskFolderContract
from harness_ext.testing.contracts import given

TASKS = Path(__file__).parents[1] / "support" / "broken_tasks"
BROKEN_TASKS = [
    ("test_a_plugin_registers_the_folder", "good", "no plugin registers it"),
    ("test_its_definitions_are_sound", "metric", "lm-eval has no metric 'accuracy_score'"),
    ("test_its_documents_are_sound", "choice_twice", "document 6: the choice 'Lima' stands more than once"),
    ("test_a_model_that_knows_every_answer_scores_one", "oracle_fails", "a model that knows every answer scores 0"),
    ("test_a_model_that_guesses_scores_chance", "guess_wins", "a guess scores 1.0000"),
]


def inherited_tests_of(contract):
    return [name for name in dir(contract) if name.startswith("test_")]


def told(contract, name, **given_to_it):
    """What an inherited test says; fails where it passes."""
    inherited = type("TestIt", (contract,), given_to_it)()
    with pytest.raises(pytest.fail.Exception) as raised:
        getattr(inherited, name)()
    return raised.value.msg


@pytest.mark.parametrize(("name", "pruner", "message"), BROKEN_PRUNERS, ids=lambda value: getattr(value, "__name__", None))
def test_a_pruner_that_breaks_a_rule_is_told_which(name, pruner, message):
    assert re.search(message, told(PrunerContract, name, pruner=pruner))


@pytest.mark.parametrize(("name", "quantizer", "message"), BROKEN_QUANTIZERS, ids=lambda value: getattr(value, "__name__", None))
def test_a_quantizer_that_breaks_a_rule_is_told_which(name, quantizer, message):
    assert re.search(message, told(QuantizerContract, name, quantizer=quantizer))


@pytest.mark.parametrize(("name", "allocation", "message"), BROKEN_ALLOCATIONS, ids=lambda value: getattr(value, "__name__", None))
def test_an_allocation_that_breaks_a_rule_is_told_which(name, allocation, message):
    assert re.search(message, told(AllocationContract, name, allocation=allocation))


@pytest.mark.parametrize(("name", "source", "message"), BROKEN_CALIBRATIONS, ids=lambda value: getattr(value, "__name__", None))
def test_a_calibration_source_that_breaks_a_rule_is_told_which(name, source, message):
    assert re.search(message, told(CalibrationContract, name, calibration=source))


@pytest.mark.parametrize(("name", "task", "message"), BROKEN_TASKS, ids=lambda value: value)
def test_a_task_folder_that_breaks_a_rule_is_told_which(name, task, message, tmp_path):
    for file in (f"{task}.yaml", "functions.py"):
        shutil.copy(TASKS / file, tmp_path)
    assert re.search(message, told(TaskFolderContract, name, folder=tmp_path))


@pytest.mark.parametrize(
    ("contract", "broken"),
    [
        (PrunerContract, BROKEN_PRUNERS),
        (QuantizerContract, BROKEN_QUANTIZERS),
        (AllocationContract, BROKEN_ALLOCATIONS),
        (CalibrationContract, BROKEN_CALIBRATIONS),
        (TaskFolderContract, BROKEN_TASKS),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_inherited_test_is_broken_by_a_plugin_here(contract, broken):
    assert {name for name, *_ in broken} == set(inherited_tests_of(contract))


@pytest.mark.parametrize(("statistic", "message"), BROKEN_STATISTICS)
def test_a_statistic_that_two_processes_measure_otherwise_is_named(statistic, message):
    own = type("Own", (Good,), {"name": "own", "__doc__": "Magnitude.", "statistic": statistic})
    name = "test_its_statistic_can_be_measured_by_several_processes"
    assert re.search(message, told(PrunerContract, name, pruner=own))
    alone = type("Alone", (PrunerContract,), {"pruner": own, "several_processes": False})
    getattr(alone(), name)()


class TestTheGoodOne(PrunerContract):
    pruner = Good


class TestTheWhole(PrunerContract):
    pruner = Whole


class TestTheEvenAllocation(AllocationContract):
    allocation = Even


class TestTheFixedSource(CalibrationContract):
    calibration = Fixed


class TestTheGoodTask(TaskFolderContract):
    registered = False

    @pytest.fixture(autouse=True)
    def _folder_of_one(self, tmp_path):
        for file in ("good.yaml", "functions.py"):
            shutil.copy(TASKS / file, tmp_path)
        self.folder = tmp_path


def test_what_is_no_plugin_is_refused():
    assert told(PrunerContract, "test_it_keeps_to_patterns", pruner=3).startswith(
        "want for pruner a subclass of harness_ext.Pruner, ModelPruner"
    )


# What a run checks


def test_a_write_into_a_tensor_is_seen_through_its_views():
    tensor = torch.ones(4, 4)
    with untouched([tensor], "the input", "it"):
        tensor.sum()
    with raises_line(PluginError, "it: ", "the input"), untouched([tensor], "the input", "it"):
        tensor.view(2, 8)[0].zero_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_change_of_any_other_parameter_or_buffer_is_seen_also_through_data(dtype):
    model = tiny.model(dtype=dtype)
    layers = [f"{layer.name}.weight" for layer in given.layers_of(model)]
    before = marks(model, layers)
    for layer in given.layers_of(model):
        layer.weight.zero_()
    check_marks(before, marks(model, layers), "it")
    others = {name: tensor for name, tensor in [*model.named_parameters(), *model.named_buffers()] if name not in layers}
    assert len(others) > len(dict(model.named_parameters())) - len(layers)
    for name, tensor in others.items():
        kept = tensor.data.clone()
        tensor.data.flatten()[-1] += 1
        with raises_line(PluginError, "it: ", name):
            check_marks(before, marks(model, layers), "it")
        tensor.data.copy_(kept)
    check_marks(before, marks(model, layers), "it")


def test_a_layer_that_was_replaced_is_seen():
    model = tiny.model()
    layers = given.layers_of(model)
    check_modules(model, layers, "it")
    model.model.layers[1].mlp.up_proj = torch.nn.Linear(16, 24, bias=False)
    with raises_line(PluginError, "it: ", "model.layers.1.mlp.up_proj"):
        check_modules(model, layers, "it")
