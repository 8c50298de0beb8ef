"""``harness-ext sweep`` on the smallest embedded model: its numbers, its records, and what it does when something goes wrong."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest
import torch
from typer.testing import CliRunner

from harness_ext import BadOptionError, Pruner
from harness_ext.atomic import WriteError
from harness_ext.cli import app
from harness_ext.sweep import load
from harness_ext.sweep import run as running
from harness_ext.sweep.dense import DenseModel
from harness_ext.sweep.evaluation import run_trial
from harness_ext.sweep.fields import sweep_from
from harness_ext.sweep.records import scan
from harness_ext.sweep.run import Prepared, run

COUNTS = {"icl_items": 24, "facts_items": 24, "lookup_items": 24}
FIELDS = {
    "pretrained": ["lab-xs"],
    "pruner": ["magnitude"],
    "sparsity": ["0.5"],
    "tasks": ["icl_linear"],
    "metadata": {"icl_items": 8},
    "device": "cpu",
}
RAISING = """
task: raising
custom_dataset: !function raising.load
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["a", "b"]
doc_to_target: 0
process_results: !function raising.process_results
metric_list:
  - metric: acc
metadata:
  version: 1.0
"""
RAISING_FUNCTIONS = """
import datasets

def load(**_):
    return {"test": datasets.Dataset.from_dict({"question": ["one", "two"]})}

def process_results(doc, results):
    if WHEN:
        raise RuntimeError("this task raises")
    return {"acc": 1.0}
"""


def prepare(**fields):
    return Prepared(sweep_from(FIELDS | fields))


def sweep(out, **fields):
    return run(prepare(**fields), out)


def files(out):
    """All that is below a folder, without what says when or how long."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.suffix == ".gz" or path.name == "results.csv":
            found[path.relative_to(out)] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A sweep of two trials; not to be changed."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    assert sweep(out).done == 2
    return out


@pytest.fixture
def copy(done, tmp_path):
    import shutil

    return Path(shutil.copytree(done, tmp_path / "out"))


def stock(tmp_path, arguments, tasks, **options):
    """The results and the samples of an ``lm_eval`` process."""
    command = [sys.executable, "-m", "lm_eval", "--model", "pruned-hf", "--model_args", arguments, "--tasks", tasks, "--log_samples"]
    command += ["--output_path", str(tmp_path / "stock"), "--metadata", json.dumps(COUNTS), "--device", "cpu"]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    results = json.loads(next((tmp_path / "stock").rglob("results_*.json")).read_text())
    samples = {
        path.name.removeprefix("samples_").rpartition("_")[0]: [json.loads(line) for line in path.read_text().splitlines()]
        for path in (tmp_path / "stock").rglob("samples_*.jsonl")
    }
    return results, samples


