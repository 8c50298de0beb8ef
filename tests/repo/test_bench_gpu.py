"""The benchmark for one GPU, at its toy size on the CPU and with stand-ins for the code of others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import bench_gpu

SCRIPTS = Path(bench_gpu.__file__).parent
SPARSEGPT = """
class SparseGPT:
    def __init__(self, layer):
        self.layer = layer
    def add_batch(self, inputs, output):
        pass
    def fasterprune(self, sparsity, prunen, prunem, blocksize, percdamp):
        weight = self.layer.weight.data
        weight[weight.abs() <= weight.abs().median()] = 0
    def free(self):
        pass
"""
WANDA = """
import torch
class WrappedGPT:
    def __init__(self, layer):
        self.scaler_row = torch.zeros(layer.weight.shape[1])
    def add_batch(self, inputs, output):
        self.scaler_row += inputs.flatten(0, -2).square().sum(0)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What all parts write."""
    folder = tmp_path_factory.mktemp("gpu")
    for path, text in {"sparsegpt/sparsegpt.py": SPARSEGPT, "wanda/lib/layerwrapper.py": WANDA}.items():
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(text)
    out = folder / "out"
    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "synchronize", torch.cuda.synchronize)  # what loading the authors' code replaces is put back
        patch.setattr(sys, "path", list(sys.path))
        patch.delitem(sys.modules, "sparsegpt", raising=False)
        for method in ("sparsegpt", "wanda"):
            bench_gpu.prune(out / f"{method}-ours.json", method, toy=True)
            bench_gpu.prune(out / f"{method}-authors.json", method, folder / method, toy=True)
        sys.modules.pop("sparsegpt", None)
    bench_gpu.experts(out / "experts-wanda.json", "wanda", toy=True)
    bench_gpu.evaluate(out / "evaluate.json", toy=True)
    bench_gpu.table(out)
    return out


def part(results: Path, name: str) -> Any:
    return json.loads((results / f"{name}.json").read_text())


def test_both_prune_the_same_model_and_the_error_tells_them_apart(results: Path) -> None:
    found = {name: part(results, name)["error"] for name in ("sparsegpt-ours", "sparsegpt-authors", "wanda-ours", "wanda-authors")}
    assert found["wanda-ours"] == pytest.approx(found["wanda-authors"], rel=1e-3)  # the stand-in is Wanda; that of SparseGPT is not
    assert 0 < found["sparsegpt-ours"] < 0.9 * found["sparsegpt-authors"]
    assert all(part(results, f"wanda-{who}")["seconds"]["total"] > 0 for who in ("ours", "authors"))


def test_the_table_has_each_part_and_a_verdict_for_each_bar(results: Path) -> None:
    text = (results / "results.md").read_text()
    for name in ("sparsegpt-ours", "sparsegpt-authors", "wanda-ours", "wanda-authors", "experts-wanda"):
        assert f"| {name} |" in text
    verdicts = [line for line in text.splitlines() if re.search(r"at (least|most) [\d.]+: (yes|NO)", line)]
    assert [line.split(":")[0] for line in verdicts] == 3 * ["- sparsegpt"] + 3 * ["- wanda"]
    assert "mmlu" in text


def test_a_ratio_is_judged_by_its_bar_and_what_is_missing_is_named() -> None:
    def result(seconds: float, peak: int, error: float) -> dict[str, Any]:
        return {"seconds": {"total": seconds}, "peak": peak, "error": error}

    found = {"wanda-ours": result(10, 100, 0.2), "wanda-authors": result(14, 400, 0.2)}
    said = bench_gpu.verdicts("wanda", found)
    assert [line.endswith("yes)") for line in said] == [False, True, True]
    assert "sparsegpt-ours" in bench_gpu.verdicts("sparsegpt", found)[0]


def script(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the script with a stand-in for Python that notes how it is called, and fails where it is to prune with Wanda."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nshift\necho "$@" >> {folder}/calls\ncase "$*" in *"prune --method wanda"*) exit 1;; esac\n')
    python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "OUT"} | {"PYTHON": str(python)} | variables
    return subprocess.run(["bash", str(SCRIPTS / "bench_gpu.sh"), *words], env=environment, capture_output=True, text=True, check=False)


def test_a_part_that_fails_does_not_lose_the_others(tmp_path: Path) -> None:
    done = script(tmp_path, "--toy", "--sparsegpt", "A", "--wanda", "B", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    parts = [*2 * ["prune --method sparsegpt"], *2 * ["prune --method wanda"], "experts --method wanda", "experts --method sparsegpt"]
    assert [" ".join(call.split(" ")[:3]) for call in calls[:-1]] == [*parts, "evaluate --toy --out", "evaluate --blocks 32"]
    assert all("--toy" in call for call in calls[:-1])
    assert "--reference A" in calls[1]
    assert "--reference B" in calls[3]
    assert calls[-1] == f"table {tmp_path / 'out'}"
    assert "wanda-ours: failed" in done.stdout
    assert "experts-wanda: done" in done.stdout


def test_results_go_to_out_and_what_needs_a_clone_is_left_out_without_one(tmp_path: Path) -> None:
    done = script(tmp_path, OUT=str(tmp_path / "results"))
    assert done.returncode == 0
    calls = (tmp_path / "calls").read_text()
    assert "--reference" not in calls
    assert "--toy" not in calls
    assert calls.count(f"--out {tmp_path / 'results'}/") == 6


@pytest.mark.parametrize(("words", "said"), [([], "OUT"), (["--tiny"], "--tiny"), (["--wanda"], "--wanda")])
def test_wrong_words_are_refused(tmp_path: Path, words: list[str], said: str) -> None:
    done = script(tmp_path, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "calls").exists()


def test_all_parts_together_end_within_9_minutes() -> None:
    text = (SCRIPTS / "bench_gpu.sh").read_text()
    limits = [int(limit) for limit in re.findall(r"^(?:.*&& )?part [\w-]+ (\d+) ", text, re.MULTILINE)]
    assert len(limits) == 8
    assert sum(limits) + 8 * 2 + 30 <= 9 * 60
