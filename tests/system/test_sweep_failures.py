"""A sweep in which something goes wrong: trials that fail, a disk that is full, a folder in use, and kills."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import filelock
import pytest
import torch
from sweeps import FIELDS, TASK, TASK_FUNCTIONS, files, prepare, sweep

from harness_ext import BadOptionError, Pruner
from harness_ext.atomic import WriteError
from harness_ext.sweep import load, processes
from harness_ext.sweep.dense import DenseModel


class TestFailures:
    def test_a_task_that_raises_fails_its_trials_and_is_tried_again(self, tmp_path):
        (tmp_path / "raising.yaml").write_text(TASK)
        (tmp_path / "raising.py").write_text(TASK_FUNCTIONS.replace("WHEN", "True"))
        fields = {"tasks": ["raising"], "include_path": [str(tmp_path)], "metadata": {}}
        summary = sweep(tmp_path / "out", **fields)
        assert summary.done == 0
        assert [trial for trial, _ in summary.failed] == ["lab-xs dense", "lab-xs magnitude 0.5"]
        assert {reason for _, reason in summary.failed} == {"RuntimeError: this task raises"}
        assert str(summary).splitlines()[1:] == ["failed: lab-xs dense and 1 more: RuntimeError: this task raises"]
        failures = [json.loads(path.read_text()) for path in (tmp_path / "out" / "failed").iterdir()]
        assert {failure["error"] for failure in failures} == {"RuntimeError: this task raises"}
        assert all("process_results" in failure["traceback"] for failure in failures)
        assert load(tmp_path / "out") == []
        assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 1
        assert len(sweep(tmp_path / "out", **fields).failed) == 2

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("no memory")])
    def test_a_trial_that_runs_out_of_memory_fails_alone(self, tmp_path, monkeypatch, error):
        original = DenseModel.prune

        def prune(self, plan):
            if plan.pruner.name == "random" and plan.sparsity.ratio:
                original(self, plan)
                raise error
            return original(self, plan)

        monkeypatch.setattr(DenseModel, "prune", prune)
        summary = sweep(tmp_path, pruner=["random", "magnitude"])
        assert (summary.done, len(summary.failed)) == (2, 1)
        assert type(error).__name__ in summary.failed[0].reason
        monkeypatch.undo()
        summary = sweep(tmp_path, pruner=["random", "magnitude"])
        assert (summary.before, summary.done, summary.failed) == (2, 1, [])
        assert list((tmp_path / "failed").iterdir()) == []
        assert load(tmp_path)[1].pruner == "magnitude"

    def test_a_pruner_whose_numbers_are_not_finite_fails_alone(self, tmp_path, monkeypatch):
        from harness_ext_pruners.magnitude import Magnitude

        monkeypatch.setattr(Magnitude, "score", lambda self, weight, statistic: weight * float("nan"))
        summary = sweep(tmp_path, pruner=["magnitude", "random"])
        assert (summary.done, len(summary.failed)) == (2, 1)
        assert "NumericalError" in summary.failed[0].reason

    def test_a_model_that_cannot_be_loaded_fails_alone(self, tmp_path, monkeypatch):
        original = DenseModel._load

        def load_model(self):
            if self._pretrained == "lab-xs":
                raise MemoryError("no memory")
            original(self)

        monkeypatch.setattr(DenseModel, "_load", load_model)
        summary = sweep(tmp_path, pretrained=["lab-xs", "lab-s"])
        assert (summary.done, len(summary.failed)) == (2, 2)

    def test_a_model_that_cannot_be_loaded_is_tried_once(self, tmp_path, monkeypatch):
        tried, original = [], DenseModel._load

        def load_model(self):
            tried.append(self._pretrained)
            original(self)

        monkeypatch.setattr(DenseModel, "_load", load_model)
        summary = sweep(tmp_path, pretrained=["lab-xs", "lab-s"], model_args={"subfolder": "nowhere"})
        assert tried == ["lab-xs", "lab-s"]
        assert (summary.done, len(summary.failed)) == (0, 4)
        lines = str(summary).splitlines()[1:]
        assert [line.partition(": BadOptionError")[0] for line in lines] == [
            "failed: lab-xs dense and 1 more",
            "failed: lab-s dense and 1 more",
        ]

    def test_a_full_disk_is_one_line_and_what_was_done_stays(self, tmp_path, monkeypatch):
        from harness_ext.sweep import folder

        original, calls = folder.write, []

        def write(*given):
            calls.append(given)
            if len(calls) == 2:
                raise WriteError("out: cannot be written: No space left on device")
            return original(*given)

        monkeypatch.setattr(folder, "write", write)
        with pytest.raises(WriteError, match="No space left on device"):
            sweep(tmp_path)
        monkeypatch.undo()
        assert len(load(tmp_path)) == 1
        assert sweep(tmp_path).before == 1

    def test_a_disk_that_fills_while_a_record_is_written_leaves_no_half_of_it(self, tmp_path, monkeypatch):
        original = os.fsync

        def fsync(handle):
            if "trials" in os.readlink(f"/proc/self/fd/{handle}"):
                raise OSError(28, "No space left on device")
            original(handle)

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(WriteError, match="No space left on device"):
            sweep(tmp_path)
        assert list((tmp_path / "trials").iterdir()) == []

    def test_a_second_sweep_in_the_folder_is_refused(self, copy):
        code = "import filelock, sys, time; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); time.sleep(60)"
        with subprocess.Popen([sys.executable, "-c", code, str(copy / "lock")], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            try:
                with pytest.raises(BadOptionError, match="another sweep is at work in this folder"):
                    sweep(copy)
            finally:
                other.kill()
        assert sweep(copy).before == 2

    def test_the_lock_is_released_after_an_error(self, copy, monkeypatch):
        monkeypatch.setattr(processes.Folder, "write_tables", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sweep(copy)
        with filelock.FileLock(copy / "lock", timeout=0):
            pass

    @pytest.mark.parametrize(("path", "says"), [("file", "a file of that name exists"), ("file/below", "cannot be written")])
    def test_a_folder_that_cannot_be_is_one_line(self, tmp_path, path, says):
        (tmp_path / "file").write_text("")
        with pytest.raises((BadOptionError, WriteError), match=says):
            sweep(tmp_path / path)

    def test_a_pruner_that_changes_what_it_should_not_is_found_before_the_next_trial(self, tmp_path, monkeypatch):
        """The dense weights are put back whole: also what no pruner should touch."""
        from harness_ext_pruners.random import Random

        original = Random.score
        prepared = prepare(pruner=["random"])
        model = DenseModel(prepared.sweep, "lab-xs")

        def score(self, weight, statistic):
            with torch.no_grad():
                model.lm.model.get_input_embeddings().weight.zero_()
            return original(self, weight, statistic)

        monkeypatch.setattr(Random, "score", score)
        digests = [model.prune(job.trial.plan)["dense_digest"] for job in [*prepared.jobs[::-1], *prepared.jobs]]
        assert len(set(digests)) == 1
        assert issubclass(Random, Pruner)


KILLS = """
import json, os, signal, sys
from pathlib import Path
from harness_ext.sweep import folder, prepared, run as running
from harness_ext.sweep.fields import sweep_from

def killing(original, count):
    calls = []
    def call(*given, **named):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*given, **named)
    return call

for where, name, count in ((Path, "write_bytes", 5), (folder.Folder, "write_tables", 2), (running, "DenseModel", 1)):
    child = os.fork()  # a copy of this process, in which nothing was computed yet: what is imported need not be imported again
    if not child:
        setattr(where, name, killing(getattr(where, name), count))
        running.run(prepared.Prepared(sweep_from(json.loads(sys.argv[2]))), Path(sys.argv[1]))
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, (where, name)
"""


@pytest.mark.slow
def test_kills_leave_the_tables_of_a_run_that_was_left_alone(tmp_path):
    """Three: in the middle of a record, before the table is written, and before a model is; see scripts/kill_sweep.py."""
    fields = {"pruner": ["magnitude", "random"], "sparsity": ["0.3,0.6"]}
    sweep(tmp_path / "whole", **fields)
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLS, str(out), json.dumps(FIELDS | fields)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert 1 <= len(load(out)) < 5
    sweep(out, **fields)
    assert files(out) == files(tmp_path / "whole")
    assert sorted(path.name for path in out.rglob(".*")) == []
