"""Options of ``harness-ext sweep`` that it shares with ``lm_eval``: a trial gives the numbers of its command, run by lm-eval."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import harness_run
import pytest
import tiny
from sweeps import prepare
from typer.testing import CliRunner

from harness_ext import BadOptionError
from harness_ext.commands.cli import app
from harness_ext.report.reading import read
from harness_ext.sweep import TrialRecord, load
from harness_ext.sweep.evaluation import command
from harness_ext.sweep.fields import MAPPINGS, over, sweep_from
from harness_ext.sweep.prepared import Prepared

TASKS = ",".join(harness_run.TASKS)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template, and tasks."""
    folder = tmp_path_factory.mktemp("options")
    harness_run.write_tasks(folder / "tasks")
    tiny.model().save_pretrained(folder / "dense")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = harness_run.CHAT_TEMPLATE
    tokenizer.save_pretrained(folder / "dense")
    return folder


def sweep(place: Path, out: Path, *words: object) -> dict[str | None, TrialRecord]:
    """The records of a sweep with ``wanda``, by the name of the pruner."""
    fixed = ["--pretrained", place / "dense", "--pruner", "wanda", "--sparsity", 0.5, "--tasks", TASKS, "--include_path", place / "tasks"]
    fixed += ["-o", "calibration.samples=3", "-o", "calibration.length=8", "--device", "cpu", "--batch_size", 4, "--out", out]
    result = CliRunner().invoke(app, ["sweep", *map(str, fixed), *map(str, words)])
    assert result.exit_code == 0, result.output
    return {record.pruner: record for record in load(out)}


def answers(record: TrialRecord) -> dict[str, Any]:
    return {task: harness_run.answers(record.samples(task)) for task in record.tasks}


OPTIONS = {
    "shots": ("--num_fewshot", 1),
    "no shots": ("--num_fewshot", 0),
    "chat": ("--apply_chat_template", "--num_fewshot", 1, "--system_instruction", "x y's"),
    "one turn": ("--num_fewshot", 1, "--fewshot_as_multiturn", "false", "--apply_chat_template"),
    "generation": ("--gen_kwargs", "max_gen_toks=2", "--gen_kwargs", 'until=["b c"]'),
    "model arguments": ("--model_args", "add_bos_token=True,max_length=24"),
    "metadata": ("--metadata", "note=a,count=3"),
    "order": ("--true_sequential",),
    "limit": ("--limit", 0.5),
}


@pytest.mark.parametrize("words", OPTIONS.values(), ids=OPTIONS)
def test_a_trial_gives_the_numbers_of_its_command(place: Path, tmp_path: Path, words: tuple[object, ...]) -> None:
    record = sweep(place, tmp_path / "out", *words)["wanda"]
    assert "#" not in record.command
    stock = harness_run.typed(tmp_path / "stock", *shlex.split(record.command))
    assert record.results["results"] == stock["results"]
    assert answers(record) == stock["answers"]
    for name in ("task_hashes", "system_instruction", "chat_template", "fewshot_as_multiturn", "model_source", "n-shot"):
        assert record.results[name] == stock[name], name
    for name in ("model", "model_args", "gen_kwargs", "limit", "batch_size", "device", "random_seed", "fewshot_seed", "command"):
        assert record.results["config"][name] == stock["config"][name], name
    assert record.fingerprint == stock["config"]["pruning"]["fingerprint"]


def test_options_that_change_prompts_or_answers_are_part_of_the_key_and_of_the_items(place: Path) -> None:
    fields = {"pretrained": str(place / "dense"), "sparsity": 0, "tasks": TASKS, "include_path": str(place / "tasks"), "device": "cpu"}
    changes: list[dict[str, Any]] = [
        {}, {"num_fewshot": 1}, {"num_fewshot": 2}, {"apply_chat_template": True}, {"apply_chat_template": "default"},
        {"apply_chat_template": True, "fewshot_as_multiturn": False}, {"system_instruction": "x"}, {"gen_kwargs": {"max_gen_toks": 2}},
    ]  # fmt: skip
    jobs = [Prepared(sweep_from(fields | change)).jobs[0] for change in changes]
    assert len({job.key for job in jobs}) == len(changes)
    assert len({str(job.settings["tasks"]) for job in jobs}) == len(changes)
    other_model = Prepared(sweep_from(fields | {"model_args": {"add_bos_token": True}})).jobs[0]
    assert other_model.key != jobs[0].key
    assert other_model.settings["tasks"] == jobs[0].settings["tasks"]


def test_the_report_keeps_trials_with_and_without_true_sequential_apart(place: Path, tmp_path: Path) -> None:
    sweep(place, tmp_path, "--num_fewshot", 0)
    sweep(place, tmp_path, "--num_fewshot", 0, "--true_sequential")
    trials, _ = read([tmp_path])
    curves = {str(sorted(trial.settings.items())) for trial in trials if not trial.is_dense}
    assert len(curves) == 2


