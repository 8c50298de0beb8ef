"""``harness-ext sweep --engine ray`` on a cluster of three nodes on this machine, one of which is killed while a trial runs on it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from harness_ext import BadOptionError
from harness_ext.errors import MissingExtraError
from harness_ext.sweep import load
from harness_ext.sweep.fields import sweep_from
from harness_ext.sweep.grid import trials
from harness_ext.sweep.prepared import Prepared
from harness_ext.sweep.ray_engine import on_ray, work
from harness_ext.sweep.run import run

pytestmark = pytest.mark.slow

TASK = """
task: slow
custom_dataset: !function slow.load
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: [" a", " b"]
doc_to_target: 0
process_results: !function slow.process_results
metric_list:
  - metric: acc
metadata:
  version: 1.0
"""
FUNCTIONS = """
import os, time
from pathlib import Path
import datasets


def load(**_):
    return {"test": datasets.Dataset.from_dict({"question": ["one", "two", "three"]})}

def process_results(doc, results):
    here = Path(__file__).parent
    if doc["question"] == "one":
        with open(here / "log", "a") as log:
            log.write(f"{os.getppid()}\\n")
    time.sleep(0.7 if (here / "log").exists() and "slow" in (here / "pace").read_text() else 0)
    return {"acc": float(results[0][0] > results[1][0])}
"""


@pytest.fixture
def cluster():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_gives_what_one_process_gives_though_a_node_is_killed(cluster, tmp_path, monkeypatch):
    (tmp_path / "slow.yaml").write_text(TASK)
    (tmp_path / "slow.py").write_text(FUNCTIONS)
    pace, log = tmp_path / "pace", tmp_path / "log"
    prepared = Prepared(
        sweep_from({
            "pretrained": ["lab-xs"], "pruner": ["magnitude", "random"], "sparsity": ["0.4,0.8"], "tasks": ["slow"],
            "include_path": [str(tmp_path)], "device": "cpu",
        })
    )  # fmt: skip
    pace.write_text("fast")
    assert run(prepared, tmp_path / "alone").done == 5
    log.unlink()
    pace.write_text("slow")
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    engine = on_ray(None, cpus=1, gpus=0)
    killed: list[int] = []

    def killing(*given):
        """Kills a node when the first trial is over, at which time another is under way there or here."""
        for outcome in engine(*given):
            if not killed:
                killed.append(1)
                _wait_for_a_trial(log, nodes[0])
                cluster.remove_node(nodes[0], allow_graceful=False)
            yield outcome

    summary = run(prepared, tmp_path / "ray", killing)
    assert (summary.done, summary.failed) == (5, [])
    assert (tmp_path / "ray" / "results.csv").read_bytes() == (tmp_path / "alone" / "results.csv").read_bytes()
    for one, other in zip(load(tmp_path / "ray"), load(tmp_path / "alone"), strict=True):
        assert one.samples("slow") == other.samples("slow")
    begun = Counter(log.read_text().split())
    assert len(begun) == 2
    assert sum(begun.values()) == 6, "no trial was under way on the node that was killed"


def _wait_for_a_trial(log: Path, node: object) -> None:
    """Until a trial has begun on the node since now, or it is clear that none will."""
    raylet = next(process.process.pid for kind, processes in node.all_processes.items() if kind == "raylet" for process in processes)  # type: ignore[attr-defined]
    before = log.read_text().split().count(str(raylet))
    until = time.monotonic() + 20
    while time.monotonic() < until and log.read_text().split().count(str(raylet)) == before:
        time.sleep(0.05)


def test_a_node_with_another_version_does_not_run_the_trial():
    sweep = sweep_from({"pretrained": ["lab-xs"], "pruner": ["magnitude"], "sparsity": ["0.5"], "tasks": ["icl_linear"], "limit": 2})
    prepared = Prepared(sweep)
    job = prepared.jobs[1]
    *_, error = work(sweep, job.trial.arguments, job.settings | {"versions": {"torch": "0"}})
    assert error.startswith("this node would run another trial: its versions is {'torch': ")
    results, samples, measured, error = work(sweep, job.trial.arguments, job.settings)
    assert (error, len(samples["icl_linear"]), measured["parameters"] > 0) == ("", 2, True)
    assert results["config"]["pruning"]["achieved_sparsity"] == 0.5


def test_an_error_in_a_worker_is_told_in_words(monkeypatch):
    from harness_ext.plugins import Plugins
    from harness_ext.sweep import ray_engine

    def raising(*_):
        raise RuntimeError("no such thing\nat all")

    monkeypatch.setattr(ray_engine, "run_trial", raising)
    sweep = sweep_from({"pretrained": ["lab-xs"], "pruner": ["magnitude"], "sparsity": ["0.5"], "tasks": ["icl_linear"], "limit": 2})
    prepared = Prepared(sweep)
    assert [str(trial) for trial in trials(sweep, Plugins())] == [str(job.trial) for job in prepared.jobs]
    *_, error = work(sweep, prepared.jobs[0].trial.arguments, prepared.jobs[0].settings)
    assert error.startswith("RuntimeError: no such thing at all (")


def test_no_cluster_at_the_address_is_one_line():
    with pytest.raises(BadOptionError, match=r"--address 127.0.0.1:1: no cluster there") as error:
        on_ray("127.0.0.1:1", cpus=1, gpus=0)
    assert "\n" not in str(error.value)


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"^--engine ray needs ray.*pip install 'lm-eval-pruned\[ray\]'"):
        on_ray(None, cpus=1, gpus=0)
