"""Several processes that prune one model together, with gloo on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import threads_at_exit
import tiny
import torch
from experts import mixture

from harness_ext import ChannelNorms, prune
from harness_ext.engine import ranks

pytestmark = pytest.mark.slow

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "support"), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

SCRIPT = """
import sys
import tiny, torch
import torch.distributed as dist
from experts import mixture
from harness_ext import Calibration, HarnessExtError, Pruner, Statistic, prune
from harness_ext.engine import ranks


class Alone(Statistic):
    "Names nothing that adds up."
    def update(self, inputs):
        self.tokens += len(inputs)

class Lonely(Pruner):
    name = "lonely"
    statistic = Alone
    def score(self, weight, statistic):
        return weight.abs()

def attempt(model=None, **options):
    try:
        prune(model or tiny.model(), sparsity=0.5, **options)
    except HarnessExtError as error:
        return str(error)

dist.init_process_group("gloo")
rank, out = dist.get_rank(), {}
for pruner in ("sparsegpt", "wanda", "magnitude"):
    for dtype in (torch.float32, torch.bfloat16):
        # Each process brings other tokens: those of the first count.
        model, ids = tiny.model(layers=3, dtype=dtype), tiny.token_ids(7, seed=rank)
        record = prune(model, pruner=pruner, sparsity=0.5, calibration=ids)
        out[pruner, str(dtype)] = tiny.weights(model), record["fingerprint"]
owl = tiny.model(layers=3)
prune(owl, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(7), allocation="owl")
out["owl", "torch.float32"] = tiny.weights(owl), ""
ordered = tiny.model(layers=3)
prune(ordered, sparsity=0.5, calibration=tiny.token_ids(7), true_sequential=True)
out["true_sequential", "torch.float32"] = tiny.weights(ordered), ""
for form in ("plain", "flat", "listed"):  # most experts get the tokens of one process alone
    for options in ({}, {"true_sequential": True}, {"experts": "all"}, {"allocation": "owl"}):
        model = mixture(form, idle=(1,))
        record = prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(2, 3), **options)
        out["experts", form, str(options)] = tiny.weights(model), [entry.get("tokens") for entry in record["layers"].values()]
out["idle"] = attempt(model=mixture(idle=(1,)), pruner="wanda", calibration=tiny.token_ids(2, 3), strict=True)
unused = tiny.model()
if rank:
    unused.model.layers[1].mlp.forward = lambda inputs: inputs
out["unused"] = attempt(model=unused, pruner="wanda", calibration=tiny.token_ids(4))
out["few"] = attempt(calibration=tiny.token_ids(1))
out["lonely"] = attempt(pruner=Lonely(), calibration=tiny.token_ids(4))
out["different"] = attempt(model=tiny.model(seed=rank))
poisoned = tiny.model()
original = poisoned.model.layers[1].mlp.forward
poisoned.model.layers[1].mlp.forward = lambda inputs: original(inputs * (float("inf") if rank else 1))
out["poisoned"] = attempt(model=poisoned, pruner="wanda", calibration=tiny.token_ids(4))
resumed = tiny.model(layers=3)
for _ in range(2):
    resumed = tiny.model(layers=3)
    prune(resumed, sparsity=0.5, calibration=tiny.token_ids(7), resume=sys.argv[2])
out["resumed"] = tiny.weights(resumed)
torch.save(out, f"{sys.argv[1]}/{rank}.pt")

# What ``accelerate launch -m lm_eval`` runs, without the ten thousand tasks that come with it.
import functools
import lm_eval.tasks
from lm_eval.__main__ import cli_evaluate
lm_eval.tasks.TaskManager = functools.partial(lm_eval.tasks.TaskManager, include_defaults=False)
arguments = f"pretrained={sys.argv[1]}/model,sparsity=0.5,pruner=wanda,calibration.samples=4,calibration.length=8"
sys.argv = ["lm_eval", "--model", "pruned-hf", "--model_args", arguments, "--tasks", "pairs", "--include_path", f"{sys.argv[1]}/tasks",
            "--output_path", f"{sys.argv[1]}/results"]
cli_evaluate()
dist.destroy_process_group()
"""
ENDING = """
import os, sys
from pathlib import Path
import threads_at_exit
folder = Path(sys.argv[1])
threads_at_exit.write_at_exit(folder / f"threads-{os.environ['RANK']}.json", "gloo")
from harness_ext import HarnessExtError, PrunedHFLM
from harness_ext.engine import ranks
try:
    PrunedHFLM(pretrained=str(folder))  # no model there, which is found out after the group was formed
except HarnessExtError:
    pass
model = PrunedHFLM(pretrained=str(folder / "model"))
assert ranks.gather(os.environ["RANK"]) == ["0", "1"]
"""
TASK = """
task: pairs
custom_dataset: !function pairs.load
test_split: test
output_type: multiple_choice
doc_to_text: '{{q}}'
doc_to_choice: [' a', ' b']
doc_to_target: 0
metric_list: [{metric: acc}]
"""
FUNCTIONS = """
import datasets

