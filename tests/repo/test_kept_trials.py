"""Kept trials are the measured ones: the same settings, costs and scores of items, without paths of the machine."""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

import pytest
from support.report_folders import change_results, ranked, sweep, write_trial
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import kept_trials

from harness_ext.sweep import load

SCORES = {"icl_linear": [1, 0, 1, 1]}


def call(command: str, *words: Path | str) -> None:
    found = CliRunner().invoke(kept_trials.app, [command, *map(str, words)], catch_exceptions=False)
    assert found.exit_code == 0, found.output


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Two sweeps as they were measured, the file that keeps them, and the sweeps that were put back."""
    folder = tmp_path_factory.mktemp("kept")
    sweep(folder / "measured" / "first")
    options = {"pretrained": f"{folder}/measured/family/model", "answers": {"icl_linear": ranked([1, 0, 1, 1], 2)}}
    for sparsity in ("0", "0.5"):
        write_trial(folder / "measured" / "second", SCORES, sparsity, **options)
    source = {"config_source": "/site-packages/task_configs/icl_linear.yaml"}
    change_results(folder / "measured" / "second", lambda found: found["configs"]["icl_linear"]["metadata"].update(source))
    call("keep", folder / "measured", folder / "trials.jsonl.xz", "--answers")
    call("put", folder / "trials.jsonl.xz", folder / "back")
    return folder


@pytest.mark.parametrize("name", ["first", "second"])
def test_trials_that_were_put_back_are_whole_records_with_the_same_scores(kept, name):
    measured, back = load(kept / "measured" / name), load(kept / "back" / name)
    assert len(back) == len(measured) == {"first": 4, "second": 2}[name]
    for old, new in zip(measured, back, strict=True):
        assert (new.ratio, new.pruning, new.seconds, new.items) == (old.ratio, old.pruning, old.seconds, old.items)
        assert new.results["results"] == old.results["results"]
        for task in old.tasks:
            for row, one in zip(old.samples(task), new.samples(task), strict=True):
                assert one.items() <= row.items()
                assert {"doc_id", "filter", "metrics", "acc"} <= set(one)


def test_trials_read_from_the_file_are_those_that_are_put_back(kept):
    read = list(kept_trials.trials_of(kept / "trials.jsonl.xz"))
    back = [record for name in ("first", "second") for record in load(kept / "back" / name)]
    assert [(one.key, one.seconds) for one in read] == [(one.key, one.seconds) for one in back]
    for one, other in zip(read, back, strict=True):
        assert [one.samples(task) for task in one.tasks] == [other.samples(task) for task in other.tasks]


def test_the_dense_model_alone_keeps_its_answers_of_which_margins_are_made(kept):
    dense, pruned = load(kept / "back" / "second")
    assert all("filtered_resps" in row and "target" in row for row in dense.samples("icl_linear"))
    assert not any("filtered_resps" in row for row in pruned.samples("icl_linear"))


def test_answers_are_left_out_unless_they_are_asked_for(kept):
    call("keep", kept / "measured", kept / "without.jsonl.xz")
    call("put", kept / "without.jsonl.xz", kept / "without")
    assert not any("filtered_resps" in row for record in load(kept / "without" / "second") for row in record.samples("icl_linear"))


def test_scores_that_are_not_0_or_1_stay_as_they_are(tmp_path):
    write_trial(tmp_path / "measured" / "sweep", {"icl_linear": [1, 0]}, answers={"icl_linear": [{"acc": 0.25}, {"acc": 1.0}]})
    call("keep", tmp_path / "measured", tmp_path / "trials.jsonl.xz")
    call("put", tmp_path / "trials.jsonl.xz", tmp_path)
    assert [row["acc"] for row in load(tmp_path / "sweep")[0].samples("icl_linear")] == [0.25, 1.0]


def test_paths_below_the_folder_are_relative_to_it_and_those_of_the_installation_are_left_out(kept):
    assert {record.pretrained for record in load(kept / "back" / "second")} == {"family/model"}
    text = lzma.decompress((kept / "trials.jsonl.xz").read_bytes()).decode()
    assert str(kept) not in text
    assert "site-packages" not in text


def test_a_trial_that_is_there_stays_as_it_is(kept):
    file = load(kept / "back" / "first")[0].folder / "results.json"
    before = file.stat()
    call("put", kept / "trials.jsonl.xz", kept / "back")
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_is_kept_twice_is_the_same_file(kept):
    call("keep", kept / "back", kept / "again.jsonl.xz", "--answers")
    assert (kept / "again.jsonl.xz").read_bytes() == (kept / "trials.jsonl.xz").read_bytes()
