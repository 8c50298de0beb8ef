"""Which ability a task is taken to be about, and what becomes of tasks that nothing classes."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import numpy as np
import pytest
from report_folders import CONTEXT, RECALL, falling, rows, write_trial

from harness_ext.report import ReportError, report
from harness_ext.report.abilities import KEY, MIXED, UNCLASSIFIED, TaskClass, classify, known_patterns, known_task
from harness_ext.report.analysis import Analysis, analyse
from harness_ext.report.reading import read

pytestmark = pytest.mark.usefixtures("quick_figures")


def trials(folder: Path, tasks: dict[str, dict], **options: object) -> list:
    """A dense model and one pruned one, with tasks of the given metadata."""
    for sparsity in (0.0, 0.6):
        write_trial(folder, dict.fromkeys(tasks, RECALL[sparsity]), f"{sparsity:g}", metadata=tasks, **options)
    return read([folder])[0]


def abilities(folder: Path, tasks: dict[str, dict], **options: object) -> dict[str, str | None]:
    return {task: known.ability for task, known in classify(trials(folder, tasks), **options).items()}


@pytest.mark.parametrize(
    ("task", "ability"),
    [
        ("triviaqa", "recall"), ("nq_open", "recall"), ("webqs", "recall"), ("bear", "recall"), ("popqa_closed", "recall"),
        ("lab_facts_closed", "recall"), ("lre_closed_4shot", "recall"),
        ("squadv2", "in-context"), ("squad_completion", "in-context"), ("drop", "in-context"), ("ruler_vt", "in-context"),
        ("niah_single_1", "in-context"), ("babilong_qa3", "in-context"), ("triviaqa_open", "in-context"), ("lre_open_2shot", "in-context"),
        ("icl_words_shuffled", "in-context"), ("kv_64", "in-context"), ("longbench_triviaqa", "in-context"),
        ("mmlu_anatomy", MIXED), ("arc_challenge", MIXED), ("hellaswag", MIXED),
        ("wikitext", None), ("my_closed", None), ("triviaqa2", None),
    ],
)  # fmt: skip
def test_a_task_that_declares_nothing_is_classed_by_the_table(task: str, ability: str | None) -> None:
    known = known_task(task)
    assert (known.ability if known else None) == ability


def test_every_name_in_the_table_is_a_task_of_lm_eval_and_no_task_has_two_classes() -> None:
    from lm_eval.tasks import TaskManager

    from harness_ext.host.registration import register

    register()
    tasks = TaskManager().all_subtasks
    classes: dict[str, TaskClass] = {}
    for pattern, known in known_patterns():
        matches = fnmatch.filter(tasks, pattern)
        assert matches, f"{pattern}: no such task"
        for task in matches:
            assert classes.setdefault(task, known) == known, f"{task} has two classes"


def test_our_tasks_declare_what_the_table_says_of_them() -> None:
    """The table is for results from before they declared it."""
    from lm_eval.tasks import TaskManager

    from harness_ext.host.registration import task_folders

    manager = TaskManager(include_path=task_folders(), include_defaults=False)
    checked = 0
    for task in manager.all_subtasks:
        known, config = known_task(task), manager.task_index[task].cfg or {}
        declared = (config.get("metadata") or {}).get(KEY)
        assert known is not None or declared is not None, task
        if known is not None and declared is not None:
            assert declared == known.ability, task
            checked += 1
    assert checked or len(manager.all_subtasks) > 20


def test_a_renamed_copy_is_what_its_metadata_say(tmp_path: Path) -> None:
    tasks = {"my_facts": {KEY: "recall"}, "my_lookup": {KEY: "in-context"}, "hellaswag": {KEY: "in-context"}, "other": {}}
    assert abilities(tmp_path, tasks) == {"my_facts": "recall", "my_lookup": "in-context", "hellaswag": "in-context", "other": None}


def test_options_come_first(tmp_path: Path) -> None:
    tasks = {"my_facts": {KEY: "recall"}, "triviaqa": {}, "other": {}}
    found = abilities(tmp_path, tasks, recall=["oth*"], in_context=["my_facts"])
    assert found == {"my_facts": "in-context", "triviaqa": "recall", "other": "recall"}


@pytest.mark.parametrize(
    ("metadata", "options", "said"),
    [
        ({KEY: "recal"}, {}, ["other", "'recal'", "Did you mean 'recall'?"]),
        ({KEY: ["recall"]}, {}, ["other", "want recall, in-context or mixed"]),
        ({}, {"recall": ["othr"]}, ["--recall othr", "Did you mean 'other'?"]),
        ({}, {"recall": ["other"], "in_context": ["o*"]}, ["other", "both"]),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path: Path, metadata: dict, options: dict, said: list[str]) -> None:
    with pytest.raises(ReportError) as caught:
        abilities(tmp_path, {"other": metadata}, **options)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in said)


def test_two_results_that_declare_two_abilities_are_refused_and_older_ones_without_are_not(tmp_path: Path) -> None:
    write_trial(tmp_path, {"mine": RECALL[0.0]}, metadata={"mine": {KEY: "recall"}})
    write_trial(tmp_path, {"mine": RECALL[0.3]}, "0.3")
    assert classify(read([tmp_path])[0])["mine"].ability == "recall"
    write_trial(tmp_path, {"mine": RECALL[0.6]}, "0.6", metadata={"mine": {KEY: "in-context"}})
    with pytest.raises(ReportError, match="'recall' and 'in-context'"):
        classify(read([tmp_path])[0])


def analysed(folder: Path, scores: dict[str, dict[float, list[int]]], **options: object) -> Analysis:
    for sparsity in RECALL:
        write_trial(folder, {task: values[sparsity] for task, values in scores.items()}, f"{sparsity:g}", **options)
    found, gaps = read([folder])
    return analyse(found, classify(found), resamples=200, gaps=gaps)


def test_unclassified_and_mixed_tasks_are_in_no_mean_and_the_report_says_how_to_class_them(tmp_path: Path) -> None:
    every = {"lab_facts_closed": RECALL, "icl_linear": CONTEXT, "my_task": RECALL, "hellaswag": RECALL}
    done = analysed(tmp_path / "all", every)
    few = analysed(tmp_path / "few", {task: every[task] for task in ("lab_facts_closed", "icl_linear")})
    assert done.used == few.used
    assert done.critical == few.critical
    assert done.disparities == few.disparities
    [gap] = [gap for gap in done.gaps if "my_task" in gap and "--recall my_task" in gap]
    assert KEY in gap
    assert any("hellaswag" in gap and "in no mean" in gap for gap in done.gaps)
    assert {row.score.task: row.ability for row in done.rows} == {
        "lab_facts_closed": "recall", "icl_linear": "in-context", "my_task": UNCLASSIFIED, "hellaswag": MIXED,
    }  # fmt: skip


def test_the_page_shows_an_unclassified_task_by_itself(tmp_path: Path) -> None:
    for sparsity in RECALL:
        write_trial(tmp_path, {"lab_facts_closed": RECALL[sparsity], "my_task": CONTEXT[sparsity]}, f"{sparsity:g}")
    folder = report([tmp_path], resamples=200).page.parent
    assert {row["ability"] for row in rows(folder, "scores") if row["task"] == "my_task"} == {UNCLASSIFIED}
    assert "my_task" in (folder / "index.html").read_text(encoding="utf-8")
    assert not any("my_task" in row["tasks"] for row in rows(folder, "curves"))


def test_families_have_equal_weights_in_the_mean_of_an_ability(tmp_path: Path) -> None:
    generator = range(4)
    tasks = {f"kv_{2 ** (2 + number)}": falling(200, 0.9, {0.3: 0.9, 0.6: 0.5, 0.8: 0.2}, seed=number) for number in generator}
    done = analysed(tmp_path, tasks | {"icl_linear": CONTEXT}, chance={"icl_linear": 0.5})
    [curve] = [curve for (_, ability), curve in done.curves.items() if ability == "in-context"]
    for index, sparsity in enumerate(RECALL):
        lookup = np.mean([np.mean(values[sparsity]) for values in tasks.values()])
        assert curve.scores[index].value == pytest.approx((lookup + (np.mean(CONTEXT[sparsity]) - 0.5) / 0.5) / 2)


def test_a_family_can_be_declared(tmp_path: Path) -> None:
    tasks = {"one": {KEY: "recall", "family": "mine"}, "two": {KEY: "recall", "family": "mine"}, "three": {KEY: "recall"}}
    assert {task: known.family for task, known in classify(trials(tmp_path, tasks)).items()} == {
        "one": "mine", "two": "mine", "three": "three",
    }  # fmt: skip
