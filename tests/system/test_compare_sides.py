"""The arguments of ``harness-ext compare``: what a message proposes works, and dense models are compared only where they are named."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import report_folders
from report_folders import change_results, write_plain, write_trial
from typer.testing import CliRunner

from harness_ext.commands.cli import app
from harness_ext.report.compare import compare_results
from harness_ext.report.reading import read
from harness_ext.report.sides import Side
from harness_ext.report.trials import LoadedTrial, ReportError, merge

SCORES = {"lab_facts_closed": report_folders.RECALL[0.6]}
BETTER = {"lab_facts_closed": report_folders.RECALL[0.3]}
SELF = {"calibration": "self", "calibration_options": {"samples": 8, "seed": 0}}
SEVERAL: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "models": ("", [{"pretrained": "tiny"}, {"pretrained": "tinier", "dense": "d1"}]),
    "dense models": (":sparsity=0", [{"sparsity": "0"}, {"sparsity": "0", "pretrained": "tinier, too", "dense": "d1"}]),
    "models of one name": ("", [{}, {"dense": "d1"}]),
    "bits": ("", [{"bits": 4}, {"bits": 8}]),
    "bits or none": (":pruner=magnitude", [{}, {"bits": 4}]),
    "modules": ("", [{}, {"modules": "ffn"}, {"modules": "ffn+attention, or so"}]),
    "modules of several methods": (":modules=ffn", [{"modules": "ffn"}, {"modules": "ffn", "pruner": "wanda"}, {}]),
    "calibration": ("", [{"plan_entries": SELF}, {"plan_entries": {**SELF, "calibration": "my texts, two.txt"}}]),
    "calibration or none": ("", [{}, {"plan_entries": SELF}]),
    "samples": ("", [{"plan_entries": SELF}, {"plan_entries": {**SELF, "calibration_options": {"samples": 16, "seed": 0}}}]),
    "allocation": ("", [{}, {"plan_entries": {"allocation": "owl"}}]),
    "options of the allocation": ("", [{"plan_entries": {"allocation_options": {"seed": seed}}} for seed in (0, 1)]),
    "options of the pruner": ("", [{"plan_entries": {"pruner_options": {"per": per}}} for per in ("row", "Row", "a, b", ["x", "y"], '"')]),
    "options of one pruner": ("", [{"pruner": "wanda"}, *[{"plan_entries": {"pruner_options": {"per": per}}} for per in (1, 2)]]),
    "options that are there": ("", [{}, {"plan_entries": {"pruner_options": {"per": "row"}}}]),
    "switches": ("", [{}, {"plan_entries": {"true_sequential": True}}]),
    "precision": ("", [{}, {"plan_entries": {"precision": "float64"}}]),
    "two that cross": ("", [{"modules": m, "pruner": p} for m in ("all", "ffn") for p in ("wanda", "random")]),
}  # fmt: skip


def run(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["compare", *map(str, words)], env={"COLUMNS": "200"})
    return result.exit_code, result.stdout, result.stderr


def proposed(message: str) -> str:
    """The argument that a message proposes, as a shell reads it."""
    words = shlex.shlex(message.partition(" as in ")[2], posix=True, punctuation_chars=False)
    words.whitespace_split, words.commenters = True, ""
    return str(words.get_token())


def settings(trials: list[LoadedTrial]) -> set[str]:
    return {json.dumps([trial.dense_digest, trial.settings], sort_keys=True) for trial in trials}


@pytest.mark.parametrize(("typed", "several"), SEVERAL.values(), ids=SEVERAL)
def test_the_proposed_argument_has_one_setting(tmp_path: Path, typed: str, several: list[dict[str, Any]]) -> None:
    out = tmp_path / "öut dir" / "x y"
    for number, options in enumerate(several):
        write_trial(out, SCORES, **{"sparsity": "0.5", **options, "items": f"of {number}"})
    trials = merge(read([out])[0])
    with pytest.raises(ReportError) as raised:
        Side.of(f"{out}{typed}").chosen(trials)
    argument = proposed(str(raised.value))
    side = Side.of(argument)
    assert argument != f"{out}{typed}"
    assert Side.of(f"{out}{typed}").wanted.items() <= side.wanted.items()
    assert len(settings(side.chosen(trials))) == 1
    listed = re.search(r"\(there are (.*)\)$", str(raised.value))[1].removesuffix(" and more").split("; ")
    found = [settings(Side.of(f"{out}{typed or ':'}{',' if typed else ''}{one}").chosen(trials)) for one in listed]
    assert all(len(one) == 1 for one in found)
    assert len(set.union(*found)) == len(listed) > 1


def test_two_dtypes_are_told_apart_by_the_argument(tmp_path: Path) -> None:
    for number, dtype in enumerate(("float32", "bfloat16")):
        folder = write_trial(tmp_path / "one", SCORES, "0.5", dense=f"d{number}", salt=dtype)
        change_results(folder, lambda results, dtype=dtype: results["config"]["model_args"].update(dtype=dtype))
    code, _, error = run(tmp_path / "one", tmp_path / "one")
    assert code == 1
    assert proposed(error) in (f"{tmp_path}/one:dtype=float32", f"{tmp_path}/one:dtype=bfloat16")
    assert run(f"{tmp_path}/one:dtype=float32", f"{tmp_path}/one:dtype=bfloat16")[0] == 0


def test_seeds_are_no_settings(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_trial(tmp_path, SCORES, "0.5", pruner="wanda", seed=seed)
    trials = merge(read([tmp_path])[0])
    assert len(Side.of(str(tmp_path)).chosen(trials)) == 2
    assert [trial.seed for trial in Side.of(f"{tmp_path}:seed=2").chosen(trials)] == [2]


@pytest.mark.parametrize("commas", ["a,b", 'a="b",c', "[1, 2]", '"', 'x"y,z'])
def test_a_value_with_commas_is_read_in_quotes(commas: str) -> None:
    side = Side.of(f"there:first={json.dumps(commas)},second=2")
    assert side.wanted == {"first": commas, "second": "2"}
    assert Side.of(shlex.split(side.with_settings({}))[0]).wanted == side.wanted


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A dense and a pruned trial; the same, with the pruned one damaged; only a dense trial."""
    whole, damaged, dense = tmp_path / "whole one", tmp_path / "damaged", tmp_path / "dense"
    for out in (whole, damaged, dense):
        write_trial(out, BETTER, "0")
    write_trial(whole, SCORES, "0.5")
    (write_trial(damaged, SCORES, "0.5") / "trial.json").write_text("")
    return whole, damaged, dense


