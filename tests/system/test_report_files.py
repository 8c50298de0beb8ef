"""The files that a report reads: their names, damage in them, and the arguments that they record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refusals import raises_line
from report_folders import CONTEXT, RECALL, rows, write_plain

from harness_ext.report import ReportError, report
from harness_ext.report.chosen_scores import ChosenScores
from harness_ext.report.compare import compare_results
from harness_ext.report.reading import read
from harness_ext.report.trials import LoadedTrial

pytestmark = pytest.mark.usefixtures("quick_figures")

DATES = [f"2026-01-0{day}T00-00-00.123456" for day in (1, 2, 3)]


def write(folder: Path, change: Callable[[dict[str, Any], int], object] = lambda results, number: None) -> list[Path]:
    """Results of lm_eval at three sparsities, changed by their number."""
    files = []
    for number, sparsity in enumerate((0.0, 0.3, 0.6)):
        given = {"lab_facts_closed": RECALL[sparsity], "icl_linear": CONTEXT[sparsity]}
        file = write_plain(folder, given, f"{sparsity:g}", stamp=DATES[number])
        results = json.loads(file.read_text(encoding="utf-8"))
        change(results, number)
        file.write_text(json.dumps(results), encoding="utf-8")
        files.append(file)
    return files


def scores(trials: list[LoadedTrial]) -> list[dict[str, Any]]:
    return [{task: score.scores for task, score in trial.tasks.items()} for trial in trials]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_a_line_of_samples_ends_at_a_line_feed_and_at_nothing_else(tmp_path: Path, character: str) -> None:
    wanted = scores(read([*write(tmp_path / "plain")])[0])
    write(tmp_path / "odd")
    for file in (tmp_path / "odd").glob("samples_*.jsonl"):
        lines = [json.loads(line) | {"resps": [[f"a{character}b"]]} for line in file.read_text(encoding="utf-8").split("\n") if line]
        file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        assert character in file.read_text(encoding="utf-8") or character < " "
    assert scores(read([tmp_path / "odd"])[0]) == wanted


@pytest.mark.parametrize("stem", ["x", "results", "results_of_mine", "run_2026-01-01"])
def test_results_with_a_name_of_their_own_are_found_with_their_samples(tmp_path: Path, stem: str) -> None:
    """``lm_eval --output_path DIR/x.json`` writes ``DIR/x_DATE.json``, and ``DIR/samples_TASK_DATE.jsonl``."""
    wanted = scores(read([tmp_path / "plain"])[0]) if write(tmp_path / "plain") else []
    for file in write(tmp_path / "named"):
        file.rename(file.with_name(file.name.replace("results_", f"{stem}_")))
    (tmp_path / "named" / f"other_{DATES[0]}.json").write_text('{"what": "ever"}')
    (tmp_path / "named" / "other.json").write_text("[]")
    assert scores(read([tmp_path / "named"])[0]) == wanted
    assert scores(read(sorted((tmp_path / "named").glob(f"{stem}_*.json")))[0]) == wanted


def test_lm_eval_names_its_files_so(tmp_path: Path) -> None:
    from lm_eval.loggers.evaluation_tracker import EvaluationTracker

    [dense, *_] = write(tmp_path / "plain")
    results = json.loads(dense.read_text(encoding="utf-8"))
    tracker = EvaluationTracker(output_path=str(tmp_path / "own" / "x.json"))
    tracker.save_results_aggregated(results)
    for file in (tmp_path / "plain").glob(f"samples_*_{DATES[0]}.jsonl"):
        sampled = [
            json.loads(line) | {"arguments": [], "resps": [], "filtered_resps": [], "target": 0}
            for line in file.read_text().split("\n")
            if line
        ]
        tracker.save_results_samples(file.name.removeprefix("samples_").removesuffix(f"_{DATES[0]}.jsonl"), sampled)
    assert scores(read([tmp_path / "own"])[0]) == scores(read([dense])[0])


def test_samples_of_a_task_with_a_hyphen_are_found(tmp_path: Path) -> None:
    write_plain(tmp_path, {"my-facts": RECALL[0.0]}, stamp=DATES[0])
    [trial] = read([tmp_path])[0]
    assert trial.tasks["my-facts"].scores is not None


@pytest.mark.parametrize("percent", [62.0, 0.9, 100.0])
def test_a_score_that_lm_eval_gives_in_percent_is_a_share(tmp_path: Path, percent: float) -> None:
    file = write_plain(tmp_path, {"squadv2": RECALL[0.0]}, stamp=DATES[0])
    results = json.loads(file.read_text(encoding="utf-8"))
    del results["results"]["squadv2"]["acc,none"]
    results["results"]["squadv2"]["f1,none"] = percent
    file.write_text(json.dumps(results), encoding="utf-8")
    [trial] = read([tmp_path])[0]
    assert trial.tasks["squadv2"].value == pytest.approx(percent / 100)


@pytest.mark.parametrize(("name", "shared"), [("{}", False), (int, False), ("fact/{}", True)])
def test_items_of_two_tasks_are_the_same_where_their_ids_name_them_and_not_where_they_count(
    tmp_path: Path, name: Any, shared: bool
) -> None:
    write(tmp_path)
    for file in tmp_path.glob("samples_*.jsonl"):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        named = [row | {"id": name.format(number) if isinstance(name, str) else name(number)} for number, row in enumerate(rows)]
        file.write_text("".join(json.dumps(row) + "\n" for row in named), encoding="utf-8")
    facts, functions = (set(of_task or {}) for of_task in scores(read([tmp_path])[0])[0].values())
    assert facts
    assert bool(facts & functions) == shared


def filters(results: dict[str, Any], order: list[str]) -> None:
    of_task = results["results"]["lab_facts_closed"]
    value = of_task.pop("acc,none")
    of_task |= {f"acc,{name}": value if name == "strict" else 1 - value for name in order}


def test_filters_in_another_order_are_the_same_filters(tmp_path: Path) -> None:
    orders = [["strict", "flexible"], ["flexible", "strict"], ["flexible", "strict"]]
    write(tmp_path, lambda results, number: filters(results, orders[number]))
    trials = read([tmp_path])[0]
    assert [trial.tasks["lab_facts_closed"].filter for trial in trials] == ["strict"] * 3
    assert [trial.tasks["lab_facts_closed"].value for trial in trials] == pytest.approx([sum(RECALL[s]) / 200 for s in (0.0, 0.3, 0.6)])


def test_other_filters_are_refused_with_a_way_out(tmp_path: Path) -> None:
    write(tmp_path, lambda results, number: filters(results, ["strict", "flexible"] if number else ["other"]))
    with raises_line(ReportError, "not the same score", "name only one of them"):
        report([tmp_path], resamples=200)


def test_the_filter_that_counts_can_be_chosen(tmp_path: Path) -> None:
    write(tmp_path, lambda results, number: filters(results, ["strict", "flexible"]))
    for asked, expected in (([], "strict"), (["flexible"], "flexible"), (["flexible", "strict"], "flexible")):
        trials, _ = read([tmp_path], ChosenScores(filters=asked))
        assert {trial.tasks["lab_facts_closed"].filter for trial in trials} == {expected}
        assert {trial.tasks["icl_linear"].filter for trial in trials} == {"none"}, "a task without this filter keeps its own"


def test_a_filter_that_no_score_has_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, lambda results, number: filters(results, ["strict", "flexible"]))
    with raises_line(ReportError, "--filter 'flexble'", "strict", "Did you mean 'flexible'"):
        report([tmp_path], filters=["flexble"], resamples=200)
    with raises_line(ReportError, "--filter 'flexble'"):
        compare_results(f"{tmp_path}:sparsity=0.3", f"{tmp_path}:sparsity=0.6", filters=["flexble"], resamples=200)


def test_results_of_two_filters_are_one_report_with_the_filter_of_both(tmp_path: Path) -> None:
    write(tmp_path, lambda results, number: filters(results, ["strict", "flexible"] if number else ["flexible"]))
    made = report([tmp_path], tmp_path / "out", filters=["flexible"], resamples=200)
    assert "--filter flexible" in made.page.read_text(encoding="utf-8")
    with raises_line(ReportError, "choose a score that both have with --filter"):
        report([tmp_path], filters=["strict"], resamples=200)


def in_record(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda results: results["config"]["pruning"].update({name: value})


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a task without a configuration": (lambda results: results["configs"].update(lab_facts_closed=None), "lab_facts_closed"),
    "scores that are no mapping": (lambda results: results["results"].update(lab_facts_closed=[1]), "lab_facts_closed"),
    "an achieved sparsity that is a text": (in_record("achieved_sparsity", "q"), "achieved_sparsity"),
    "an achieved sparsity above 1": (in_record("achieved_sparsity", 3), "achieved_sparsity"),
    "a plan without a pruner": (lambda results: results["config"]["pruning"]["plan"].pop("pruner"), "pruner"),
    "a plan without a sparsity": (lambda results: results["config"]["pruning"]["plan"].pop("sparsity"), "sparsity"),
    "a sparsity that is none": (lambda results: results["config"]["pruning"]["plan"].update(sparsity="abc"), "abc"),
    "metadata that are a list": (lambda results: results["configs"]["lab_facts_closed"].update(metadata=[1]), "damaged"),
    "no versions": (lambda results: results.update(versions=None), "damaged"),
    "a plan that is none": (in_record("plan", [1]), "plan"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_line_that_names_the_file(tmp_path: Path, damage: str) -> None:
    change, said = DAMAGE[damage]
    files = write(tmp_path, lambda results, number: change(results) if number == 1 else None)
    with raises_line(ReportError, str(files[1]), said):
        report([tmp_path], resamples=200)


@pytest.mark.parametrize("how", ["null", "cut off"])
def test_a_damaged_line_of_samples_is_named_with_its_number(tmp_path: Path, how: str) -> None:
    write(tmp_path)
    file = tmp_path / f"samples_lab_facts_closed_{DATES[1]}.jsonl"
    lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    if how == "null":
        lines[6] = "null"
    else:
        lines = [*lines[:6], lines[6][:-20]]
    file.write_text("\n".join(lines), encoding="utf-8")
    with raises_line(ReportError, str(file), "line 7"):
        report([tmp_path], resamples=200)


@pytest.mark.parametrize(
    "other", [{"add_bos_token": True}, {"max_length": 64}, {"tokenizer": "another"}, {"chat_template_args": {"a": 1}}, {"truncation": True}]
)
def test_arguments_that_change_prompts_are_refused_beside_others(tmp_path: Path, other: dict[str, Any]) -> None:
    files = write(tmp_path, lambda results, number: results["config"]["model_args"].update(other) if number else None)
    with raises_line(ReportError, next(iter(other)), str(files[0]), "prompts are not the same"):
        report([tmp_path], resamples=200)


def test_generation_arguments_that_differ_are_refused_for_tasks_that_generate(tmp_path: Path) -> None:
    def change(results: dict[str, Any], number: int, output: str) -> None:
        results["config"]["gen_kwargs"] = {"max_gen_toks": number} if number else {}
        for task in results["configs"].values():
            task["output_type"] = output

    write(tmp_path / "choices", lambda results, number: change(results, number, "multiple_choice"))
    report([tmp_path / "choices"], resamples=200)
    write(tmp_path / "texts", lambda results, number: change(results, number, "generate_until"))
    with raises_line(ReportError, "no --gen_kwargs", "max_gen_toks", "not generated alike"):
        report([tmp_path / "texts"], resamples=200)


def test_another_dtype_is_noted(tmp_path: Path) -> None:
    write(tmp_path, lambda results, number: results["config"]["model_args"].update(dtype="bfloat16") if number else None)
    done = report([tmp_path], resamples=200)
    [gap] = [gap for gap in done.gaps if "other model arguments" in gap]
    assert "dtype=None and dtype=bfloat16" in gap
    assert rows(done.page.parent, "critical")


@pytest.mark.parametrize("recorded", [True, False])
def test_the_page_says_of_rebuilt_commands_what_they_lack(tmp_path: Path, recorded: bool) -> None:
    command = {"command": "lm_eval --model pruned-hf --tasks icl_linear"} if recorded else {}
    write(tmp_path, lambda results, number: results["config"].update(command))
    text = report([tmp_path], resamples=200).page.read_text(encoding="utf-8")
    assert ("Some commands were rebuilt from results" in text) == ("# lacks --include_path" in text) == (not recorded)


def test_arguments_of_the_pruning_and_of_the_machine_count_as_nothing(tmp_path: Path) -> None:
    pruned: dict[str, Any] = {
        "pruner": "magnitude", "pruner.power": 2, "calibration.samples": 8, "allocation": "uniform", "modules": "all",
        "precision": "float32", "batch_size": 8, "device": "cpu", "share_prompts": False,
        "calibration_cache": False, "max_length": None, "truncation": False,
    }  # fmt: skip
    write(tmp_path, lambda results, number: results["config"]["model_args"].update(pruned) if number else None)
    assert not [gap for gap in report([tmp_path], resamples=200).gaps if "other model arguments" in gap]


def test_a_misspelt_metric_is_an_error_beside_one_that_all_have(tmp_path: Path) -> None:
    write(tmp_path, lambda results, number: results["results"]["icl_linear"].update({"exact_match,none": 0.5}))
    for asked in (["exact_mtch", "acc"], ["acc", "exact_mtch"]):
        with raises_line(ReportError, "--metric 'exact_mtch'", "Did you mean 'exact_match'"):
            report([tmp_path], metrics=asked, resamples=200)
        with raises_line(ReportError, "--metric 'exact_mtch'"):
            compare_results(f"{tmp_path}:sparsity=0.3", f"{tmp_path}:sparsity=0.6", metrics=asked, resamples=200)


@pytest.mark.parametrize("asked", [["f1", "acc"], ["acc", "acc_norm"], ["quasi_exact_match", "exact_match", "acc"]])
def test_a_metric_that_no_score_has_may_be_one_of_several(tmp_path: Path, asked: list[str]) -> None:
    write(tmp_path, lambda results, number: results["results"]["icl_linear"].update({"exact_match,none": 0.5}))
    assert report([tmp_path], tmp_path / "out", metrics=asked, resamples=200).page.exists()
