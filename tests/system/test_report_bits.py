"""Reports of quantised models: in tables and on the axis of bits, and in no statement on sparsities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_folders import CONTEXT, RECALL, rows, sweep, with_dtype, write_trial
from test_report_axis import places

from harness_ext.report import report
from harness_ext.report.compare import compare_results

pytestmark = pytest.mark.usefixtures("quick_figures")

BITS_OF_MODEL = {2: 40_000, 4: 60_000, 8: 100_000}


def trials(out: Path, *, dtype: str = "torch.float16", **options: object) -> Path:
    """A sweep over sparsities, with a quantiser beside it: 2 bits lose as much as the sparsity 0.8, and 8 bits lose nothing."""
    sweep(out)
    for bits, like in ((2, 0.8), (4, 0.3), (8, 0.0)):
        write_quantised(out, bits, like, **options)
    with_dtype(out, dtype)
    return out


def write_quantised(out: Path, bits: int, like: float, sparsity: str = "0", **options: object) -> None:
    scores = {"lab_facts_closed": RECALL[like], "icl_linear": CONTEXT[like]}
    write_trial(out, scores, sparsity, pruner="gptq", bits=bits, bits_of_model=BITS_OF_MODEL[bits], **options)


def test_quantised_models_are_in_the_tables_and_not_taken_for_dense(tmp_path: Path) -> None:
    done = report([trials(tmp_path / "run")], resamples=200)
    scores = [row for row in rows(done.page.parent, "scores") if row["task"] == "icl_linear"]
    assert [(row["pruner"], row["bits"], row["sparsity"]) for row in scores if row["bits"]] == [
        ("gptq", "2", "0"), ("gptq", "4", "0"), ("gptq", "8", "0"),
    ]  # fmt: skip
    assert all(row["retained"] for row in scores if row["bits"])
    assert sum(row["pruner"] == "" for row in scores) == 1
    text = done.page.read_text(encoding="utf-8")
    assert "4 bits" in text
    assert "pruned or quantised" in text


def test_they_change_nothing_in_statements_on_sparsities(tmp_path: Path) -> None:
    sweep(tmp_path / "alone")
    alone, both = report([tmp_path / "alone"], resamples=200), report([trials(tmp_path / "both")], resamples=200)
    for name in ("curves", "critical", "disparity", "layers", "ladder"):
        assert rows(alone.page.parent, name) == rows(both.page.parent, name), name
    assert any("bits are not a sparsity" in gap for gap in both.gaps)
    assert not any("bits are not a sparsity" in gap for gap in alone.gaps)


def test_on_the_axis_of_bits_all_ways_of_making_a_model_smaller_have_a_place(tmp_path: Path) -> None:
    trials(tmp_path / "run")
    write_trial(
        tmp_path / "run", {"lab_facts_closed": RECALL[0.6], "icl_linear": CONTEXT[0.6]}, pretrained="tinier", dense="d1", parameters=5000
    )
    with_dtype(tmp_path / "run", "torch.float16")
    done = report([tmp_path / "run"], axis="bits", resamples=200)
    found = places(done.page, "task-icl_linear")
    # 10,000 parameters of 16 bits, 2,000 of them in the pruned layers
    by_bits = {
        160_000: found[f"gptq, icl_linear: {np.mean(CONTEXT[0.0]):.4g} nothing removed"],
        100_000: found[f"gptq, icl_linear: {np.mean(CONTEXT[0.0]):.4g} with 8 bits"],
        60_000: found[f"gptq, icl_linear: {np.mean(CONTEXT[0.3]):.4g} with 4 bits"],
        40_000: found[f"gptq, icl_linear: {np.mean(CONTEXT[0.8]):.4g} with 2 bits"],
        80_000: found[f"tinier, icl_linear: {np.mean(CONTEXT[0.6]):.4g}, nothing removed"],
        8000 * 16 + 2 * (400 * 16 + 1000): found[f"magnitude, icl_linear: {np.mean(CONTEXT[0.6]):.4g} at sparsity 0.6"],
    }  # fmt: skip
    slope, start = np.polyfit(np.log(list(by_bits)), list(by_bits.values()), 1)
    for size, place in by_bits.items():
        assert place == pytest.approx(start + slope * np.log(size), abs=0.1)
    sizes = {row["bits_of_model"] for row in rows(done.page.parent, "scores")}
    assert {"160000.0", "100000.0", "60000.0", "40000.0", "80000.0"} < sizes


def test_on_other_axes_they_have_their_own_size(tmp_path: Path) -> None:
    trials(tmp_path / "run")
    for axis in ("size", "bytes"):
        done = report([tmp_path / "run"], tmp_path / axis, axis=axis, resamples=200)
        assert any("with 2 bits" in text for text in places(done.page, "task-icl_linear"))
    done = report([tmp_path / "run"], tmp_path / "sparsity", resamples=200)
    assert not any("with 2 bits" in text for text in places(done.page, "task-icl_linear"))


def test_each_sparsity_is_a_line_of_its_own(tmp_path: Path) -> None:
    trials(tmp_path / "run")
    for bits, like in ((2, 0.8), (4, 0.6)):
        write_quantised(tmp_path / "run", bits, like, "0.5")
    done = report([tmp_path / "run"], resamples=200)
    assert [(series.label, sorted(series.points)) for series in done.analysis.quantised] == [
        ("gptq", [2.0, 4.0, 8.0]), ("gptq, sparsity 0.5", [2.0, 4.0]),
    ]  # fmt: skip
    assert len(done.analysis.series) == 1


def test_at_equal_bits_abilities_are_put_beside_those_of_dense_models(tmp_path: Path) -> None:
    trials(tmp_path / "run")
    small = {"lab_facts_closed": RECALL[0.6], "icl_linear": CONTEXT[0.6]}
    write_trial(tmp_path / "run", small, pretrained="tinier", dense="d1", parameters=5000)
    with_dtype(tmp_path / "run", "torch.float16")
    done = report([tmp_path / "run"], resamples=200)
    found = {(row["series"], row["amount"]): row for row in rows(done.page.parent, "bits") if row["ability"] == "recall"}
    assert found.keys() == {("", "0"), *(("magnitude", s) for s in ("0.3", "0.6", "0.8")), *(("gptq", f"{b} bits") for b in (2, 4, 8))}

    def corrected(scores: list[int]) -> float:
        return float((np.mean(scores) - 0.25) / 0.75)

    row = found["gptq", "8 bits"]
    assert float(row["bits_of_model"]) == BITS_OF_MODEL[8]
    assert float(row["corrected_score"]) == pytest.approx(corrected(RECALL[0.0]))
    share = np.log(100_000 / 80_000) / np.log(160_000 / 80_000)
    equal = (1 - share) * corrected(RECALL[0.6]) + share * corrected(RECALL[0.0])
    assert float(row["dense_at_equal_bits"]) == pytest.approx(equal)
    assert found["gptq", "2 bits"]["dense_at_equal_bits"] == ""
    right = float(np.mean(RECALL[0.3]))  # at 4 bits
    low, high = (float(found["gptq", "4 bits"][end]) for end in ("low", "high"))
    assert low < corrected(RECALL[0.3]) < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(right * (1 - right) / len(RECALL[0.3])) / 0.75, rel=0.2)  # a binomial's
    assert (done.page.parent / "bits.svg").is_file()
    assert "Models of the same number of bits" in done.page.read_text(encoding="utf-8")


def test_without_quantised_models_there_is_no_comparison_at_equal_bits(tmp_path: Path) -> None:
    done = report([sweep(tmp_path / "run")], resamples=200)
    assert rows(done.page.parent, "bits") == []
    assert not (done.page.parent / "bits.svg").exists()
    assert "Models of the same number of bits" not in done.page.read_text(encoding="utf-8")


def test_a_folder_of_bits_alone_has_a_report(tmp_path: Path) -> None:
    for bits, like in ((2, 0.8), (8, 0.0)):
        write_quantised(tmp_path / "run", bits, like)
    write_trial(tmp_path / "run", {"lab_facts_closed": RECALL[0.0], "icl_linear": CONTEXT[0.0]})
    for axis in ("sparsity", "size"):
        done = report([tmp_path / "run"], tmp_path / axis, axis=axis, resamples=200)
        text = done.page.read_text(encoding="utf-8")
        assert "when it is quantised" in text
        assert "2 bits" in text


def test_seeds_of_one_number_of_bits_are_taken_together(tmp_path: Path) -> None:
    for seed in (0, 1):
        for bits, like in ((2, 0.8), (8, 0.3)):
            write_quantised(tmp_path / "run", bits, like, seed=seed)
    write_trial(tmp_path / "run", {"lab_facts_closed": RECALL[0.0], "icl_linear": CONTEXT[0.0]})
    done = report([tmp_path / "run"], resamples=200)
    found = [(row["bits"], row["seeds"]) for row in rows(done.page.parent, "seeds") if row["task"] == "icl_linear"]
    assert found == [("2", "2"), ("8", "2")]
    assert len(rows(done.page.parent, "scores")) == 2 * (4 + 1)


def test_two_methods_are_compared_at_the_bits_that_are_named(tmp_path: Path) -> None:
    trials(tmp_path / "run")
    folder = tmp_path / "run"
    compared = compare_results(f"{folder}:pruner=gptq,bits=2", f"{folder}:pruner=gptq,bits=4", resamples=200)
    (pair,) = compared.pairs
    assert compared.names == ("2 bits", "4 bits")
    difference = next(each for each in pair.tasks if each.name == "lab_facts_closed").difference.value
    assert difference == pytest.approx(np.mean(RECALL[0.3]) - np.mean(RECALL[0.8]))


def test_answers_that_flipped_are_drawn_for_quantised_models_alone(tmp_path: Path) -> None:
    scores = {"lab_facts_closed": RECALL[0.0], "icl_linear": CONTEXT[0.0]}
    write_trial(tmp_path / "run", scores)
    for bits, like in ((2, 0.8), (8, 0.3)):
        write_quantised(tmp_path / "run", bits, like)
    done = report([tmp_path / "run"], resamples=100)
    assert not any("flips" in gap for gap in done.gaps)
    lost = np.mean([right and not now for right, now in zip(RECALL[0.0], RECALL[0.8], strict=True)])
    assert any(f"recall at 2 bits: {lost:.1%} lost" in text for text in places(done.page, "flips"))


def test_layers_of_models_that_are_quantised_and_pruned_are_in_the_table(tmp_path: Path) -> None:
    write_quantised(tmp_path / "run", 4, 0.6, "0.6")
    write_quantised(tmp_path / "run", 8, 0.0)
    sweep(tmp_path / "run")
    table = rows(report([tmp_path / "run"], resamples=100).page.parent, "layers")
    both = [row for row in table if row["bits"]]
    assert {(row["bits"], row["layer_sparsity"], row["sparsity"]) for row in both} == {("4", "0.6", "0.6")}
    assert len(both) == len([row for row in table if row["sparsity"] == "0.6"]) - len(both)


def test_the_axis_that_was_asked_for_is_not_advised(tmp_path: Path) -> None:
    trials(tmp_path / "run")
    for axis, advised in (("sparsity", True), ("bits", False)):
        (gap,) = [gap for gap in report([tmp_path / "run"], axis=axis, resamples=100).gaps if "bits are not a sparsity" in gap]
        assert ("--axis bits" in gap) is advised