@pytest.mark.parametrize("turned", [False, True])
def test_a_dense_model_is_compared_with_a_pruned_one_only_if_it_is_named(folders: tuple[Path, Path, Path], turned: bool) -> None:
    whole, damaged, dense = folders
    for folder, typed in ((damaged, ""), (damaged, ":pretrained=tiny"), (dense, "")):
        words = [f"{folder}{typed}", str(whole)]
        code, out, error = run(*reversed(words) if turned else words)
        assert (code, out, error.count("\n")) == (1, "", 1)
        assert all(part in error for part in (f"{folder}{typed} has only a dense model", "whole one has magnitude 0.5"))
        assert ("corrupt" in error) == (folder == damaged)
        named = [proposed(error), str(whole)]
        assert named[0].endswith("sparsity=0")
        found = compare_results(*reversed(named) if turned else named, resamples=200)
        assert found.pairs[0].sparsities == (("0.5", "0") if turned else ("0", "0.5"))
        assert found.pairs[0].tasks[0].difference.value * (-1 if turned else 1) < 0


def test_a_file_names_its_result_and_two_dense_models_are_compared(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    files = [write_plain(tmp_path / "plain", scores, sparsity, stamp=sparsity) for sparsity, scores in (("0", BETTER), ("0.5", SCORES))]
    assert compare_results(*map(str, files), resamples=200).pairs[0].sparsities == ("0", "0.5")
    write_trial(tmp_path / "other", SCORES, "0", pretrained="tinier", dense="d1")
    assert compare_results(str(folders[2]), str(tmp_path / "other"), resamples=200).pairs[0].sparsities == ("0", "0")


def test_the_advice_for_the_same_results_is_quoted(folders: tuple[Path, Path, Path]) -> None:
    code, _, error = run(folders[0], folders[0])
    assert code == 1
    assert "the same results twice" in error
    assert shlex.split(error.rpartition(" as in ")[2]) == [f"{folders[0]}:pruner={pruner}" for pruner in ("wanda", "sparsegpt")]
