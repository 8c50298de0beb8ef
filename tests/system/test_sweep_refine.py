"""``harness-ext sweep --refine``: more sparsities where an ability fails, and only there. Scores are simulated; nothing is pruned."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_folders
from sweeps import prepare
from typer.testing import CliRunner

from harness_ext.commands.cli import app
from harness_ext.errors import BadOptionError
from harness_ext.report.abilities import classify
from harness_ext.report.analysis import analyse
from harness_ext.report.reading import read
from harness_ext.report.refining import check_tasks, sparsities_to_measure
from harness_ext.statistics import sparsities_to_add
from harness_ext.sweep.prepared import Prepared
from harness_ext.sweep.records import load
from harness_ext.sweep.refine import method_of, most, refine
from harness_ext.sweep.run import Outcome, run

ITEMS = 400
FAILS = {
    ("magnitude", "lab_facts_closed"): 0.33,
    ("magnitude", "kv_4"): 0.71,
    ("random", "lab_facts_closed"): 0.12,
    ("random", "kv_4"): 0.5,
}
TASKS = ["lab_facts_closed", "kv_4"]
CHANCE = dict.fromkeys(TASKS, 0.0)


def right(pruner: str, task: str, sparsity: float) -> list[int]:
    """Nine in ten items are right; from where the ability fails on one in ten."""
    order = np.random.default_rng(len(task)).random(ITEMS)
    return (order < (0.9 if sparsity < FAILS[pruner, task] else 0.1)).astype(int).tolist()


class Simulated:
    """An engine that counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def __call__(self, sweep: Any, jobs: Sequence[Any], items: Any, display: Any) -> Iterator[Outcome]:
        for job in jobs:
            ratio = job.trial.plan.sparsity.ratio
            pruner = job.trial.plan.pruner.name if ratio else "magnitude"
            self.asked.append((pruner, ratio))
            values = {task: right(pruner, task, ratio) for task in TASKS}
            record = report_folders.pruning(str(job.trial.plan.sparsity), ratio, pruner=pruner)
            results = report_folders.results(values, record, dict(job.trial.arguments), chance=CHANCE)
            results["config"]["command"] = "lm_eval"
            none = dict.fromkeys(("doc", "prompt_hash", "target_hash", "target", "resps", "filtered_resps"))
            samples = {task: [none | row for row in report_folders.samples(task, values[task])] for task in TASKS}
            measured = {"items": dict.fromkeys(TASKS, "x"), "parameters": 10000, "seconds": {"evaluation": 1.0}, "cost": 1.0}
            yield Outcome(job, results, samples, measured)


def prepared(width: float | None, **fields: Any) -> Prepared:
    metadata = {"facts_items": 8, "lookup_items": 8}
    return prepare(**({"sparsity": ["0:0.8:0.4"], "tasks": TASKS, "metadata": metadata, "refine": width} | fields))


def refined(out: Path, width: float, **fields: Any) -> tuple[Simulated, Any, list[str]]:
    engine, lines = Simulated(), []
    sweep = prepared(width, **fields)
    _, summary = refine(sweep, run(sweep, out, engine), out, engine, sparsities_to_measure, lines.append)
    return engine, summary, lines


def intervals(out: Path) -> dict[tuple[str, str], tuple[float, float | None]]:
    trials, _ = read([out])
    done = analyse(trials, classify(trials), drops=(0.05,))
    return {(label, ability): (found.low, found.high) for (label, ability, _, corrected), found in done.critical.items() if corrected}


def test_intervals_become_as_narrow_as_asked_and_hold_the_truth(tmp_path: Path) -> None:
    engine, summary, lines = refined(tmp_path, 0.05)
    found = intervals(tmp_path)
    for ability, task in (("recall", "lab_facts_closed"), ("in-context", "kv_4")):
        low, high = found["magnitude", ability]
        assert high is not None
        assert low <= FAILS["magnitude", task] <= high
        assert high - low <= 0.05 + 1e-9
    assert len(engine.asked) == len(summary.records) == summary.done
    assert len(set(engine.asked)) == len(engine.asked)
    whole = len(np.arange(0, 0.8, 0.05)) + 1
    assert len(engine.asked) < whole, "fewer trials than a fine grid has"
    assert lines


def test_each_method_is_measured_where_it_decides(tmp_path: Path) -> None:
    engine, _, _ = refined(tmp_path, 0.1, pruner=["magnitude", "random"])
    found = intervals(tmp_path)
    assert all(high is not None and high - low <= 0.1 + 1e-9 for low, high in found.values())
    added = {pruner: {ratio for name, ratio in engine.asked if name == pruner} - {0.0, 0.4, 0.8} for pruner in ("magnitude", "random")}
    assert added["magnitude"]
    assert added["random"]
    assert min(added["magnitude"]) > 0.2 - 1e-9
    assert max(added["random"]) < 0.6 + 1e-9
    assert added["magnitude"] != added["random"]