class TestTrueSequential:
    def labels(self, **fields: Any) -> list[str]:
        return [str(trial) for trial in prepare(**fields).trials]

    def test_goes_to_the_pruners_that_measure_their_layers(self) -> None:
        found = self.labels(pruner=["magnitude", "wanda"], true_sequential=True)
        assert found == ["lab-xs dense", "lab-xs magnitude 0.5", "lab-xs wanda 0.5 self true_sequential"]

    def test_is_an_axis_of_the_grid(self) -> None:
        found = self.labels(pruner=["magnitude", "wanda"], true_sequential=[False, True])
        assert found == ["lab-xs dense", "lab-xs magnitude 0.5", "lab-xs wanda 0.5 self", "lab-xs wanda 0.5 self true_sequential"]

    def test_is_refused_where_no_pruner_of_the_sweep_takes_it(self) -> None:
        with pytest.raises(BadOptionError, match=r"--true-sequential: no pruner of this sweep \(magnitude, depth\) measures"):
            self.labels(pruner=["magnitude", "depth"], true_sequential=True)

    def test_does_not_hide_another_mistake(self) -> None:
        with pytest.raises(BadOptionError, match="precision='float16'"):
            self.labels(pruner=["wanda"], true_sequential=True, precision="float16")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_fewshot": -1}, "--num-fewshot -1"),
        ({"num_fewshot": "five"}, "--num-fewshot five"),
        ({"num_fewshot": True}, "--num-fewshot True"),
        ({"fewshot_as_multiturn": "maybe"}, "--fewshot-as-multiturn 'maybe'"),
        ({"fewshot_as_multiturn": True}, "goes with --apply_chat_template"),
        ({"system_instruction": ""}, "--system-instruction ''"),
        ({"system_instruction": 5}, "--system-instruction 5"),
        ({"gen_kwargs": "temperature"}, "--gen-kwargs temperature: .*NAME=VALUE"),
        ({"gen_kwargs": "{"}, "--gen-kwargs {: not JSON"),
        ({"model_args": "[1]"}, r"--model-args \[1\]: want a JSON object"),
        ({"model_args": {"pruner": "wanda"}}, "--model_args pruner: want it as the option --pruner"),
        ({"model_args": {"pruner.block_size": 8}}, "want it as --option pruner.block_size=8"),
        ({"model_args": {"dtype": "float16"}}, "--model_args dtype: want it as the option --dtype"),
        ({"model_args": {"resume": "x"}}, "--model_args resume: a sweep keeps whole trials"),
        ({"model_args": {"peft": "x"}}, "--model_args peft"),
        ({"model_args": {"sparsty": 0.5}}, "Did you mean 'sparsity'"),
        ({"model_args": {"load_in_8bit": True}}, "quantised weights cannot be pruned"),
        ({"true_sequential": "yes"}, "--true-sequential 'yes': want true or false"),
        ({"true_sequential": [True, True]}, "--true-sequential: True is given twice"),
        ({"trust_remote_code": "perhaps"}, "--trust-remote-code 'perhaps'"),
        ({"include_path": "/no/such/folder"}, "--include-path /no/such/folder: no such folder"),
        ({"num_fewshots": 1}, "no field 'num_fewshots'. Did you mean 'num_fewshot'"),
        ({"dtype": "bfloat6"}, "--dtype 'bfloat6'.*Did you mean 'bfloat16'"),
        ({"revision": 1}, "--revision 1"),
        ({"seeds": [True]}, "--seeds True"),
        ({"tasks": [["a"]]}, r"--tasks \['a'\]"),
    ],
)
def test_a_mistake_is_one_line(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(BadOptionError, match=says) as error:
        prepare(**fields)
    assert "\n" not in str(error.value)


def test_the_first_of_several_mistakes_is_a_field_that_does_not_exist() -> None:
    with pytest.raises(BadOptionError, match=r"no field 'sparsty'\. Did you mean 'sparsity'"):
        sweep_from({"pretrained": "lab-xs", "sparsty": 0.5, "limit": -1})


def test_several_folders_of_tasks_are_named_in_the_command(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    prepared = prepare(include_path=[str(tmp_path / "one"), str(tmp_path / "two")])
    text = command(prepared.sweep, prepared.trials[0])
    assert f"--include_path {tmp_path / 'one'}" in text.partition("#")[0]
    assert f"lacks --include_path {tmp_path / 'two'}" in text.partition("#")[2]


FILE: dict[str, Any] = {"pretrained": "x", "sparsity": 0.5, "tasks": "icl_linear"}


@pytest.mark.parametrize("repeated", [list, tuple])  # what a repeated option is, by the version of typer
@pytest.mark.parametrize("in_file", [{"pruner.a": 1, "pruner.b": 2}, ["pruner.a=1", "pruner.b=2"]], ids=["mapping", "texts"])
def test_names_of_the_command_line_replace_those_of_the_file_one_by_one(in_file, repeated):
    for field in MAPPINGS:
        read = in_file if field == "options" or isinstance(in_file, dict) else "pruner.a=1,pruner.b=2"
        if field == "model_args":  # options of methods are refused there
            read = {"a": 1, "b": 2}
        typed = repeated(["b=3,c=4"] if field == "model_args" else ["pruner.b=3", "pruner.c=4"])
        dots = "" if field == "model_args" else "pruner."
        assert getattr(sweep_from(over({field: typed}, FILE | {field: read})), field) == {f"{dots}a": 1, f"{dots}b": 3, f"{dots}c": 4}
        assert getattr(sweep_from(over({}, FILE | {field: read})), field) == {f"{dots}a": 1, f"{dots}b": 2}


def test_other_fields_of_the_command_line_replace_those_of_the_file():
    assert [str(part) for part in sweep_from(over({"sparsity": ["0.3"]}, FILE)).sparsity] == ["0.3"]


def test_a_name_that_is_typed_twice_is_refused_beside_a_file():
    with pytest.raises(BadOptionError, match="twice"):
        sweep_from(over({"options": ["pruner.a=1", "pruner.a=2"]}, FILE | {"options": {"pruner.b": 2}}))
