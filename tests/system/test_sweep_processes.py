"""``harness-ext sweep`` under a launcher: two processes prune each trial together, and one of them writes (gloo on the CPU)."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import threads_at_exit
import tiny

from harness_ext import BadOptionError
from harness_ext.sweep import load
from harness_ext.sweep.fields import sweep_from
from harness_ext.sweep.prepared import Prepared
from harness_ext.sweep.processes import join
from harness_ext.sweep.run import run

pytestmark = pytest.mark.slow

TASK = """
task: pairs
custom_dataset: !function pairs.load
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: [" a", " b"]
doc_to_target: 0
metric_list: [{metric: acc}]
metadata: {version: 1.0}
"""
FUNCTIONS = """
import datasets


def load(**_):
    return {"test": datasets.Dataset.from_list([{"q": f"{i} {i + 1}"} for i in range(7)])}
"""
SCRIPT = """
import json, os, sys
from pathlib import Path
import threads_at_exit
folder = Path(sys.argv[1])
threads_at_exit.write_at_exit(folder / f"threads-{os.environ['RANK']}.json", "gloo")
from typer.testing import CliRunner
from harness_ext.engine import ranks
from harness_ext.commands.cli import app
said = []
for out in ("out", "out", "file"):
    result = CliRunner().invoke(app, ["sweep", *json.loads(sys.argv[2]), "--out", str(folder / out)])
    said.append([result.exit_code, result.stdout, result.stderr])
(folder / f"{'first' if ranks.is_first() else 'second'}.json").write_text(json.dumps(said))
"""
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "support"), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left: a sweep, the same one again, and one into a file."""
    folder = tmp_path_factory.mktemp("processes")
    tiny.checkpoint(folder / "model")
    (folder / "pairs.yaml").write_text(TASK)
    (folder / "pairs.py").write_text(FUNCTIONS)
    (folder / "file").write_text("")
    (folder / "script.py").write_text(SCRIPT)
    words = ["--pretrained", str(folder / "model"), "--pruner", "wanda", "--pruner", "magnitude", "--sparsity", "0.5", "--tasks", "pairs"]
    words += ["--include-path", str(folder), "-o", "calibration.samples=4", "-o", "calibration.length=8"]
    command = [*LAUNCH, str(folder / "script.py"), str(folder), json.dumps(words)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_the_first_process_says_what_was_done_and_the_other_nothing(folder: Path) -> None:
    out = folder / "out"
    first = json.loads((folder / "first.json").read_text())
    assert first[0][0] == 0
    assert f"{out}: 3 trials: 3 done, 0 done before, 0 failed\n" in first[0][1]
    assert first[1][0] == 0
    assert f"{out}: 3 trials: 0 done, 3 done before, 0 failed\n" in first[1][1]
    second = json.loads((folder / "second.json").read_text())
    assert [said[:2] for said in second[:2]] == [[0, ""], [0, ""]]


def test_a_folder_that_cannot_be_written_ends_all_processes(folder: Path) -> None:
    for name in ("first", "second"):
        code, shown, error = json.loads((folder / f"{name}.json").read_text())[2]
        assert (code, shown) == (1, "")
        assert error.splitlines()[-1].startswith("BadOptionError: --out ")
        assert error.endswith("a file of that name exists: want the path of a folder\n")


@pytest.mark.skipif(not threads_at_exit.TASKS.is_dir(), reason="the system does not list threads in files")
def test_no_thread_of_the_group_outlives_it(folder: Path) -> None:
    """One that drops a tensor while Python ends aborts the process, in about one run of 50."""
    for rank in range(2):
        assert json.loads((folder / f"threads-{rank}.json").read_text()) == []


def test_every_trial_is_written_once_with_the_numbers_of_one_process(folder: Path, tmp_path: Path) -> None:
    fields = {"pretrained": [str(folder / "model")], "pruner": ["magnitude"], "sparsity": ["0.5"], "tasks": ["pairs"]}
    run(Prepared(sweep_from(fields | {"include_path": [str(folder)]})), tmp_path / "alone")
    found = {record.pruner: record for record in load(folder / "out")}
    assert found.keys() == {None, "wanda", "magnitude"}
    assert len(list((folder / "out" / "trials").iterdir())) == 3
    assert len(list(csv.DictReader((folder / "out" / "results.csv").open()))) == 3
    assert found["wanda"].achieved_sparsity == 0.5
    for alone in load(tmp_path / "alone"):
        together = found[alone.pruner]
        assert together.results["results"] == alone.results["results"]
        assert together.samples("pairs") == alone.samples("pairs")
        assert (together.fingerprint, together.items) == (alone.fingerprint, alone.items)
        assert together.settings == alone.settings | {"processes": 2}
        assert together.command.startswith("accelerate launch --num_processes 2 -m lm_eval ")
        assert not alone.command.startswith("accelerate")


def test_processes_that_cannot_be_reached_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate

    def refuse(**_: object) -> None:
        raise ValueError("environment variable MASTER_ADDR expected,\nbut not set")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(accelerate, "Accelerator", refuse)
    with pytest.raises(BadOptionError, match=r"WORLD_SIZE=2: the other processes cannot be joined: .* MASTER_ADDR expected, but") as error:
        join()
    assert "\n" not in str(error.value)