@pytest.mark.parametrize("width", [0.3, 0.1, pytest.param(0.02, marks=pytest.mark.slow)])
def test_what_it_does_at_most_is_said_and_kept(tmp_path: Path, width: float) -> None:
    sweep = prepared(width)
    limit = most(sweep.sweep, sweep.trials, width)
    engine, _, lines = refined(tmp_path, width)
    assert len(engine.asked) - 3 <= limit.trials
    assert len(lines) <= limit.rounds


def test_a_pattern_does_not_stand_for_the_ratio_that_it_has(tmp_path: Path) -> None:
    engine, _, lines = refined(tmp_path, 0.05, sparsity=["0.2,0.8,2:4"])
    assert engine.asked.count(("magnitude", 0.5)) == 2
    assert all(high is not None and high - low <= 0.05 + 1e-9 for low, high in intervals(tmp_path).values())
    assert any("0.5" in line for line in lines)


def test_without_need_nothing_is_added(tmp_path: Path) -> None:
    engine, summary, lines = refined(tmp_path, 0.5)
    assert (len(engine.asked), lines, summary.done) == (3, [], 3)


@pytest.mark.slow
def test_a_stopped_refinement_resumes(tmp_path: Path) -> None:
    whole, _, _ = refined(tmp_path / "whole", 0.05)
    stopped = Simulated()

    def engine(sweep: Any, jobs: Sequence[Any], items: Any, display: Any) -> Iterator[Outcome]:
        for outcome in stopped(sweep, jobs, items, display):
            if len(stopped.asked) > 5:
                raise KeyboardInterrupt
            yield outcome

    sweep = prepared(0.05)
    out = tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        refine(sweep, run(sweep, out, engine), out, engine, sparsities_to_measure, lambda line: None)
    again, summary, _ = refined(out, 0.05)
    assert sorted(stopped.asked[:5] + again.asked) == sorted(whole.asked)
    assert (summary.before, summary.done) == (5, len(whole.asked) - 5)
    assert intervals(out) == intervals(tmp_path / "whole")


def test_the_sparsities_are_those_that_the_statistics_name(tmp_path: Path) -> None:
    report_folders.sweep(tmp_path)
    records = load(tmp_path)
    trials, _ = read([tmp_path])
    done = analyse(trials, classify(trials), drops=(0.05,))
    critical = [found for (_, _, _, corrected), found in done.critical.items() if corrected]
    found = sparsities_to_measure(records, 0.1)
    assert list(found) == [method_of(records[0].arguments)]
    assert list(itertools.chain(*found.values())) == list(sparsities_to_add(critical, 0.1))
    assert sparsities_to_measure(records, 0.9) == {}


def test_tasks_of_no_ability_cannot_be_refined() -> None:
    with pytest.raises(BadOptionError, match=r"--refine 0.1: no task .* recall or in-context"):
        check_tasks(_without_ability())


def _without_ability() -> Prepared:
    sweep = prepared(0.1, tasks=["kv_4"])
    tasks = sweep.catalogue.tasks(sweep.items["lab-xs"].for_trial())
    renamed = {"a_task_of_mine": tasks["kv_4"]}
    tasks["kv_4"].config.metadata.pop("ability", None)
    sweep.catalogue.tasks = lambda made: renamed  # type: ignore[method-assign]
    return sweep


COMMAND = [
    "sweep",
    "--pretrained",
    "lab-xs",
    "--pruner",
    "magnitude",
    "--tasks",
    "kv_4",
    "--metadata",
    '{"lookup_items": 8}',
    "--device",
    "cpu",
]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--refine", "0", "--sparsity", "0.5"], "--refine 0: want a width"),
        (["--refine", "wide", "--sparsity", "0.5"], "--refine wide: want a width"),
        (["--refine", "1.5", "--sparsity", "0.5"], "--refine 1.5: want a width"),
        (["--refine", "0.1", "--sparsity", "2:4"], "has no ratio above 0"),
        (["--refine", "0.1", "--sparsity", "0"], "has no ratio above 0"),
    ],
)
def test_a_refinement_that_is_impossible_is_refused_in_one_line(tmp_path: Path, given: list[str], said: str) -> None:
    ran = CliRunner().invoke(app, [*COMMAND, "--out", str(tmp_path / "run"), *given])
    assert ran.exit_code == 1
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_what_it_would_do_at_most(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, [*COMMAND, "--out", str(tmp_path / "run"), "--sparsity", "0:0.8:0.4", "--refine", "0.1", "--dry-run"])
    assert ran.exit_code == 0, ran.output
    sweep = prepared(0.1, tasks=["kv_4"])
    limit = most(sweep.sweep, sweep.trials, 0.1)
    assert f"at most {limit.trials} more trials" in ran.output
    assert not (tmp_path / "run").exists()


def test_the_command_refines_a_tiny_sweep(tmp_path: Path) -> None:
    out = tmp_path / "run"
    ran = CliRunner().invoke(app, [*COMMAND, "--out", str(out), "--sparsity", "0.8", "--refine", "0.3"])
    assert ran.exit_code == 0, ran.output
    ratios = {record.ratio for record in load(out)}
    assert {0.0, 0.8} <= ratios
    assert "at most" in ran.output
    assert "in-context ability" in ran.output
