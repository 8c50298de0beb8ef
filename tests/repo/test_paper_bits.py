"""What the page of results says of models at equal bits, on scores of known truth."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import paper_bits
import paper_claims
import paper_figures
from paper_bits import LARGEST, Way
from paper_scores import ABILITIES, TASKS, chance

from harness_ext.report.trials import LoadedTrial, TaskScore

PARAMETERS = {"lab-m": 1000, "lab-xs": 300}


def scores(recall: float, context: float = 0.9) -> dict[str, float]:
    return {ability: recall if ability == "recall" else context for ability in ABILITIES}


@pytest.fixture
def found():
    """Quantised to 8 and 4 bits, recall is kept, and to 2 bits it is lost; pruned, it is lost first and then comes back."""
    ways = {
        Way(LARGEST): (16e6, scores(1.0)), Way("lab-xs"): (5e6, scores(0.2)),
        Way(LARGEST, "gptq", 8): (9e6, scores(1.0)), Way(LARGEST, "gptq", 4): (6e6, scores(0.97)),
        Way(LARGEST, "gptq", 2): (4e6, scores(0.1)),
        Way(LARGEST, "sparsegpt", None, 0.3): (14e6, scores(0.5)), Way(LARGEST, "sparsegpt", None, 0.6): (10e6, scores(0.96)),
        Way(LARGEST, "gptq", 4, 0.3): (5e6, scores(0.9, 0.45)), Way("lab-xs", "gptq", 4): (2e6, scores(0.1)),
    }  # fmt: skip
    return {way: {seed: (bits, dict(by_ability)) for seed in range(3)} for way, (bits, by_ability) in ways.items()}


def test_the_fewest_bits_are_those_down_to_which_everything_is_kept(found):
    by_line = {row["line"]: row for row in paper_bits.fewest(paper_bits.rows_of(found))}
    assert by_line["lab-m quantised, gptq"]["recall"]["amount"] == "4 bits"
    assert by_line["lab-m quantised, gptq"]["in-context"]["amount"] == "2 bits"
    assert by_line["lab-m pruned, sparsegpt"]["recall"] is None
    assert by_line["lab-m pruned, sparsegpt"]["in-context"]["amount"] == "sparsity 0.6"
    assert by_line["dense, 16 bits"]["recall"]["size"] == "lab-m"
    assert by_line["dense, 16 bits"]["in-context"]["size"] == "lab-xs"


def test_what_is_kept_is_compared_with_the_same_training_seed(found):
    for seed, factor in enumerate((1.0, 0.8, 0.5)):
        for way in (Way(LARGEST), Way(LARGEST, "gptq", 4, 0.3)):
            bits, by_ability = found[way][seed]
            found[way][seed] = bits, {ability: factor * score for ability, score in by_ability.items()}
    (row,) = [row for row in paper_bits.rows_of(found) if row["amount"] == "4 bits, sparsity 0.3"]
    assert row["kept"]["recall"].values == pytest.approx((0.9, 0.9, 0.9))
    assert row["difference"].mean == pytest.approx(0.5 - 0.9)
    assert row["difference"].half_width == pytest.approx(0, abs=1e-9)
    assert row["scores"]["recall"].half_width > 0.1


def test_quantising_keeps_both_with_fewer_bits_or_it_is_not_said(found):
    assert not paper_bits.keeps_with_fewer(paper_bits.fewest(paper_bits.rows_of(found)))  # nothing that was pruned kept recall
    for seed in range(3):
        found[Way(LARGEST, "sparsegpt", None, 0.3)][seed] = 14e6, scores(0.98)
    assert paper_bits.keeps_with_fewer(paper_bits.fewest(paper_bits.rows_of(found)))


def test_recall_is_lost_first_where_the_interval_says_so(found):
    lost = [row["amount"] for row in paper_bits.recall_first(paper_bits.rows_of(found))]
    assert lost == ["4 bits", "2 bits"]  # no spread over seeds, so any difference is shown
    for seed, recall in enumerate((0.1, 0.9, 1.1)):
        found[Way(LARGEST, "gptq", 2)][seed] = 4e6, scores(recall)
    assert [row["amount"] for row in paper_bits.recall_first(paper_bits.rows_of(found))] == ["4 bits"]


def test_a_training_seed_that_is_missing_is_an_error(found):
    del found[Way(LARGEST, "gptq", 4)][1]
    with pytest.raises(ValueError, match="lab-m quantised, gptq, 4 bits: training seed 1 is missing"):
        paper_bits.rows_of(found)


def trial(size: str, pruner: str = "", ratio: float = 0.0, bits: int | None = None) -> LoadedTrial:
    """A trial of seed 0 that scores half of what can be scored above chance."""
    parameters = PARAMETERS[size]
    pruning: dict[str, Any] = {"plan": {"sparsity": f"{ratio:g}", "pruner": pruner} | ({"bits": bits} if bits else {}), "layers": {}}
    if bits:
        pruning["quantisation"] = {"bits_of_model": parameters * bits}
    made = LoadedTrial(
        source="", pretrained=f"build/{size}-0/model", pruning=pruning, calibration=None, ratio=ratio, parameters=parameters, command="",
        versions={}, bits=16.0,
    )  # fmt: skip
    for task in TASKS:
        metric = "exact_match" if task.startswith("lab_") else "acc"
        made.tasks[task] = TaskScore(
            task=task, version="1", metric=metric, filter="none", value=(1 + chance(task, metric)) / 2, stderr=None, count=None, chance=0.0,
            chance_declared=True, digests={}, scores=None,
        )  # fmt: skip
    return made


def test_trials_are_told_apart_by_size_method_bits_and_sparsity_and_corrected_for_chance():
    trials = [
        trial("lab-m"), trial("lab-m", "sparsegpt", 0.3), trial("lab-xs"), trial("lab-m", "gptq", bits=4), trial("lab-m", "gptq", 0.3, 4),
        trial("lab-xs", "sparsegpt", 0.3),  # of other tables
    ]  # fmt: skip
    found = paper_bits.collected(trials)
    assert list(found) == [
        Way("lab-m"),
        Way("lab-m", "sparsegpt", None, 0.3),
        Way("lab-xs"),
        Way("lab-m", "gptq", 4),
        Way("lab-m", "gptq", 4, 0.3),
    ]
    assert found[Way("lab-m")][0][0] == 16_000
    assert found[Way("lab-m", "gptq", 4)][0][0] == 4000
    assert found[Way("lab-m")][0][1] == pytest.approx(dict.fromkeys(ABILITIES, 0.5))
    other = trial("lab-m")
    other.tasks["icl_nn"] = replace(other.tasks["icl_nn"], value=0.9)
    trials[-1] = other
    with pytest.raises(ValueError, match="two results differ"):
        paper_bits.collected(trials)


def test_the_page_and_the_figure_have_every_way(found, tmp_path):
    rows = paper_bits.rows_of(found)
    measured = {
        "rows": rows, "fewest": paper_bits.fewest(rows), "first": paper_bits.recall_first(rows), "fewer": True,
        "dense": rows[0], "shown": paper_bits.SHOWN, "kept": paper_bits.KEPT,
    }  # fmt: skip
    assert (rows[0]["size"], rows[0]["amount"]) == (LARGEST, "dense")
    text = paper_claims.render(
        claims=[], summary=[], critical=[], drops=[], rows=[], tasks=[], equal=[], figures=[], counts={}, seeds=1,
        facts={"trials": "0", "minutes": "0"}, bits=measured,
    )  # fmt: skip
    section = text.partition("## Equal bits")[2].partition("\n## ")[0]
    assert section.count("\n| lab-m with 4 bits and pruned |") == 2
    assert "95 % of in-context ability are those of lab-xs, 4 bits (2.0 million)" in section
    assert "over 3 training seeds" in section
    figure = paper_figures.bits(measured)
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {row["line"] for row in rows if row["line"] in paper_bits.DRAWN}
