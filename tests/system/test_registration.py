"""lm-eval in this process: the model and the tasks are where it looks, and each name of its insides that we use is what we think."""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import lm_eval.models
import lm_eval.tasks.manager
import pytest
from lm_eval.api.registry import model_registry
from lm_eval.tasks.manager import TaskManager

from harness_ext import BadOptionError
from harness_ext.host import registration
from harness_ext.plugins import Plugins

OURS = {"icl", "icl_linear", "icl_nn", "icl_tree"}
TASK = """
task: {name}
custom_dataset: !function harness_ext.tasks.icl.load
dataset_kwargs: {{family: linear}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{target}}}}"
metadata: {{version: 9.0}}
"""


@pytest.fixture(scope="module")
def log() -> list[str]:
    """What lm-eval says while ``manager`` is built."""
    return []


@pytest.fixture(scope="module")
def manager(log: list[str]) -> TaskManager:
    handler = logging.Handler()
    handler.emit = lambda record: log.append(record.getMessage())
    logger = logging.getLogger("lm_eval.tasks._index")
    logger.addHandler(handler)
    try:
        return TaskManager()
    finally:
        logger.removeHandler(handler)


@pytest.fixture
def no_other_tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Puts an empty folder in the place of lm-eval's own tasks, which take seconds to look through."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(lm_eval.tasks.manager, "__file__", str(tmp_path / "empty" / "manager.py"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder, with a task that has the name of one of ours, and another."""
    path = tmp_path / "of the user"
    path.mkdir()
    for name in ("icl_linear", "another"):
        (path / f"{name}.yaml").write_text(TASK.format(name=name), encoding="utf-8")
    return path


def test_the_model_is_registered_beside_lm_evals_own() -> None:
    assert "hf" in model_registry
    assert "pruned-hf" in model_registry
    from harness_ext.host.model import PrunedHFLM

    assert model_registry.get("pruned-hf") is PrunedHFLM
    assert set(lm_eval.models.MODEL_MAPPING) <= set(model_registry.keys())


def test_registering_twice_changes_nothing(monkeypatch: pytest.MonkeyPatch, no_other_tasks: None) -> None:
    before, wrapped, hook = sorted(model_registry.keys()), TaskManager.__init__, sys.excepthook
    registration.register()
    registration.register()
    assert sorted(model_registry.keys()) == before
    assert TaskManager.__init__ is wrapped
    assert sys.excepthook is hook


def test_a_reloaded_task_manager_is_extended_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(registration, "task_folders", lambda: calls.append(None) or [])
    old = dict(vars(lm_eval.tasks.manager))
    try:
        module = importlib.reload(lm_eval.tasks.manager)
        assert module.TaskManager is not TaskManager
        monkeypatch.setattr(module, "__file__", __file__)  # no tasks there
        module.TaskManager()
    finally:
        vars(lm_eval.tasks.manager).update(old)
    assert len(calls) == 1


def test_the_entry_point_for_a_later_lm_eval_names_the_same_class() -> None:
    (point,) = (point for point in entry_points(group="lm_eval.models") if point.dist.metadata["Name"] == "lm-eval-pruned")
    assert (point.name, point.value) == (registration.MODEL, registration.TARGET)
    assert point.load() is model_registry.get("pruned-hf")


def test_a_task_manager_finds_our_tasks_and_lm_evals(manager: TaskManager) -> None:
    assert set(manager.all_tasks) >= OURS
    assert "icl" in manager.all_groups
    assert "arc_easy" in manager.all_subtasks
    assert manager.include_path is None


def test_no_task_of_lm_eval_has_the_name_of_one_of_ours(
    manager: TaskManager, log: list[str], no_other_tasks: None, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    TaskManager(include_path=folder)
    assert [message for message in caplog.messages if "overrides existing task" in message and "icl_linear" in message]
    assert [message for message in log if "overrides existing task" in message] == []


def test_without_the_default_tasks_there_are_none_of_ours(folder: Path) -> None:
    assert TaskManager(include_defaults=False).all_tasks == []
    (folder / "icl_linear.yaml").unlink()
    assert TaskManager(include_path=folder, include_defaults=False).all_tasks == ["another"]


@pytest.mark.parametrize(
    "form",
    [str, Path, lambda path: [path], lambda path: [str(path)], lambda path: (path,)],
    ids=["text", "path", "paths", "texts", "tuple"],
)
def test_a_users_folder_wins_over_ours(no_other_tasks: None, folder: Path, form: Any) -> None:
    given = form(folder)
    manager = TaskManager(include_path=given)
    assert manager.include_path is given
    assert manager.task_index["icl_linear"].yaml_path == folder / "icl_linear.yaml"
    assert {"another"} | OURS <= set(manager.all_tasks)


def test_of_two_user_folders_the_last_wins_as_in_lm_eval(no_other_tasks: None, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "icl_linear.yaml").write_text(TASK.format(name="icl_linear"), encoding="utf-8")
    assert TaskManager(include_path=[folder, other]).task_index["icl_linear"].yaml_path == other / "icl_linear.yaml"
    assert TaskManager(include_path=[other, folder]).task_index["icl_linear"].yaml_path == folder / "icl_linear.yaml"


def test_an_option_of_our_tasks_that_does_not_exist_is_an_error_where_the_manager_is_built(no_other_tasks: None) -> None:
    with pytest.raises(BadOptionError, match="Did you mean 'icl_items'"):
        TaskManager(metadata={"icl_itms": 3})
    assert TaskManager(metadata={"icl_items": 3, "pretrained": "x", "ruler_length": 5}).metadata["icl_items"] == 3


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/usr/bin/lm_eval", "--model"], True),
        (["lm-eval"], True),
        (["C:/Scripts/lm_eval.exe"], True),
        (["/lib/python3/site-packages/lm_eval/__main__.py"], True),
        (["/lib/python3/site-packages/pytest/__main__.py"], False),
        (["/home/someone/lm_eval/train.py"], False),
        (["-c"], False),
        ([""], False),
        ([], False),
    ],
)
def test_errors_are_made_short_on_lm_evals_command_line_alone(monkeypatch: pytest.MonkeyPatch, argv: list[str], command: bool) -> None:
    before = sys.excepthook
    monkeypatch.setattr(sys, "excepthook", before)
    monkeypatch.setattr(sys, "argv", argv)
    registration.models_imported()
    assert (sys.excepthook is not before) == command