class TestNumbers:
    def test_are_those_of_lm_eval_bit_for_bit(self, tmp_path):
        tasks, options = "lab_facts_closed,icl_linear", ["calibration.samples=8", "calibration.length=32"]
        sweep(
            tmp_path / "out", pruner=["wanda", "depth"], sparsity=["0.3:0.6:0.3"], tasks=[tasks], options=options, seeds=["1"],
            metadata=COUNTS, limit=16,
        )  # fmt: skip
        last = next(record for record in load(tmp_path / "out") if record.pruner == "wanda" and record.ratio == 0.6)
        arguments = (
            "pretrained=lab-xs,pruner=wanda,sparsity=0.6,calibration=self,calibration.samples=8,calibration.length=32,calibration.seed=1"
        )
        results, samples = stock(tmp_path, arguments, tasks, limit=16)
        assert last.results["results"] == results["results"]
        assert last.results["task_hashes"] == results["task_hashes"]
        assert last.fingerprint == results["config"]["pruning"]["fingerprint"]
        assert last.results["config"]["model_args"] == results["config"]["model_args"]
        for name in (
            "configs",
            "versions",
            "n-shot",
            "n-samples",
            "group_subtasks",
            "higher_is_better",
            "max_length",
            "tokenizer_pad_token",
        ):
            assert last.results[name] == results[name], name
        assert results.keys() <= last.results.keys()
        assert results["config"].keys() <= last.results["config"].keys()
        from lm_eval.utils import sanitize_list

        for task in ("lab_facts_closed", "icl_linear"):
            ours, theirs = last.samples(task), samples[task]
            assert len(ours) == len(theirs) == 16
            for row, expected in zip(ours, theirs, strict=True):
                for name in row.keys() - {"id", "resps", "filtered_resps", "target"}:
                    assert row[name] == expected[name], name
                assert str(row["target"]) == expected["target"]
                assert sanitize_list(row["resps"]) == expected["resps"]
                assert sanitize_list(row["filtered_resps"]) == expected["filtered_resps"]

    def test_do_not_depend_on_the_trials_before(self, tmp_path):
        """A structured trial, one that fails half-way, and others come before."""
        fields = {"options": ["calibration.samples=4", "calibration.length=16"]}
        sweep(tmp_path / "many", pruner=["depth", "sparsegpt", "magnitude", "wanda"], sparsity=["0.5"], **fields)
        sweep(tmp_path / "one", pruner=["wanda"], sparsity=["0.5"], **fields)
        many = {record.key: record for record in load(tmp_path / "many")}
        one = load(tmp_path / "one")
        assert len(one) == 2
        for record in one:
            assert many[record.key].results["results"] == record.results["results"]
            assert many[record.key].samples("icl_linear") == record.samples("icl_linear")
            assert many[record.key].fingerprint == record.fingerprint

    def test_the_calibration_text_is_made_once(self, monkeypatch):
        from harness_ext_calibrations.self_generated import SelfGenerated

        made = []
        original = SelfGenerated.input_ids
        monkeypatch.setattr(SelfGenerated, "input_ids", lambda self, *given: made.append(self.seed) or original(self, *given))
        prepared = prepare(
            pruner=["wanda", "sparsegpt"], sparsity=["0.2,0.4"], seeds=["0,1"], options=["calibration.samples=2", "calibration.length=8"]
        )
        model = DenseModel(prepared.sweep, "lab-xs")
        digests = {
            (job.trial.arguments["calibration.seed"], model.prune(job.trial.plan)["calibration"]["digest"]) for job in prepared.jobs[1:]
        }
        assert made == [0, 1]
        assert len(digests) == 2

    def test_a_task_that_draws_random_numbers_gets_those_of_a_process_of_its_own(self, tmp_path):
        """Its items are drawn from the generators after the model was pruned, by a method that draws as well."""
        (tmp_path / "drawing.yaml").write_text(RAISING.replace("raising", "drawing"))
        source = RAISING_FUNCTIONS.replace("if WHEN:", "if False:").replace(
            '["one", "two"]', "[str(random.random()), str(torch.rand(1).item())]"
        )
        (tmp_path / "drawing.py").write_text("import random\nimport torch\n" + source)
        prepared = prepare(tasks=["drawing"], include_path=[str(tmp_path)], metadata={})
        model = DenseModel(prepared.sweep, "lab-xs")
        hashes = []
        for draws in (0, 1, 0):
            original = model.prune

            def prune(plan, original=original, draws=draws):
                record = original(plan)
                torch.rand(draws)
                return record

            monkey = pytest.MonkeyPatch()
            with monkey.context() as patch:
                patch.setattr(model, "prune", prune)
                results, _, measured = run_trial(prepared.sweep, prepared.jobs[0].trial, model, prepared.items["lab-xs"])
            hashes.append((results["task_hashes"]["drawing"], measured["items"]["drawing"]))
        assert hashes[0] == hashes[2] != hashes[1]


