"""Bits on the command lines: ``lm_eval --model pruned-hf``, ``harness-ext prune`` and ``harness-ext perplexity``."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import tiny
import torch
from refusals import raises_line
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from harness_ext import BadOptionError, PrunedHFLM, prune
from harness_ext.commands.cli import app
from harness_ext.weights.masks import save_masks

SMALL = ("-o", "calibration.samples=4", "-o", "calibration.length=12")


def run(command: str, *arguments: object) -> str:
    result = CliRunner().invoke(app, [command, *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: object) -> str:
    """The one line on standard error."""
    result = CliRunner().invoke(app, ["prune", *map(str, arguments)])
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    return line


def loaded(folder: Path | str) -> dict[str, torch.Tensor]:
    return tiny.weights(AutoModelForCausalLM.from_pretrained(folder))


@pytest.fixture
def dense(tmp_path: Path) -> str:
    return tiny.checkpoint(tmp_path / "dense")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text(" ".join("the quick brown fox jumps over the lazy dog 0123456789".replace(" ", "") * 20))
    return file


def test_a_checkpoint_is_what_prune_makes_in_memory(tmp_path: Path, dense: str) -> None:
    line = run("prune", "--pretrained", dense, "--out", tmp_path / "out", "--pruner", "gptq", "--bits", 3, *SMALL)
    model = AutoModelForCausalLM.from_pretrained(dense)
    record = prune(model, pruner="gptq", bits=3, calibration_options={"samples": 4, "length": 12})
    assert tiny.same(loaded(tmp_path / "out"), tiny.weights(model))
    assert record["fingerprint"] in line
    assert "3 bits" in line
    assert f"{record['quantisation']['bits_a_weight']:.2f} a weight" in line
    written = json.loads((tmp_path / "out" / "pruning.json").read_text())
    assert written["quantisation"] == record["quantisation"]
    assert written["plan"]["bits"] == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("--pruner", "gptq", "--bits", "4", *SMALL, "-o", "pruner.group_size=row", "-o", "pruner.act_order=True"),
        ("--pruner", "rtn", "--bits", "2", "--dtype", "bfloat16", "-o", "pruner.symmetric=True"),
        ("--pruner", "gptq", "--bits", "3", "--sparsity", "2:4", "-o", "calibration.samples=3", "--calibration", "{text}", "--stream"),
    ],
)
def test_a_checkpoint_is_made_again_by_the_command_on_its_card(tmp_path: Path, dense: str, text: Path, arguments: tuple[str, ...]) -> None:
    run("prune", "--pretrained", dense, "--out", tmp_path / "out", *(argument.format(text=text) for argument in arguments))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "simulated" in card
    assert f"to {arguments[3]} bits" in card
    assert ("pruned" in re.findall(r"^tags: .*$", card, re.MULTILINE)[0].replace("lm-eval-pruned", "")) is ("--sparsity" in arguments)
    (line,) = re.findall(r"^harness-ext prune .*$", card, re.MULTILINE)
    run(*shlex.split(line)[1:-1], tmp_path / "again")
    assert tiny.same(loaded(tmp_path / "out"), loaded(tmp_path / "again"))


@pytest.mark.parametrize("name", ["llama-gqa-tied", "gpt2"])
@pytest.mark.parametrize(("pruner", "sparsity"), [("rtn", 0), ("gptq", 0), ("gptq", 0.5)])
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_block_by_block_the_weights_and_the_record_are_the_same(
    tmp_path: Path, text: Path, name: str, pruner: str, sparsity: float, dtype: str
) -> None:
    dense = tiny.checkpoint(tmp_path / "dense", name, layers=3)
    common = ("--pretrained", dense, "--pruner", pruner, "--bits", 3, "--sparsity", sparsity, "--calibration", text, "--dtype", dtype)
    run("prune", *common, "-o", "calibration.samples=4", "--out", tmp_path / "whole")
    run("prune", *common, "-o", "calibration.samples=4", "--out", tmp_path / "pieces", "--stream")
    assert tiny.same(loaded(tmp_path / "pieces"), loaded(tmp_path / "whole"))
    records = [json.loads((tmp_path / folder / "pruning.json").read_text()) for folder in ("whole", "pieces")]
    assert records[0]["fingerprint"] == records[1]["fingerprint"]
    assert records[0]["quantisation"] == records[1]["quantisation"]


def test_a_run_goes_on_from_its_checkpoints(tmp_path: Path, dense: str) -> None:
    common = ("--pretrained", dense, "--pruner", "gptq", "--bits", 3, *SMALL, "--resume", tmp_path / "done")
    run("prune", "--out", tmp_path / "one", *common)
    assert list((tmp_path / "done").rglob("*.safetensors"))
    run("prune", "--out", tmp_path / "two", *common)
    run("prune", "--out", tmp_path / "three", *common[:-2])
    assert tiny.same(loaded(tmp_path / "one"), loaded(tmp_path / "two"))
    assert tiny.same(loaded(tmp_path / "one"), loaded(tmp_path / "three"))


def test_lm_eval_evaluates_the_quantised_model(dense: str) -> None:
    lm = PrunedHFLM.create_from_arg_string(
        f"pretrained={dense},pruner=gptq,bits=4,sparsity=0.5,calibration.samples=4,calibration.length=12,pruner.group_size=8"
    )
    assert lm.pruning_record["quantisation"]["bits"] == 4
    assert lm.pruning_record["achieved_sparsity"] == 0.5
    model = AutoModelForCausalLM.from_pretrained(dense)
    calibration = {"samples": 4, "length": 12}
    prune(model, pruner="gptq", bits=4, sparsity=0.5, calibration_options=calibration, pruner_options={"group_size": 8})
    assert tiny.same(tiny.weights(lm.model), tiny.weights(model))


def test_perplexity_is_of_the_quantised_model(dense: str, text: Path) -> None:
    common = ("perplexity", "--text", text, "--pretrained", dense, "--window", 16, "--json")
    quantised, without = json.loads(run(*common, "--pruner", "rtn", "--bits", 2)), json.loads(run(*common))
    assert quantised["token_perplexity"] != without["token_perplexity"]
    assert "rtn, 2 bits" in run(*common[:-1], "--pruner", "rtn", "--bits", 2)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--bits", 4), ["bits=4", "sparsegpt", "gptq"]),
        (("--bits", 9, "--pruner", "rtn"), ["bits=9", "2 to 8"]),
        (("--bits", "4,8", "--pruner", "rtn"), ["bits='4,8'", "2 to 8"]),
        (("--bits", 4, "--pruner", "rtn", "--masks-only"), ["--masks-only", "--bits 4"]),
        (("--bits", 4, "--pruner", "gptq", "--stream"), ["--stream", "calibration=self"]),
        (("--bits", 4, "--pruner", "gptq", "-o", "pruner.bits=4"), ["bits"]),
        (("--bits", 4, "--pruner", "gptq", "--sparsity", "2:4", "-o", "pruner.group_size=6"), ["group_size=6", "multiple of 4"]),
    ],
    ids=str,
)
def test_mistakes_are_one_line_before_a_weight_is_loaded(tmp_path: Path, arguments: tuple[object, ...], parts: list[str]) -> None:
    folder = tiny.checkpoint(tmp_path / "no-weights")
    (Path(folder) / "model.safetensors").unlink()
    line = refused("--pretrained", folder, "--out", tmp_path / "out", *arguments)
    assert not [part for part in parts if part not in line], line


@pytest.mark.parametrize("arguments", [(), ("--pruner", "gptq"), ("--pruner", "gptq", "--bits", "none")])
def test_a_sparsity_or_bits_have_to_be_given(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["prune", "--out", str(tmp_path / "out"), *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "--sparsity" in result.stderr
    assert "--bits" in result.stderr


def test_quantised_weights_leave_no_masks(tmp_path: Path) -> None:
    model = tiny.model()
    record = prune(model, pruner="rtn", bits=2, sparsity=0.5)
    with raises_line(BadOptionError, "bits=2"):
        save_masks(model, record, tmp_path / "masks")


def test_a_nearly_right_name_is_an_error(dense: str) -> None:
    with raises_line(BadOptionError, "'bit'", "'bits'"):
        PrunedHFLM(dense, pruner="gptq", bit=4)
    with raises_line(BadOptionError, "group_size", "pruner.group_size"):
        PrunedHFLM(dense, pruner="gptq", bits=4, group_size=64)
