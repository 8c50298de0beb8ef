"""The curves of a training run of the embedded models."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import lab_curves


def test_the_running_mean_is_that_of_the_last_values():
    values = np.random.RandomState(0).standard_normal(50)
    expected = [values[max(0, end - 7) : end].mean() for end in range(1, 51)]
    assert lab_curves.running_mean(values, 7) == pytest.approx(expected)
    assert lab_curves.running_mean(values, 1) == pytest.approx(values)
    assert lab_curves.running_mean(values, 99)[-1] == pytest.approx(values.mean())


def test_curves_are_drawn_from_a_log_with_gaps(tmp_path):
    # Copying is trained on at some steps only.
    records = [
        {"step": step, "tokens": 100 * step, "dimensions": 1 + step // 5, "icl_loss": 1 / step, "icl_acc": 0.5}
        | ({"copy_loss": 2.0, "copy_acc": 0.1} if step % 2 else {})
        for step in range(1, 11)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    lab_curves.draw(tmp_path / "log.jsonl", tmp_path / "a.png")
    app = typer.Typer()
    app.command()(lab_curves.main)
    done = CliRunner().invoke(app, [str(tmp_path / "log.jsonl"), str(tmp_path / "b.png"), "--window", "3"])
    assert done.exit_code == 0, done.output
    first, second = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first[1:4] == second[1:4] == b"PNG"
    assert first != second