class TestRecords:
    def test_say_what_was_done(self, done):
        dense, pruned = load(done)
        assert dense.is_dense
        assert (dense.pruner, dense.sparsity, dense.modules, dense.calibration, dense.seed) == (None, "0", None, None, None)
        assert (pruned.pruner, pruned.sparsity, pruned.ratio, pruned.achieved_sparsity) == ("magnitude", "0.5", 0.5, 0.5)
        assert (pruned.allocation, pruned.modules, pruned.calibration, pruned.seed) == ("uniform", "all", None, None)
        assert dense.nonzero == dense.parameters == pruned.parameters > pruned.nonzero
        assert dense.items == pruned.items
        assert pruned.tasks == ["icl_linear"]
        assert [row["doc_id"] for row in pruned.samples("icl_linear")] == list(range(8))
        assert pruned.command.startswith("lm_eval --model pruned-hf --model_args pretrained=lab-xs,pruner=magnitude,sparsity=0.5 --tasks")

    def test_the_table_has_every_score(self, done):
        rows = list(csv.DictReader((done / "results.csv").open()))
        for record in load(done):
            scores = record.results["results"]["icl_linear"]
            found = {row["metric"]: row for row in rows if row["key"] == record.key}
            assert {f"{metric},none": float(row["value"]) for metric, row in found.items()} == {
                name: value for name, value in scores.items() if "," in name and "_stderr" not in name
            }
            assert float(found["acc"]["stderr"]) == scores["acc_stderr,none"]

    def test_a_run_again_loads_nothing_and_changes_nothing(self, copy, monkeypatch):
        before = files(copy)
        monkeypatch.setattr(running, "DenseModel", None)
        summary = sweep(copy)
        assert (summary.before, summary.done, summary.failed) == (2, 0, [])
        assert files(copy) == before

    @pytest.mark.parametrize(
        "change",
        [
            {"metadata": {"icl_items": 9}},
            {"metadata": {"icl_items": 8, "icl_seed": 1}},
            {"limit": 4},
            {"dtype": "bfloat16"},
            {"batch_size": 3},
            {"tasks": ["icl_tree"]},
            {"tasks": ["icl_linear", "icl_tree"]},
            {"sparsity": ["0.25"]},
            {"pruner": ["random"]},
            {"modules": ["ffn"]},
            {"precision": "float64"},
            {"pretrained": ["lab-s"]},
        ],
    )
    def test_a_changed_setting_has_a_key_of_its_own(self, done, change):
        old = {job.key for job in prepare().jobs if not job.trial.is_dense}
        assert old <= {record.key for record in load(done)}
        assert not old & {job.key for job in prepare(**change).jobs}

    def test_the_content_of_a_calibration_file_is_part_of_the_key(self, tmp_path):
        text = tmp_path / "text.txt"
        keys = []
        for content in ("one text", "another text"):
            text.write_text(content)
            keys.append([job.key for job in prepare(pruner=["wanda"], calibration=[str(text)]).jobs])
        assert keys[0][0] == keys[1][0]
        assert keys[0][1] != keys[1][1]

    def test_the_place_of_a_model_is_not_part_of_the_key_and_its_content_is(self, tmp_path):
        import shutil

        from harness_ext.plugins import Plugins

        folder = Plugins().models.get("lab-xs")[0]
        shutil.copytree(folder, tmp_path / "copy")
        keys = [job.key for job in prepare().jobs]
        assert [job.key for job in prepare(pretrained=[str(tmp_path / "copy")]).jobs] == keys
        with pytest.raises(BadOptionError, match=r"two trials are the same: lab-xs dense and .*copy dense"):
            prepare(pretrained=["lab-xs", str(tmp_path / "copy")])
        config = tmp_path / "copy" / "config.json"
        config.write_text(config.read_text() + "\n")
        assert not set(keys) & {job.key for job in prepare(pretrained=[str(tmp_path / "copy")]).jobs}

    @pytest.mark.parametrize("file", ["trial.json", "results.json", "samples_icl_linear.jsonl.gz"])
    @pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
    def test_a_damaged_one_is_moved_aside_and_done_again(self, copy, file, damage, caplog):
        before = files(copy)
        record = load(copy)[1]
        path = record.folder / file
        content = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            half = len(content) // 2
            path.write_bytes(content[:half] if damage == "cut" else content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :])
        assert [found.key for found in load(copy)] == [load(copy)[0].key]
        assert "is corrupt and left out" in caplog.text
        with caplog.at_level(logging.WARNING):
            summary = sweep(copy)
        assert (summary.before, summary.done) == (1, 1)
        assert "moved to .corrupt-" in caplog.text
        assert (copy / "trials" / f".corrupt-{record.key}-1").is_dir()
        assert {name: content for name, content in files(copy).items() if ".corrupt" not in str(name)} == before

    def test_one_that_was_renamed_is_not_taken_for_another(self, copy):
        record = load(copy)[1]
        record.folder.rename(record.folder.with_name("0" * 16))
        assert list(scan(copy)[1].values()) == ["trial.json does not have its checksum"]

    def test_load_wants_a_folder_of_a_sweep(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no folder 'trials'"):
            load(tmp_path)


class TestFailures:
    def test_a_task_that_raises_fails_its_trials_and_is_tried_again(self, tmp_path):
        (tmp_path / "raising.yaml").write_text(RAISING)
        (tmp_path / "raising.py").write_text(RAISING_FUNCTIONS.replace("WHEN", "True"))
        fields = {"tasks": ["raising"], "include_path": [str(tmp_path)], "metadata": {}}
        summary = sweep(tmp_path / "out", **fields)
        assert summary.done == 0
        assert summary.failed == ["lab-xs dense: RuntimeError: this task raises", "lab-xs magnitude 0.5: RuntimeError: this task raises"]
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
        assert type(error).__name__ in summary.failed[0]
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
        assert "NumericalError" in summary.failed[0]

    def test_a_model_that_cannot_be_loaded_fails_alone(self, tmp_path, monkeypatch):
        original = DenseModel._load

        def load_model(self):
            if self._pretrained == "lab-xs":
                raise MemoryError("no memory")
            original(self)

        monkeypatch.setattr(DenseModel, "_load", load_model)
        summary = sweep(tmp_path, pretrained=["lab-xs", "lab-s"])
        assert (summary.done, len(summary.failed)) == (2, 2)

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
        monkeypatch.setattr(running.Folder, "write_tables", lambda self: 1 / 0)
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


class TestKills:
    def test_leave_the_tables_of_a_run_that_was_left_alone(self, tmp_path):
        """Three kills: in the middle of a record, before the table is written, and before a model is; see scripts/kill_sweep.py."""
        fields = {"pruner": ["magnitude", "random"], "sparsity": ["0.3,0.6"]}
        sweep(tmp_path / "whole", **fields)
        script = (
            "import os, signal, sys, json\n"
            "from pathlib import Path\n"
            "from harness_ext.sweep import folder, trial, run as running\n"
            "from harness_ext.sweep.fields import sweep_from\n"
            "where, count = sys.argv[2], int(sys.argv[3])\n"
            "def killing(original):\n"
            "    calls = []\n"
            "    def call(*given, **named):\n"
            "        calls.append(1)\n"
            "        if len(calls) == count:\n"
            "            os.kill(os.getpid(), signal.SIGKILL)\n"
            "        return original(*given, **named)\n"
            "    return call\n"
            "if where == 'record':\n"
            "    Path.write_bytes = killing(Path.write_bytes)\n"
            "elif where == 'table':\n"
            "    folder.Folder.write_tables = killing(folder.Folder.write_tables)\n"
            "else:\n"
            "    running.DenseModel = killing(running.DenseModel)\n"
            "running.run(running.Prepared(sweep_from(json.loads(sys.argv[4]))), Path(sys.argv[1]))\n"
        )
        out = tmp_path / "killed"
        for where, count in (("record", "5"), ("table", "2"), ("model", "1")):
            command = [sys.executable, "-c", script, str(out), where, count, json.dumps(FIELDS | fields)]
            assert subprocess.run(command, check=False, capture_output=True, timeout=120).returncode == -signal.SIGKILL
        assert 1 <= len(load(out)) < 5
        sweep(out, **fields)
        assert files(out) == files(tmp_path / "whole")
        assert sorted(path.name for path in out.rglob(".*")) == []


class TestCommand:
    def invoke(self, *words):
        return CliRunner().invoke(app, ["sweep", "--pretrained", "lab-xs", "--pruner", "magnitude", "--device", "cpu", *map(str, words)])

    def common(self, out):
        return ("--sparsity", "0.5", "--tasks", "icl_linear", "--metadata", json.dumps(FIELDS["metadata"]), "--out", out)

    def test_says_what_was_done(self, copy):
        result = self.invoke(*self.common(copy))
        assert (result.exit_code, result.stdout) == (0, f"{copy}: 2 trials: 0 done, 2 done before, 0 failed\n")

    def test_exits_with_1_if_a_trial_failed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(running, "attempt", lambda *given: 1 / 0)
        result = self.invoke(*self.common(tmp_path))
        assert result.exit_code == 1
        assert "2 failed\nfailed: lab-xs dense: ZeroDivisionError: division by zero\n" in result.stdout

    def test_a_dry_run_prints_the_trials_and_writes_nothing(self, done, tmp_path):
        before = files(done)
        result = self.invoke(*self.common(tmp_path / "none"), "--dry-run")
        assert result.exit_code == 0
        assert "2 trials" in result.stdout
        assert "lab-xs magnitude 0.5" in result.stdout
        assert "No trial is done" in result.stdout
        assert not (tmp_path / "none").exists()
        result = self.invoke("--sparsity", "0.7", *self.common(done)[2:], "--dry-run")
        assert "About 0:00:0" in result.stdout.replace("\n", " ")
        assert "yes" in result.stdout
        assert files(done) == before

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--sparsity", "0.5", "--tasks", "icl_liner"], "UnknownNameError: no task named 'icl_liner'. Did you mean 'icl_linear'"),
            (["--sparsity", "0.5", "--tasks", "icl_linear", "--metadata", '{"icl_item": 8}'], "icl_items"),
            (["--sparsity", "0.5", "--tasks", "icl_linear", "--pretrained", "lab-xss"], "Did you mean 'lab-xs'"),
            (["--sparsity", "0,5", "--tasks", "icl_linear"], "sparsity"),
            (["--tasks", "icl_linear"], "--sparsity: nothing given"),
            (["--sparsity", "0.5", "--tasks", "icl_linear", "--engine", "rai"], "want local or ray"),
            (["--sparsity", "0.5", "--tasks", "icl_linear", "--address", "auto"], "goes with --engine ray"),
            (["--sparsity", "0.5", "--tasks", "icl_linear", "--include-path", "/none"], "no such folder"),
        ],
    )
    def test_a_mistake_is_one_line_and_no_weight_is_loaded(self, tmp_path, monkeypatch, words, says):
        monkeypatch.setattr(running, "DenseModel", None)
        result = self.invoke(*words, "--out", tmp_path / "out")
        assert result.exit_code == 1
        assert says in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()

    def test_wants_a_folder(self):
        assert "--out: nothing given" in self.invoke("--sparsity", "0.5", "--tasks", "icl_linear").stderr

    def test_the_command_line_overrides_the_file(self, copy, tmp_path):
        config = tmp_path / "sweep.yaml"
        config.write_text(f"sparsity: [2:4]\ntasks: icl_linear\nmetadata: {{icl_items: 8}}\nout: {copy}\n")
        result = self.invoke("--config", config, "--sparsity", "0.5")
        assert "0 done, 2 done before" in result.stdout


