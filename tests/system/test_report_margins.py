"""The margins of items, from per-sample records of the dense model."""

from __future__ import annotations

import json
import math
from typing import Any

import lm_eval
import pytest
from lm_eval.tasks import TaskManager

from harness_ext.report.margins import margins_of

ITEMS = 40
PYTHON = f"""
import datasets

def load(**_):
    letters = "abcdefghijklmnopqrstuvwxyz"
    rows = [{{"q": " ".join(letters[(i * j) % 26] for j in range(1, 5)), "label": i % 3}} for i in range({ITEMS})]
    return {{"test": datasets.Dataset.from_list(rows)}}
"""
TASK = (
    "task: lengths\ncustom_dataset: !function lengths.load\ntest_split: test\ndoc_to_text: '{{q}}'\noutput_type: multiple_choice\n"
    "doc_to_choice: ['a b c d e f g', 'c', '1 2 3']\ndoc_to_target: label\nmetric_list: [{metric: acc}, {metric: acc_norm}]\n"
)


def row(*likelihoods: Any, target: Any = 0, **more: Any) -> dict[str, Any]:
    return {"filtered_resps": [[value, False] for value in likelihoods], "target": target, **more}


def margin(one: dict[str, Any], score: float, metric: str = "acc", **options: Any) -> float:
    found = margins_of(["item"], [one], metric, [score], **options)
    assert found.why_not is None
    return found.values["item"]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The samples of a stock run, as ``--log_samples`` writes them."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "lengths.py").write_text(PYTHON)
    (folder / "lengths.yaml").write_text(TASK)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = lm_eval.simple_evaluate(model="pruned-hf", tasks=["lengths"], task_manager=manager, bootstrap_iters=0)
    samples: list[dict[str, Any]] = json.loads(json.dumps(results["samples"]["lengths"], default=str))
    return samples


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
def test_the_margin_is_what_the_score_of_lm_eval_compares(logged: list[dict[str, Any]], metric: str) -> None:
    """lm-eval divides by characters for acc_norm, and by nothing for acc."""
    scores = [one[metric] for one in logged]
    assert 0 < sum(scores) < ITEMS
    found = margins_of([str(one["doc_id"]) for one in logged], logged, metric, scores)
    assert found.why_not is None
    assert found.unit == {"acc": "nats", "acc_norm": "nats per character"}[metric]
    lengths = {"acc": (1, 1, 1), "acc_norm": (13, 1, 5)}[metric]
    for one in logged:
        values = [float(response[0]) / length for response, length in zip(one["filtered_resps"], lengths, strict=True)]
        right = values.pop(one["doc"]["label"])
        assert found.values[str(one["doc_id"])] == pytest.approx(right - max(values))
        assert (found.values[str(one["doc_id"])] > 0) == (one[metric] == 1)


def test_records_of_a_sweep_and_of_a_log_give_the_same(logged: list[dict[str, Any]]) -> None:
    kept = [{name: one[name] for name in ("filtered_resps", "target")} for one in logged]
    ids, scores = [str(one["doc_id"]) for one in logged], [one["acc"] for one in logged]
    assert margins_of(ids, kept, "acc", scores) == margins_of(ids, logged, "acc", scores)
    assert "lengths of the choices" in str(margins_of(ids, kept, "acc_norm", scores).why_not)


@pytest.mark.parametrize(
    ("one", "score", "expected"),
    [
        (row(-1.0, -3.5, -2.0), 1, 1.0),
        (row("-1.0", "-3.5", "-2.0", target="0"), 1, 1.0),
        (row(-1.0, -3.5, -2.0, target=2), 0, -1.0),
        (row(-1.0, -3.5, -2.0, target=[1, 2]), 0, -1.0),
        (row(-1.0, -1.5, -4.0, target=[0, 1]), 1, 3.0),
        (row(-1.0, -1.0), 1, 0.0),
        (row(-1.0, -3.5, target="Paris"), 1, 2.5),
        ({"filtered_resps": [" Paris", [-5.0, False], [-1.0, True]], "target": "Paris"}, 1, 4.0),
        (row(-1.0, -3.5, -9.0, -9.0, metrics=["acc_mutual_info"]), 1, 2.5),
        (row(-3.0, -1.0, target="Rome", arguments={"0": {"arg_1": " Rome"}, "1": {"arg_1": " Oslo"}}), 0, -2.0),
        (row(-3.0, -1.0, target="x", arguments=[["1", " x"], ["2", " x"]]), 1, 2.0),
    ],
    ids=["right", "text", "wrong", "several right, wrong", "several right", "a tie", "a label in words", "a completion first",
         "mutual information", "a label among the choices", "the same text for all choices"],
)  # fmt: skip
def test_the_right_choice_less_the_best_wrong_one(one: dict[str, Any], score: float, expected: float) -> None:
    assert margin(one, score) == pytest.approx(expected)


def test_a_wrong_answer_whose_label_the_record_does_not_tell_has_none() -> None:
    assert math.isnan(margin(row(-1.0, -3.5, target="Paris"), 0))


def test_the_delimiter_of_the_task_is_no_character_of_a_choice() -> None:
    arguments = [["?", ": ab"], ["?", ": abcd"]]
    assert margin(row(-2.0, -8.0, arguments=arguments), 1, "acc_norm", delimiter=": ") == pytest.approx(-2 / 2 + 8 / 4)


@pytest.mark.parametrize(
    ("one", "score", "metric", "said"),
    [
        ({"filtered_resps": ["Paris"], "target": "Paris"}, 1, "exact_match", "exact_match compares no choices"),
        ({"filtered_resps": ["Paris"], "target": "Paris"}, 1, "acc", "no log-likelihoods of choices"),
        ({}, 1, "acc", "no log-likelihoods of choices"),
        (row(-1.0), 1, "acc", "no log-likelihoods of choices"),
        (row(-1.0, math.nan), 1, "acc", "no log-likelihoods of choices"),
        (row(-1.0, -math.inf), 1, "acc", "no log-likelihoods of choices"),
        (row(-1.0, -2.0, target=1), 1, "acc", "not that of the likeliest choice"),
        (row(-1.0, -2.0, target=0), 0, "acc", "not that of the likeliest choice"),
        (row(-1.0, -2.0, target=0), 0.5, "acc", "not that of the likeliest choice"),
        (row(-1.0, -2.0, target=[0, 1]), 1, "acc", "not that of the likeliest choice"),
        (row(-1.0, -2.0, arguments=[["?", " "], ["?", " b"]]), 1, "acc_norm", "no characters to divide by"),
    ],
)  # fmt: skip
def test_where_a_score_compares_no_choices_there_are_no_margins(one: dict[str, Any], score: float, metric: str, said: str) -> None:
    found = margins_of(["item"], [one], metric, [score])
    assert found.values == {}
    assert said in str(found.why_not)


def test_a_whole_task_has_margins_or_none_of_it() -> None:
    found = margins_of(["a", "b"], [row(-1.0, -2.0), row(-1.0)], "acc", [1, 1])
    assert found.values == {}
    assert found.why_not