def test_a_short_error_is_one_line_and_other_errors_go_where_they_went(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: others.append(error))
    monkeypatch.setattr(sys, "argv", ["lm_eval"])
    registration.models_imported()
    ours, theirs = BadOptionError("sparsity=2: want less"), ValueError("of lm-eval")
    for error in (ours, theirs):
        sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == "BadOptionError: sparsity=2: want less\n"
    assert others == [theirs]


# One test for each name of lm-eval's insides that we touch. Where one fails, lm-eval has changed what we build on.


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(inspect.unwrap(function)).parameters)


def test_private_model_registry_registers_a_name_with_a_target_that_is_imported_later() -> None:
    registry = type(model_registry)("models of this test")
    registry.register("a name", target="decimal:Decimal")
    assert "a name" in registry
    assert registry.get("a name").__name__ == "Decimal"


def test_private_model_registry_is_filled_by_the_import_of_lm_eval_models() -> None:
    assert lm_eval.models.MODEL_MAPPING["hf"] == "lm_eval.models.huggingface:HFLM"


def test_private_task_manager_takes_what_our_wrapper_hands_on() -> None:
    assert parameters(TaskManager.__init__) == ["self", "verbosity", "include_path", "include_defaults", "metadata"]
    assert inspect.signature(TaskManager.__init__) == inspect.signature(inspect.unwrap(TaskManager.__init__))


def test_private_task_manager_looks_for_lm_evals_tasks_beside_its_own_file(no_other_tasks: None) -> None:
    assert set(TaskManager().all_tasks) == set(TaskManager(include_path=registration.task_folders(), include_defaults=False).all_tasks)


def test_private_task_manager_matches_names_and_keeps_an_index_of_configurations(no_other_tasks: None) -> None:
    manager = TaskManager(metadata={"icl_items": 3})
    assert parameters(TaskManager.match_tasks) == ["self", "task_list"]
    assert set(manager.match_tasks(["icl", "icl_linear*"])) >= {"icl", "icl_linear"}
    assert manager.task_index["icl_linear"].cfg["task"] == "icl_linear"
    assert manager.metadata == {"icl_items": 3}


def test_private_task_manager_is_what_the_command_line_builds() -> None:
    for module in ("ls", "validate"):
        source = inspect.getsource(importlib.import_module(f"lm_eval._cli.{module}"))
        assert "from lm_eval.tasks import TaskManager" in source
    from lm_eval.config.evaluate_config import EvaluatorConfig

    assert "TaskManager(" in inspect.getsource(EvaluatorConfig.process_tasks)


def test_private_a_custom_dataset_is_called_with_metadata_and_dataset_kwargs(no_other_tasks: None) -> None:
    manager = TaskManager(metadata={"icl_items": 3, "sparsity": 0.5})
    task = manager.load(["icl_linear"])["tasks"]["icl_linear"]
    assert len(task.eval_docs) == 3


def test_private_hf_is_built_from_an_argument_object() -> None:
    from lm_eval.models.huggingface import HFLM

    assert parameters(HFLM.create_from_arg_obj) == ["arg_dict", "additional_config"]
    assert parameters(HFLM.create_from_arg_string)[0] == "arg_string"
    assert {"pretrained", "device", "batch_size", "max_batch_size"} <= set(parameters(HFLM.__init__))
    assert "batch_size_per_gpu" in inspect.getsource(HFLM.__init__)
    assert callable(HFLM.get_model_info)


def test_private_the_command_line_hands_on_batch_size_1_where_none_was_given() -> None:
    from lm_eval.config.evaluate_config import EvaluatorConfig
    from lm_eval.utils import simple_parse_args_string

    assert EvaluatorConfig(tasks=["x"]).batch_size == 1
    assert simple_parse_args_string("sparsity=0.7,pruner.seed=3,sparsity2=2:4") == {"sparsity": 0.7, "pruner.seed": 3, "sparsity2": "2:4"}


def test_private_results_take_the_information_of_the_model() -> None:
    from lm_eval import evaluator

    assert "get_model_info()" in inspect.getsource(evaluator)


def test_plugins_that_fail_do_not_stop_a_task_manager(no_other_tasks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Plugins(iter([])).task_folders == []
    monkeypatch.setattr(registration, "task_folders", list)
    assert TaskManager().all_tasks == []
