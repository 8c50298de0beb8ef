"""Reports of many methods, and of a deep model: the page stays small and is made fast, and the strips of layers show every layer."""

from __future__ import annotations

import base64
import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
import report_folders
from matplotlib import colormaps
from matplotlib.image import imread
from report_folders import falling, ranked, rows, write_trial

from harness_ext.report import report

LAYERS = [f"model.layers.{block}.{name}" for block in range(32) for name in ("q", "k", "v", "o", "gate", "up", "down")]
METHODS, SPARSITIES = 12, ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9")


@pytest.mark.usefixtures("quick_figures")
def test_twelve_series_of_224_layers_are_a_page_below_three_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = report_folders.pruning

    def uneven(*given: object, **named: object) -> dict:
        record = made(*given, **named)
        for place, entry in enumerate(record["layers"].values()):
            entry["zeros"] = min(1000, entry["zeros"] + place % 90)
        return record

    monkeypatch.setattr(report_folders, "LAYERS", LAYERS)
    monkeypatch.setattr(report_folders, "pruning", uneven)
    for method in range(METHODS):
        for sparsity in SPARSITIES:
            write_trial(tmp_path, {"kv": [1, 0]}, sparsity, pruner=f"method{method}", parameters=10**6, logged=False)
    folder = report([tmp_path], resamples=200).page.parent
    assert (folder / "index.html").stat().st_size < 3e6
    text = (folder / "layers.svg").read_text(encoding="utf-8")
    pictures = [imread(io.BytesIO(base64.b64decode(one))) for one in re.findall(r'"data:image/png;base64,([^"]*)"', text)]
    strips = [one for one in pictures if one.shape[:2] == (len(SPARSITIES), len(LAYERS))]
    assert len(strips) == METHODS
    table = [row for row in rows(folder, "layers") if row["series"] == "method0"]
    shares = {(float(row["sparsity"]), row["layer"]): float(row["layer_sparsity"]) for row in table}
    wanted = colormaps["Greys"](np.array([[shares[float(sparsity), layer] for layer in LAYERS] for sparsity in SPARSITIES]))
    assert min(np.abs(one[..., :3] - wanted[..., :3]).max() for one in strips) < 0.01
    assert min(np.abs(one[::-1, :, :3] - wanted[..., :3]).max() for one in strips) > 0.1, "a strip that is upside down would not be found"


@pytest.mark.slow
def test_273_trials_of_six_tasks_are_a_page_below_three_megabytes_in_half_a_minute(tmp_path: Path) -> None:
    chances = {"lab_facts_closed": 1 / 16, "lab_facts_open": 1 / 16, "kv_4": 0.25, "icl_linear": 0.5, "icl_nn": 0.5, "icl_tree": 0.5}
    grid = [round(0.04 * step, 2) for step in range(1, 22)]
    trials = 0
    for method in range(13):
        scores = {
            task: falling(
                128, 0.95, {s: float(1 / (1 + np.exp((s - 0.3 - 0.02 * method - 0.2 * (place > 0)) / 0.05))) for s in grid}, place
            )
            for place, task in enumerate(chances)
        }
        for sparsity in [0.0, *grid] if method == 0 else grid[: 21 if method < 12 else 20]:
            given = {task: by_sparsity[sparsity] for task, by_sparsity in scores.items()}
            answers = None if sparsity else {task: ranked(values, round(1 / chances[task])) for task, values in given.items()}
            write_trial(tmp_path, given, f"{sparsity:g}", pruner=f"method{method}", chance=chances, answers=answers)
            trials += 1
    assert trials == 273
    before = time.process_time()
    done = report([tmp_path])
    assert time.process_time() - before < 30
    assert done.page.stat().st_size < 3e6
    assert done.page.read_text(encoding="utf-8").count("<tr") > 273 * 6
    assert len({label for label, _ in done.analysis.difficulty.matched}) == 13