def test_the_display_counts_down_and_holds_the_bars_of_others(monkeypatch, capsys):
    import io

    from rich.console import Console
    from rich.progress import Progress

    from harness_ext import terminal
    from harness_ext.sweep.display import Display, clock

    display = Display({"a": 1.0, "b": 3.0})
    assert clock(display.left()) == "-:--:--"
    display._began = time.monotonic() - 10
    display.end("a")
    assert 29 < (display.left() or 0) < 32
    assert clock(3723.9) == "1:02:03"
    text = io.StringIO()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(console=Console(file=text, force_terminal=True)) as bar, terminal.nested(bar):
        with terminal.progress("inner", 2) as advance:
            advance()
            assert [task.description for task in bar.tasks] == ["inner"]
        assert bar.tasks == []
    assert "inner" in text.getvalue()
    assert capsys.readouterr().err == ""


def test_nothing_is_shown_where_there_is_no_terminal(copy):
    code = "from harness_ext.cli import app; app()"
    command = [
        sys.executable,
        "-c",
        code,
        "sweep",
        "--pretrained",
        "lab-xs",
        "--pruner",
        "magnitude",
        "--device",
        "cpu",
        "--out",
        str(copy),
    ]
    command += ["--sparsity", "0.25", "--tasks", "icl_linear", "--metadata", json.dumps(FIELDS["metadata"])]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.stdout == f"{copy}: 2 trials: 1 done, 1 done before, 0 failed; 1 more in this folder are of other settings\n"
