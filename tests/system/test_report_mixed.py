"""Folders with results that look alike and are not: other experts, other prompts, replicates of one size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from report_folders import CONTEXT, RECALL, sweep, with_dtype, write_plain, write_trial

from harness_ext.report import ReportError
from harness_ext.report.abilities import classify
from harness_ext.report.analysis import Analysis, analyse
from harness_ext.report.compare import compare_results
from harness_ext.report.matrix import matrix
from harness_ext.report.reading import read
from harness_ext.report.tables import tables
from harness_ext.report.trials import merge

SWITCHES = [{"experts": "all"}, {"true_sequential": True}]


def analysed(folder: Path) -> Analysis:
    """What a report is made of, without its page and figures."""
    trials = merge(read([folder])[0])
    return analyse(trials, classify(trials), resamples=200)


def both_tasks(like: float) -> dict[str, list[int]]:
    return {"lab_facts_closed": RECALL[like], "icl_linear": CONTEXT[like]}


@pytest.mark.parametrize("entries", SWITCHES, ids=str)
def test_trials_that_differ_in_a_switch_are_not_one_trial_with_all_tasks(tmp_path: Path, entries: dict) -> None:
    write_trial(tmp_path, both_tasks(0.0))
    write_trial(tmp_path, {"lab_facts_closed": RECALL[0.6]}, "0.6")
    write_trial(tmp_path, {"icl_linear": CONTEXT[0.6]}, "0.6", plan_entries=entries)
    assert sorted(len(trial.tasks) for trial in analysed(tmp_path).trials) == [1, 1, 2]


@pytest.mark.parametrize("entries", SWITCHES, ids=str)
def test_series_that_differ_in_a_switch_have_labels_that_say_so(tmp_path: Path, entries: dict) -> None:
    for sparsity in (0.0, 0.3, 0.6):
        write_trial(tmp_path, both_tasks(sparsity), f"{sparsity:g}")
        if sparsity:
            write_trial(tmp_path, both_tasks(0.8), f"{sparsity:g}", plan_entries=entries)
    labels = [series.label for series in analysed(tmp_path).series]
    name, value = next(iter(entries.items()))
    assert sorted(labels) == ["magnitude", f"magnitude, {name}={str(value).lower()}"]
    plain = {"experts": "routed", "true_sequential": "false"}[name]
    compared = compare_results(f"{tmp_path}:{name}={plain}", f"{tmp_path}:{name}={str(value).lower()}", resamples=200)
    assert compared.names == (f"{name}={plain}", f"{name}={str(value).lower()}")
    recall = next(task for task in compared.pairs[0].tasks if task.name == "lab_facts_closed")
    assert recall.difference.value == pytest.approx(np.mean(RECALL[0.8]) - np.mean(RECALL[0.3]))


@pytest.mark.parametrize(("axis", "column"), [("ladder", "dense_at_equal_nonzero"), ("bits", "dense_at_equal_bits")])
def test_dense_models_of_one_size_count_with_their_mean(tmp_path: Path, axis: str, column: str) -> None:
    sweep(tmp_path)
    write_trial(tmp_path, both_tasks(0.3), pruner="gptq", bits=8, bits_of_model=100_000)
    smaller = (0.3, 0.6, 0.8)
    for number, like in enumerate(smaller):
        write_trial(tmp_path, both_tasks(like), pretrained=f"smaller {number}", dense=f"s{number}", parameters=6250)
    with_dtype(tmp_path, "torch.float16")
    found = [row for row in tables(analysed(tmp_path))[axis] if row["ability"] == "recall" and row["series"]]
    small, large = ((np.mean(values) - 0.25) / 0.75 for values in ([RECALL[like] for like in smaller], RECALL[0.0]))
    size = "nonzero" if axis == "ladder" else "bits_of_model"
    ends = (6250, 10_000) if axis == "ladder" else (100_000, 160_000)
    assert found
    for row in found:
        share = np.log(float(row[size]) / ends[0]) / np.log(ends[1] / ends[0])
        assert float(row[column]) == pytest.approx(small + share * (large - small))


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("n-shot", ({"lab_facts_closed": 5}, {"lab_facts_closed": 0}), "5 few-shot examples and 0 few-shot examples"),
        ("chat_template_sha", ("abc", None), "a chat template and no chat template"),
        ("system_instruction_sha", (None, "0123456789"), "no system instruction and the system instruction 01234567"),
    ],
)
def test_other_prompts_are_refused_though_nothing_else_tells_them_apart(tmp_path: Path, kind: str, values: tuple, said: str) -> None:
    for number, (sparsity, value) in enumerate(zip((0.0, 0.3), values, strict=True)):
        file = write_plain(tmp_path, {"lab_facts_closed": RECALL[sparsity]}, f"{sparsity:g}", stamp=str(number), logged=False)
        file.write_text(json.dumps(json.loads(file.read_text()) | {kind: value}))
    with pytest.raises(ReportError, match=said) as caught:
        analysed(tmp_path)
    assert "\n" not in str(caught.value)


def test_dense_models_with_other_prompts_are_not_in_one_ladder(tmp_path: Path) -> None:
    for number, (like, shots) in enumerate(((0.0, 0), (0.6, 5))):
        options = {"stamp": str(number), "logged": False, "dense": f"d{number}", "parameters": 10_000 - 2000 * number}
        file = write_plain(tmp_path, {"lab_facts_closed": RECALL[like]}, **options)
        found = json.loads(file.read_text()) | {"n-shot": {"lab_facts_closed": shots}}
        found["config"]["model_args"]["pretrained"] = f"model {number}"
        file.write_text(json.dumps(found))
    done = analysed(tmp_path)
    assert not done.equal_parameters.scores
    assert any("lab_facts_closed is not compared at equal parameters" in gap for gap in done.gaps)


def test_scores_of_other_settings_are_not_averaged_as_seeds_where_there_is_no_curve(tmp_path: Path) -> None:
    write_trial(tmp_path, both_tasks(0.0))
    settings = {"all": 0.8, "attention": 0.3, "ffn": 0.6}
    for modules, like in settings.items():
        for seed in (0, 1):
            write_trial(tmp_path, both_tasks(like), "2:4", pruner="sparsegpt", modules=modules, seed=seed)
    found = matrix(analysed(tmp_path))
    groups = {group.title: dict(group.rows) for group in found.groups if group.title != "nothing removed"}
    assert groups.keys() == {f"sparsegpt, {modules} (in no curve)" for modules in settings}
    for modules, like in settings.items():
        cell = groups[f"sparsegpt, {modules} (in no curve)"]["2:4"][found.tasks.index("lab_facts_closed")]
        assert cell is not None
        assert cell.text == f"{np.mean(RECALL[like]):.2f}"
        assert "mean of 2 seeds" in cell.said
