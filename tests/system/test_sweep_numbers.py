"""The numbers of a sweep are those of separate ``lm_eval`` runs, bit for bit."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest
import torch
from sweeps import COUNTS, TASK, TASK_FUNCTIONS, prepare, sweep

from harness_ext.plugins import Plugins
from harness_ext.sweep import load
from harness_ext.sweep.dense import DenseModel
from harness_ext.sweep.evaluation import run_trial
from harness_ext.sweep.random_states import random_state, set_seeds


def stock(tmp_path, arguments, tasks, model="pruned-hf", **options):
    """The results and the samples of an ``lm_eval`` process."""
    command = [sys.executable, "-m", "lm_eval", "--model", model, "--model_args", arguments, "--tasks", tasks, "--log_samples"]
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
    @pytest.mark.slow
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

    @pytest.mark.slow
    def test_are_those_of_lm_eval_where_tasks_draw_when_they_are_made_and_when_they_score(self, tmp_path):
        """Two tasks and a group: what is drawn hangs on everything that was drawn before. The dense model gets what ``hf`` gets."""
        functions = TASK_FUNCTIONS.replace('    if WHEN:\n        raise RuntimeError("this task raises")\n', "").replace(
            "1.0}", "random.random()}"
        )
        for name, question in (("making", "str(random.random())"), ("scoring", '"one"')):
            (tmp_path / f"{name}.yaml").write_text(TASK.replace("raising", name))
            (tmp_path / f"{name}.py").write_text("import random\n" + functions.replace('"one"', question))
        tasks, options = "making,icl,scoring", {"limit": 4, "include_path": str(tmp_path)}
        sweep(tmp_path / "out", tasks=[tasks], metadata=COUNTS, **options | {"include_path": [str(tmp_path)]})
        records = {record.ratio: record for record in load(tmp_path / "out")}
        folder = Plugins().models.get("lab-xs")[0]
        for ratio, arguments, model in (
            (0.5, "pretrained=lab-xs,pruner=magnitude,sparsity=0.5", "pruned-hf"), (0.0, f"pretrained={folder}", "hf"),
        ):  # fmt: skip
            results, samples = stock(tmp_path / model, arguments, tasks, model=model, **options)
            assert records[ratio].results["results"] == results["results"]
            assert records[ratio].results["group_subtasks"] == results["group_subtasks"]
            assert records[ratio].samples("making")[0]["doc_hash"] == samples["making"][0]["doc_hash"]

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
        (tmp_path / "drawing.yaml").write_text(TASK.replace("raising", "drawing"))
        source = TASK_FUNCTIONS.replace("if WHEN:", "if False:").replace(
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

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(model, "prune", prune)
                results, _, measured = run_trial(prepared.sweep, prepared.jobs[0].trial, model, prepared.items["lab-xs"])
            hashes.append((results["task_hashes"]["drawing"], measured["items"]["drawing"]))
        assert hashes[0] == hashes[2] != hashes[1]

    def test_tasks_that_draw_nothing_are_shared_by_all_trials(self, monkeypatch):
        prepared = prepare(tasks=["icl_linear", "kv_4"], metadata={"icl_items": 8, "lookup_items": 8})
        items = prepared.items["lab-xs"]
        first = items.for_trial()
        monkeypatch.setattr(items.catalogue, "load", None)
        assert all(one is other for one, other in zip(first, items.for_trial(), strict=True))

    @pytest.mark.parametrize(
        ("question", "shared"),
        [("random.random()", False), ("numpy.random.rand()", False), ("torch.rand(1).item()", False),
         ("random.Random(3).random()", True), ("numpy.random.default_rng(3).random()", True)],
    )  # fmt: skip
    def test_tasks_are_made_anew_where_seeds_change_what_they_ask(self, tmp_path, question, shared):
        (tmp_path / "drawing.yaml").write_text(TASK.replace("raising", "drawing"))
        source = TASK_FUNCTIONS.replace("if WHEN:", "if False:").replace('"one"', f"str({question})")
        (tmp_path / "drawing.py").write_text("import random\nimport numpy\nimport torch\n" + source)
        items = prepare(tasks=["drawing"], include_path=[str(tmp_path)], metadata={}).items["lab-xs"]
        assert (items.for_trial()[0] is items.for_trial()[0]) == shared

    def test_the_generators_are_left_as_making_the_tasks_would_leave_them(self, tmp_path):
        """So that a task that draws when it scores draws what it does in a process of its own."""
        items = prepare(tasks=["icl_linear", "kv_4"], metadata={"icl_items": 8, "lookup_items": 8}).items["lab-xs"]
        states = []
        for get in (items.for_trial, lambda: items.catalogue.load("lab-xs")):
            set_seeds(plus=5)
            get()
            states.append(random_state())
        assert not items.draws
        assert states[0][0] == states[1][0]

    def test_a_task_that_sets_a_seed_is_made_anew(self, tmp_path):
        (tmp_path / "drawing.yaml").write_text(TASK.replace("raising", "drawing"))
        source = TASK_FUNCTIONS.replace("if WHEN:", "if False:").replace("    return {", "    torch.manual_seed(7)\n    return {", 1)
        (tmp_path / "drawing.py").write_text("import torch\n" + source)
        assert prepare(tasks=["drawing"], include_path=[str(tmp_path)], metadata={}).items["lab-xs"].draws


def test_tasks_get_the_model_arguments_as_from_lm_eval(tmp_path):
    """lm-eval passes them to a function that makes a data set; ``--metadata`` has the last word."""
    (tmp_path / "telling.yaml").write_text(TASK.replace("raising", "telling"))
    source = TASK_FUNCTIONS.replace("**_", "**arguments").replace("if WHEN:", "if False:").replace('["one", "two"]', "[repr(arguments)]")
    (tmp_path / "telling.py").write_text(source)
    fields = {"tasks": ["telling"], "include_path": [str(tmp_path)], "metadata": {"max_length": 64}}
    prepared = prepare(**fields, model_args={"add_bos_token": False, "max_length": 128}, dtype="float32")
    job = prepared.jobs[1]
    _, samples, _ = run_trial(prepared.sweep, job.trial, DenseModel(prepared.sweep, "lab-xs"), prepared.items["lab-xs"])
    arguments = ast.literal_eval(samples["telling"][0]["doc"]["question"])
    assert arguments["add_bos_token"] is False
    assert arguments["dtype"] == "float32"
    assert arguments["max_length"] == 64
    assert arguments["pretrained"] == "lab-xs"
