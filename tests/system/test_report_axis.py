"""``harness-ext report --axis size``: curves against the size of the model, with models that pruned-hf did not load as points."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from report_folders import CONTEXT, RECALL, rows, sweep, write_plain
from typer.testing import CliRunner

from harness_ext.commands.cli import app
from harness_ext.report import ReportError, report

pytestmark = pytest.mark.usefixtures("quick_figures")

SMALL = {"lab_facts_closed": RECALL[0.6], "icl_linear": CONTEXT[0.6]}


def other_model(folder: Path, parameters: int | None, dtype: str = "torch.float16", **arguments: object) -> Path:
    """Results of ``lm_eval --model hf``, which have no pruning record."""
    file = write_plain(folder, SMALL, "0", stamp="2026-01-09T00-00-00", parameters=parameters)
    results = json.loads(file.read_text(encoding="utf-8"))
    del results["config"]["pruning"]
    results["config"] |= {"model": "hf", "model_args": {"pretrained": "org/small", **arguments}, "model_dtype": dtype}
    if parameters is None:
        del results["config"]["model_num_parameters"]
    file.write_text(json.dumps(results), encoding="utf-8")
    return folder


def places(page: Path, name: str) -> dict[str, float]:
    """The horizontal place of each point of a figure, by its text."""
    text = page.read_text(encoding="utf-8")
    drawing = text[text.index(f'aria-labelledby="{name}-alt"') :]
    drawing = drawing[: drawing.index("</svg>")]
    return {html.unescape(said): float(x) for x, said in re.findall(r'<use [^>]*x="([-\d.]+)"[^>]*><title>([^<]*)</title>', drawing)}


def test_models_that_were_not_pruned_are_points_at_their_size(tmp_path: Path) -> None:
    sweep(tmp_path / "run")
    done = report([tmp_path / "run", other_model(tmp_path / "hf", 5000)], axis="size", resamples=200)
    ladder = {(row["model"], row["series"], row["sparsity"]): row for row in rows(done.page.parent, "ladder") if row["ability"] == "recall"}
    score = (np.mean(RECALL[0.6]) - 0.25) / 0.75
    assert float(ladder["org/small (hf)", "", "0.0"]["corrected_score"]) == pytest.approx(score)
    found = places(done.page, "task-icl_linear")
    by_size = {
        10000: found[f"magnitude, icl_linear: {np.mean(CONTEXT[0.0]):.4g} at sparsity 0"],
        8800: found[f"magnitude, icl_linear: {np.mean(CONTEXT[0.6]):.4g} at sparsity 0.6"],
        8400: found[f"magnitude, icl_linear: {np.mean(CONTEXT[0.8]):.4g} at sparsity 0.8"],
        5000: found[f"org/small (hf), icl_linear: {np.mean(CONTEXT[0.6]):.4g}, nothing removed"],
    }
    slope, start = np.polyfit(np.log(list(by_size)), list(by_size.values()), 1)
    for size, place in by_size.items():
        assert place == pytest.approx(start + slope * np.log(size), abs=0.1), "the axis is logarithmic in parameters that are not zero"
    assert slope > 0
    assert any(text.startswith("org/small (hf), nothing removed, recall:") for text in places(done.page, "abilities"))


def test_bytes_follow_the_bits_of_a_parameter(tmp_path: Path) -> None:
    sweep(tmp_path / "run", parameters=10000)
    for trial in (tmp_path / "run").rglob("results.json"):
        assert "model_dtype" not in json.loads(trial.read_text(encoding="utf-8"))["config"]
    with pytest.raises(ReportError, match="--axis bytes: the results do not say how many bits a parameter has in tiny"):
        report([tmp_path / "run"], axis="bytes", resamples=200)
    half, quarter = other_model(tmp_path / "half", 1000), other_model(tmp_path / "quarter", 4000, load_in_4bit=True)
    done = report([half, quarter], tmp_path / "out", axis="bytes", resamples=200)
    found = places(done.page, "task-icl_linear")
    equal = [place for text, place in found.items() if "icl_linear" in text]
    assert len(equal) == 2, "1,000 parameters of 16 bits, and 4,000 of 4 bits"
    assert equal[0] == pytest.approx(equal[1])


def test_results_that_do_not_say_their_size_are_refused_with_the_reason(tmp_path: Path) -> None:
    sweep(tmp_path / "run")
    with pytest.raises(ReportError, match="does not say how many parameters the model has"):
        report([tmp_path / "run", other_model(tmp_path / "hf", None)], resamples=200)


def test_an_unknown_axis_is_one_line_with_the_nearest_name(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["report", str(sweep(tmp_path / "run")), "--axis", "sise"])
    assert ran.exit_code == 1
    assert "--axis 'sise'" in ran.stderr
    assert "Did you mean 'size'?" in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "report").exists()


def test_against_sparsity_models_of_other_sizes_are_in_the_comparison_alone(tmp_path: Path) -> None:
    sweep(tmp_path / "run")
    done = report([tmp_path / "run", other_model(tmp_path / "hf", 5000)], resamples=200)
    assert not any("nothing removed" in text for text in places(done.page, "abilities"))
    assert 'id="ladder-alt"' in done.page.read_text(encoding="utf-8")
