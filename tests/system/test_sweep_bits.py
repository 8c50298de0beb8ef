"""Sweeps over bits: the trials, their records, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from refusals import raises_line
from sweeps import FIELDS, prepare, sweep
from typer.testing import CliRunner

from harness_ext import BadOptionError
from harness_ext.commands.cli import app
from harness_ext.plugins import Plugins
from harness_ext.sweep.fields import read, sweep_from
from harness_ext.sweep.grid import trials
from harness_ext.sweep.records import load

PLUGINS = Plugins()


def labels(**fields):
    return [str(trial) for trial in trials(sweep_from({**FIELDS, "pruner": ["rtn"], "sparsity": None, **fields}), PLUGINS)]


def test_bits_are_an_axis_and_the_sparsity_is_zero_by_default():
    assert labels(bits="2,3,8") == ["lab-xs dense", "lab-xs rtn 2 bits", "lab-xs rtn 3 bits", "lab-xs rtn 8 bits"]
    assert labels(bits=[2, "4"]) == labels(bits=["2,4"])


def test_each_number_of_bits_goes_with_each_sparsity():
    assert labels(bits="2,4", sparsity="0,0.5,2:4") == [
        "lab-xs dense", "lab-xs rtn 2 bits", "lab-xs rtn 2 bits, sparsity 0.5", "lab-xs rtn 2 bits, sparsity 2:4", "lab-xs rtn 4 bits",
        "lab-xs rtn 4 bits, sparsity 0.5", "lab-xs rtn 4 bits, sparsity 2:4",
    ]  # fmt: skip


def test_pruners_have_one_trial_for_all_bits():
    assert labels(pruner=["magnitude", "rtn"], bits="2,4", sparsity="0,0.5")[1:] == [
        "lab-xs magnitude 0.5", "lab-xs rtn 2 bits", "lab-xs rtn 2 bits, sparsity 0.5", "lab-xs rtn 4 bits",
        "lab-xs rtn 4 bits, sparsity 0.5",
    ]  # fmt: skip


def test_where_nothing_is_removed_there_is_one_trial_for_all_allocations():
    found = labels(pruner=["gptq"], bits="4", sparsity="0,0.5", allocation=["uniform", "owl"])
    assert [label.removesuffix(" self") for label in found[1:]] == [
        "lab-xs gptq 4 bits", "lab-xs gptq 4 bits, sparsity 0.5", "lab-xs gptq 4 bits, sparsity 0.5 owl",
    ]  # fmt: skip


def test_seeds_and_options_go_to_those_that_take_them():
    found = trials(
        sweep_from(
            {**FIELDS, "pruner": ["gptq", "rtn"], "sparsity": None, "bits": 4, "seeds": "0,1", "options": ["pruner.block_size=32"]}
        ),
        PLUGINS,
    )  # fmt: skip
    assert [(trial.arguments.get("calibration.seed"), trial.arguments.get("pruner.block_size")) for trial in found] == [
        (None, None), (0, 32), (1, 32), (None, None),
    ]  # fmt: skip


def test_a_file_has_bits_too(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text("pretrained: lab-xs\npruner: rtn\nbits: [2, 8]\ntasks: icl_linear\n")
    assert sweep_from(read(file)).bits == (2, 8)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"bits": "9"}, ["--bits '9'", "2 to 8"]),
        ({"bits": "2,x"}, ["--bits 'x'", "2 to 8"]),
        ({"bits": "none"}, ["--bits 'none'"]),
        ({"bits": ""}, ["--bits"]),
        ({"bits": []}, ["--bits", "nothing given"]),
        ({"bits": True}, ["--bits True"]),
        ({"bits": 4.5}, ["--bits '4.5'"]),
        ({"bits": "4,4"}, ["--bits", "4 is given twice"]),
        ({"bits": 4, "pruner": ["magnitude"]}, ["--bits 4", "magnitude", "gptq"]),
        ({"sparsity": "0.5"}, ["--pruner rtn", "--bits"]),
        ({"sparsity": "0"}, ["--pruner rtn", "--bits"]),
        ({"bits": 4, "pruner": ["rtn", "wanda"]}, ["--pruner wanda", "--sparsity"]),
        ({"bits": 4, "allocation": ["owl"]}, ["--allocation owl", "--sparsity"]),
        ({"bits": 4, "options": ["pruner.group_size=rows"]}, ["group_size='rows'", "int or 'row'", "Did you mean 'row'?"]),
        ({"bits": 4, "sparsity": "0,0.5", "refine": 0.1}, ["--refine 0.1", "--bits"]),
        ({"bits": 4, "model_args": "bits=4"}, ["--model_args bits", "--bits"]),
        ({"bit": 4, "sparsity": "0.5"}, ["'bit'", "'bits'"]),
    ],
    ids=str,
)
def test_mistakes_are_one_line(fields, parts):
    with raises_line(BadOptionError, *parts):
        labels(**fields)


def test_without_bits_and_sparsity_there_is_nothing_to_do():
    with raises_line(BadOptionError, "--sparsity", "nothing given"):
        labels(pruner=["magnitude"])


def test_trials_are_recorded_and_not_repeated(tmp_path: Path):
    fields = {"pruner": ["rtn"], "bits": "2,8", "sparsity": "0,0.5"}
    assert sweep(tmp_path, **fields).done == 5
    records = load(tmp_path)
    assert [(record.bits, record.ratio, record.is_dense) for record in records] == [
        (None, 0, True), (2, 0, False), (8, 0, False), (2, 0.5, False), (8, 0.5, False),
    ]  # fmt: skip
    assert len({record.fingerprint for record in records}) == 5
    for record in records:
        if record.bits:
            assert f"bits={record.bits}" in record.command
            assert record.pruning["quantisation"]["bits"] == record.bits
            assert record.achieved_sparsity == record.ratio
    again = sweep(tmp_path, **fields)
    assert (again.done, again.before) == (0, 5)


def test_keys_of_trials_without_bits_do_not_depend_on_those_with(tmp_path: Path):
    alone = {job.key for job in prepare(pruner=["magnitude"], sparsity="0.5").jobs}
    assert alone < {job.key for job in prepare(pruner=["magnitude", "rtn"], sparsity="0.5", bits="4").jobs}


def test_a_dry_run_lists_the_trials(tmp_path: Path):
    arguments = "sweep --pretrained lab-xs --pruner rtn --bits 2,4 --tasks icl_linear --limit 8 --dry-run --out".split()
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert [re.search(rf"{bits} bits", result.stdout) is not None for bits in (2, 3, 4)] == [True, False, True]
    assert not (tmp_path / "out").exists()


def test_a_trial_has_the_scores_of_its_command(tmp_path: Path):
    from harness_ext import PrunedHFLM

    sweep(tmp_path, bits="3", sparsity=None, pruner=["rtn"])
    (record,) = (record for record in load(tmp_path) if record.bits)
    lm = PrunedHFLM("lab-xs", pruner="rtn", bits=3, device="cpu")
    assert lm.pruning_record["fingerprint"] == record.fingerprint
    assert json.loads(json.dumps(lm.pruning_record["quantisation"])) == record.pruning["quantisation"]
