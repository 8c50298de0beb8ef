"""How a report says that answers are spread over labels, and scores over calibration seeds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet
from report_folders import rows, write_plain, write_trial
from scipy import stats

from harness_ext.report import report
from harness_ext.report.answers import answers

pytestmark = pytest.mark.usefixtures("quick_figures")

TASK, ITEMS = "icl_linear", 240


def choices(dense_share: float, seed: int) -> tuple[list[int], list[int], list[list[float]]]:
    """Right labels 0 to 2, 0/1 scores, and log-likelihoods [items, 3] of a model that is right that often and else mostly says 0."""
    generator = np.random.default_rng(seed)
    right = generator.integers(0, 3, ITEMS)
    said = np.where(generator.random(ITEMS) < dense_share, right, np.where(generator.random(ITEMS) < 0.8, 0, right))
    likelihoods = np.full((ITEMS, 3), -4.0) - generator.random((ITEMS, 3))
    likelihoods[np.arange(ITEMS), said] = -1.0
    return right.tolist(), (said == right).astype(int).tolist(), likelihoods.tolist()


def as_samples(right: list[int], likelihoods: list[list[float]], *, text: bool = False) -> list[dict[str, Any]]:
    """Rows as a sweep writes them, or with numbers as text, as ``--log_samples`` does."""
    return [
        {
            "target": str(label) if text else label,
            "filtered_resps": [[str(x), "False"] if text else [x, False] for x in of],
        }
        for label, of in zip(right, likelihoods, strict=True)
    ]


def expected(right: list[int], likelihoods: list[list[float]]) -> dict[str, float]:
    said = np.argmax(likelihoods, axis=1)
    return {
        "entropy": stats.entropy(np.bincount(said), base=2),
        "label_entropy": stats.entropy(np.bincount(right), base=2),
        "distinct": len(set(said.tolist())),
        "commonest": Counter(said.tolist()).most_common(1)[0][1] / ITEMS,
        "balanced_accuracy": np.mean([(said[np.array(right) == label] == label).mean() for label in set(right)]),
        "answers": ITEMS,
    }


@pytest.mark.parametrize("plain", [False, True])
def test_the_use_of_labels_is_that_of_the_likeliest_choices(tmp_path: Path, plain: bool) -> None:
    made = {sparsity: choices(share, 3) for sparsity, share in (("0", 0.9), ("0.5", 0.3))}
    for sparsity, (right, scores, likelihoods) in made.items():
        given = {TASK: as_samples(right, likelihoods, text=plain)}
        if plain:
            write_plain(tmp_path, {TASK: scores}, sparsity, stamp=sparsity, answers=given)
        else:
            write_trial(tmp_path, {TASK: scores}, sparsity, answers=given)
    done = report([tmp_path], resamples=200)
    found = {row["sparsity"]: row for row in rows(done.page.parent, "labels")}
    assert found.keys() == made.keys()
    for sparsity, (right, _, likelihoods) in made.items():
        assert {name: float(found[sparsity][name]) for name in expected(right, likelihoods)} == pytest.approx(expected(right, likelihoods))
    assert float(found["0.5"]["entropy"]) < float(found["0"]["entropy"])
    text = done.page.read_text(encoding="utf-8")
    assert "<caption>Use of labels</caption>" in text
    assert f">{float(found['0.5']['entropy']):.3f}</td>" in text
    assert not any("use of labels" in gap for gap in done.gaps)
    assert parquet.read_table(done.page.parent / "labels.parquet").num_rows == 2


def test_records_without_answers_are_a_gap_and_not_a_number(tmp_path: Path) -> None:
    right, scores, likelihoods = choices(0.9, 3)
    write_trial(tmp_path, {TASK: scores}, answers={TASK: as_samples(right, likelihoods)})
    write_trial(tmp_path, {TASK: scores}, "0.5")
    done = report([tmp_path], resamples=200)
    assert [row["sparsity"] for row in rows(done.page.parent, "labels")] == ["0"]
    gap = next(gap for gap in done.gaps if "no use of labels" in gap)
    assert "tiny magnitude 0.5" in gap
    assert "dense" not in gap


@pytest.mark.parametrize(
    ("row", "metric", "score", "prediction", "label"),
    [
        ({"filtered_resps": [[-1.0, False], [-1.0, True]], "target": 1}, "acc", 0.0, 0, 1),
        ({"filtered_resps": [[-2.0, False], [-1.0, True]], "target": "Paris"}, "acc", 1.0, 1, None),
        ({"filtered_resps": [[-2.0, False], [-1.0, True]], "target": 0}, "acc", 1.0, 1, None),
        ({"filtered_resps": [[-2.0, False], [-1.0, True], [-9.0, False], [-0.5, True]], "target": 1, "metrics": ["acc_mutual_info"]},
         "acc", 1.0, 1, 1),
        ({"filtered_resps": [" Rome", [-2.0, False], [-1.0, True]], "target": "Paris"}, "acc", 0.0, 1, None),
        ({"filtered_resps": [" Rome", [-2.0, False], [-1.0, True]], "target": "Paris"}, "exact_match", 0.0, "Rome", "Paris"),
        ({"filtered_resps": [" Rome, I think"], "target": "Rome"}, "exact_match", 1.0, "Rome", "Rome"),
        ({"filtered_resps": [" Rome, I think"], "target": "Rome"}, "f1", 0.5, "Rome, I think", None),
        ({"filtered_resps": [" Rome"], "target": ["Roma", "Rome"]}, "exact_match", 1.0, "Rome", None),
        ({"filtered_resps": [[-2.0, False], [-1.0, True]], "target": 1}, "acc_norm", 1.0, None, None),
        ({"filtered_resps": [[-2.0, False]], "target": " x"}, "acc", 0.0, None, None),
        ({"filtered_resps": [["nan", "False"], ["-1.0", "True"]], "target": "1"}, "acc", 1.0, None, None),
        ({}, "acc", 1.0, None, None),
    ],
)  # fmt: skip
def test_an_answer_is_what_the_score_is_of_and_a_label_is_known_only_where_it_gives_the_score(
    row: dict, metric: str, score: float, prediction: object, label: object
) -> None:
    wanted = (None if prediction is None else [prediction], None if label is None else [label])
    assert answers([row], metric, [score]) == wanted


def test_the_spread_over_seeds_is_that_of_their_means(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    dense = (generator.random(ITEMS) < 0.95).astype(int)
    write_trial(tmp_path, {TASK: dense.tolist()})
    for sparsity in ("0.5", "2:4"):
        by_seed = [(dense * (generator.random(ITEMS) < share)).tolist() for share in (0.9, 0.8, 0.7)]
        for seed, values in enumerate(by_seed):
            write_trial(tmp_path, {TASK: values}, sparsity, pruner="wanda", seed=seed)
    write_trial(tmp_path, {TASK: dense.tolist()}, "0.2")
    done = report([tmp_path], resamples=500)
    found = {row["sparsity"]: row for row in rows(done.page.parent, "seeds")}
    assert set(found) == {"0.5", "2:4"}, "a method without seeds has no spread"
    row, means = found["2:4"], np.mean(by_seed, axis=1)
    for name, values in (
        ("score", means), ("corrected", 2 * means - 1), ("retained", (means - 0.5) / (dense.mean() - 0.5)),
        ("difference", means - dense.mean()),
    ):  # fmt: skip
        assert float(row[name]) == pytest.approx(np.mean(values))
        assert float(row[f"{name}_sd"]) == pytest.approx(np.std(values, ddof=1))
        assert (float(row[f"{name}_least"]), float(row[f"{name}_greatest"])) == pytest.approx((min(values), max(values)))
        assert float(row[f"{name}_low"]) < float(row[name]) < float(row[f"{name}_high"])
    assert (row["seeds"], row["items"], row["pruner"]) == ("3", str(ITEMS), "wanda")
    assert "<caption>Over calibration seeds</caption>" in done.page.read_text(encoding="utf-8")
    table = parquet.read_table(done.page.parent / "seeds.parquet").to_pylist()
    assert [{k: "" if v is None else str(v) for k, v in one.items()} for one in table] == rows(done.page.parent, "seeds")


def test_what_the_spread_over_seeds_lacks_is_stated(tmp_path: Path) -> None:
    low = [int(i % 3 == 0) for i in range(ITEMS)]
    write_trial(tmp_path / "one", {TASK: low})
    write_trial(tmp_path / "one", {TASK: low}, "0.5", pruner="wanda", seed=0)
    done = report([tmp_path / "one"], resamples=200)
    assert any("no setting has results with two seeds" in gap for gap in done.gaps)
    write_trial(tmp_path / "one", {TASK: low[::-1]}, "0.5", pruner="wanda", seed=1)
    done = report([tmp_path / "one"], resamples=200)
    assert not any("two seeds" in gap for gap in done.gaps)
    [row] = rows(done.page.parent, "seeds")
    assert float(row["score"]) == pytest.approx(1 / 3)
    assert row["retained"] == row["difference_sd"] == "", "the dense score is below chance"
    write_trial(tmp_path / "one", {TASK: low}, "0.5", pruner="wanda", seed=2, logged=False)
    done = report([tmp_path / "one"], resamples=200)
    assert rows(done.page.parent, "seeds") == []
    assert any("no mean and spread over the seeds" in gap and "per-sample records are missing" in gap for gap in done.gaps)


def test_two_calibration_seeds_have_a_caveat_on_the_page_and_three_have_none(tmp_path: Path) -> None:
    right = [int(index % 10 > 0) for index in range(ITEMS)]
    write_trial(tmp_path, {TASK: right})
    for seed in range(3):
        write_trial(tmp_path, {TASK: [0] * seed + right[seed:]}, "0.5", pruner="wanda", seed=seed)
    assert "two calibration seeds" not in report([tmp_path], resamples=200).page.read_text(encoding="utf-8")
    write_trial(tmp_path / "less", {TASK: right})
    for seed in range(2):
        write_trial(tmp_path / "less", {TASK: [0] * seed + right[seed:]}, "0.5", pruner="wanda", seed=seed)
    less = report([tmp_path / "less"], resamples=200).page
    assert less.read_text(encoding="utf-8").count("two calibration seeds") >= 2  # with critical sparsities, and with means over seeds
    assert all("use three or more" in row["caveat"] for name in ("seeds", "critical") for row in rows(less.parent, name))