def load(**_):
    return {'test': datasets.Dataset.from_list([{'q': f'{i} {i + 1}'} for i in range(8)])}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    tiny.checkpoint(folder / "model", layers=2)
    (folder / "tasks").mkdir()
    (folder / "tasks" / "pairs.yaml").write_text(TASK)
    (folder / "tasks" / "pairs.py").write_text(FUNCTIONS)
    return folder


@pytest.fixture(scope="module")
def both(folder):
    """What each of two processes ended with."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [*LAUNCH, str(script), str(folder), str(folder / "resume")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("pruner", ["sparsegpt", "wanda", "magnitude"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_end_with_the_same_bits_which_are_those_of_one_process_up_to_rounding(both, pruner, dtype):
    (first, fingerprint), (second, other) = (results[pruner, str(dtype)] for results in both)
    assert tiny.same(first, second)
    assert fingerprint == other
    model = tiny.model(layers=3, dtype=dtype)
    prune(model, pruner=pruner, sparsity=0.5, calibration=tiny.token_ids(7))
    alone = tiny.weights(model)
    agree = [float(((alone[name] == 0) == (first[name] == 0)).float().mean()) for name in alone]
    assert min(agree) >= 0.99
    if pruner == "magnitude":
        assert tiny.same(first, alone)


def test_an_allocation_is_the_same_for_both(both):
    assert tiny.same(*(results["owl", "torch.float32"][0] for results in both))


@pytest.mark.parametrize("options", [{}, {"true_sequential": True}, {"experts": "all"}, {"allocation": "owl"}], ids=str)
@pytest.mark.parametrize("form", ["plain", "flat", "listed"])
def test_experts_are_measured_on_the_tokens_of_both(both, form, options):
    (first, tokens), (second, others) = (results["experts", form, str(options)] for results in both)
    assert tiny.same(first, second)
    assert tokens == others
    model = mixture(form, idle=(1,))
    record = prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(2, 3), **options)
    assert [entry.get("tokens") for entry in record["layers"].values()] == tokens
    alone = tiny.weights(model)
    assert min(float(((alone[name] == 0) == (first[name] == 0)).float().mean()) for name in alone) >= 0.95


def test_what_one_process_cannot_do_is_an_error_in_both(both):
    assert all("no token is sent to this expert" in results["idle"] for results in both)
    mine, other = (results["unused"] for results in both)
    assert "cannot be walked block by block in another process" in mine
    assert "layers.1.mlp.gate_proj was not used by the calibration tokens" in other


def test_layers_in_the_order_of_their_use_are_the_same_for_both(both):
    (first, _), (second, _) = (results["true_sequential", "torch.float32"] for results in both)
    assert tiny.same(first, second)
    model = tiny.model(layers=3)
    prune(model, sparsity=0.5, calibration=tiny.token_ids(7), true_sequential=True)
    alone = tiny.weights(model)
    assert min(float(((alone[name] == 0) == (first[name] == 0)).float().mean()) for name in alone) >= 0.99


def test_fewer_sequences_than_processes_are_refused_by_both(both):
    assert {results["few"] for results in both} == {"calibration.samples=1: want at least one sequence for each of 2 processes"}


def test_a_statistic_that_does_not_add_up_is_refused_by_both(both):
    for results in both:
        assert (
            results["lonely"] == "model.layers.0.self_attn.q_proj: Alone names nothing additive: it cannot be measured by several processes"
        )


def test_numbers_that_are_not_finite_in_one_are_an_error_in_both(both):
    for results in both:
        assert "NaN or infinite" in results["poisoned"]


def test_different_dense_models_are_refused_by_both(both):
    for results in both:
        assert results["different"].startswith("the processes hold different dense models")


def test_checkpoints_are_written_by_the_first_and_read_by_both(both):
    assert tiny.same(both[0]["resumed"], both[1]["resumed"])


def test_lm_eval_prunes_and_scores_with_both(both, folder):
    (results,) = (folder / "results").rglob("results_*.json")
    found = json.loads(results.read_text())
    assert found["config"]["pruning"]["achieved_sparsity"] == 0.5
    assert 0 <= found["results"]["pairs"]["acc,none"] <= 1


def test_a_single_process_has_everything_to_itself():
    assert ranks.count() == 1
    assert ranks.is_first()
    assert ranks.share(tiny.token_ids()).equal(tiny.token_ids())
    assert ranks.all_true(True)
    assert not ranks.all_true(False)
    statistic = ChannelNorms(4, torch.device("cpu"))
    statistic.update(torch.ones(3, 4))
    ranks.all_reduce(statistic, "layer")
    assert (statistic.tokens, statistic.squares.tolist()) == (3, [3.0] * 4)


@pytest.mark.skipif(not threads_at_exit.TASKS.is_dir(), reason="the system does not list threads in files")
def test_no_thread_of_the_group_outlives_it(folder):
    """As in ``accelerate launch -m lm_eval``. A thread that drops a tensor while Python ends aborts the process, about once in 50 runs."""
    script = folder / "ending.py"
    script.write_text(ENDING)
    done = subprocess.run([*LAUNCH, str(script), str(folder)], env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    for rank in range(2):
        assert json.loads((folder / f"threads-{rank}.json").read_text()) == []
