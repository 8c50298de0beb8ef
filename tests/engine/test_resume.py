"""BlockCheckpoints of a pruning run: whatever stops it, it goes on and ends with the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest
import tiny
import torch
from refusals import raises_line
from safetensors.torch import load_file

from harness_ext import BadOptionError, ChannelNorms, ModelPruner, Pruner, prune
from harness_ext.engine.layers import find_blocks
from harness_ext.engine.resume import BlockCheckpoints

LAYERS = 5


class Counting(Pruner):
    """Wanda, with a count of the layers that it prunes; stops at the layer ``stop``."""

    name = "counting"
    statistic = ChannelNorms
    calls = 0
    stop = None

    def score(self, weight, statistic):
        type(self).calls += 1
        if type(self).calls == type(self).stop:
            raise KeyboardInterrupt
        return weight.abs() * statistic.norms


@pytest.fixture(autouse=True)
def nothing_counted():
    Counting.calls, Counting.stop = 0, None


def run(folder, **changes):
    model = tiny.model(layers=LAYERS)
    record = prune(model, **({"pruner": Counting(), "sparsity": 0.5, "calibration": tiny.token_ids(), "resume": folder} | changes))
    return tiny.weights(model), record


def timeless(record):
    layers = {name: {key: value for key, value in entry.items() if key != "seconds"} for name, entry in record["layers"].items()}
    return {key: value for key, value in record.items() if not key.startswith("seconds")} | {"layers": layers}


def files(folder):
    return sorted(path.name for path in folder.rglob("*.safetensors"))


def test_each_block_leaves_a_checkpoint_with_the_new_weights(tmp_path):
    weights, record = run(tmp_path)
    assert files(tmp_path) == [f"block-{index:04d}.safetensors" for index in range(LAYERS)]
    for path in tmp_path.rglob("*.safetensors"):
        for name, weight in load_file(path).items():
            assert weight.equal(weights[f"{name}.weight"])
    assert {path.parent.name for path in tmp_path.rglob("*.safetensors")} == {record["fingerprint"]}
    assert not [*tmp_path.rglob("*.part")]


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(None)
    assert not [*tmp_path.iterdir()]


def test_a_run_that_is_complete_is_not_done_again(tmp_path):
    first = run(tmp_path)
    assert Counting.calls == 7 * LAYERS
    second = run(tmp_path)
    assert Counting.calls == 7 * LAYERS
    assert tiny.same(first[0], second[0])
    assert timeless(first[1]) == timeless(second[1])


@pytest.mark.parametrize("stop", [1, 8, 20, 35])
def test_a_run_that_was_stopped_goes_on_with_the_first_block_that_was_not_pruned(tmp_path, stop):
    expected = run(None)
    Counting.calls, Counting.stop = 0, stop
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    whole = (stop - 1) // 7
    assert len(files(tmp_path)) == whole
    Counting.calls, Counting.stop = 0, None
    weights, record = run(tmp_path)
    assert Counting.calls == 7 * (LAYERS - whole)
    assert tiny.same(weights, expected[0])
    assert timeless(record) == timeless(expected[1])


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_every_architecture_comes_back_bit_for_bit(tmp_path, name):
    def once():
        model = tiny.model(name, layers=3, dtype=torch.bfloat16)
        prune(model, pruner="sparsegpt", sparsity=0.5, calibration=tiny.token_ids(), resume=tmp_path)
        return tiny.weights(model)

    first = once()
    blocks = sorted(tmp_path.rglob("block-*"))
    blocks[-1].unlink()
    assert tiny.same(once(), first)


@pytest.mark.parametrize(
    "change",
    [{"sparsity": 0.6}, {"modules": "ffn"}, {"pruner": "wanda"}, {"calibration": tiny.token_ids(seed=1)}, {"precision": "float64"}],
)
def test_another_run_takes_nothing_from_this_one(tmp_path, change):
    run(tmp_path)
    expected = run(None, **change)
    assert tiny.same(run(tmp_path, **change)[0], expected[0])
    assert len({path.parent for path in tmp_path.rglob("*.safetensors")}) == 2


def test_another_dense_model_takes_nothing_from_this_one(tmp_path):
    run(tmp_path)
    models = [tiny.model(layers=LAYERS, seed=1) for _ in range(2)]
    for model, folder in zip(models, (tmp_path, None), strict=True):
        prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(), resume=folder)
    assert tiny.same(*map(tiny.weights, models))


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:100], lambda data: b"\xff" * 200])
def test_a_file_that_cannot_be_read_is_moved_aside_and_its_block_pruned_again(tmp_path, damage, caplog):
    first = run(tmp_path)
    path = sorted(tmp_path.rglob("block-*"))[2]
    path.write_bytes(damage(path.read_bytes()))
    Counting.calls = 0
    second = run(tmp_path)
    assert Counting.calls == 7
    assert tiny.same(first[0], second[0])
    assert path.with_suffix(".unreadable").exists()
    assert "cannot be read" in caplog.text


def test_two_processes_are_not_at_the_same_run(tmp_path):
    first = BlockCheckpoints(tmp_path, "abc")
    with raises_line(BadOptionError, f"resume={str(tmp_path)!r}", "process", "abc"):
        BlockCheckpoints(tmp_path, "abc")
    BlockCheckpoints(tmp_path, "abd").close()
    first.close()
    BlockCheckpoints(tmp_path, "abc").close()


def test_the_lock_is_released_after_an_error(tmp_path):
    Counting.stop = 3
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    (lock,) = tmp_path.rglob("lock")
    with filelock.FileLock(lock).acquire(timeout=0):
        pass


def test_a_folder_that_cannot_be_written_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with raises_line(BadOptionError, f"resume={str(tmp_path / 'file')!r}"):
        run(tmp_path / "file")


@pytest.mark.parametrize("value", ["", 3, True])
def test_a_folder_that_is_none_is_refused(value):
    with raises_line(BadOptionError, f"resume={value!r}", "folder"):
        run(value)


def test_a_pruner_of_whole_models_leaves_no_checkpoints(tmp_path):
    whole = type("Whole", (ModelPruner,), {"name": "whole", "prune_model": lambda *_: None})()
    with raises_line(BadOptionError, "resume=", "'whole'"):
        run(tmp_path, pruner=whole)


SCRIPT = """
import os, random, signal, sys, time
from pathlib import Path
import tiny, torch
import harness_ext, harness_ext.engine.api
folder = Path(sys.argv[1])

def files():
    return len([*(folder / "killed").rglob("*.safetensors")])

def start(name):
    # A copy of this process, in which nothing was computed yet: what is imported need not be imported again.
    if child := os.fork():
        return child
    torch.set_num_threads(1)
    model = tiny.model(layers=40)
    harness_ext.prune(model, pruner="sparsegpt", sparsity=0.5, calibration=tiny.token_ids(20, 30), resume=folder / name)
    torch.save(model.state_dict(), folder / f"{name}.pt")
    os._exit(0)

assert os.waitpid(start("whole"), 0)[1] == 0
draw = random.Random(0)
for _ in range(3):
    child = start("killed")
    deadline, wanted = time.monotonic() + 60, files() + draw.randrange(1, 12)
    while files() < wanted and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(draw.random() * 0.02)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
assert not (folder / "killed.pt").exists()
assert os.waitpid(start("killed"), 0)[1] == 0
"""


@pytest.mark.slow
def test_after_kills_at_random_moments_the_result_is_bit_identical(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "support"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert tiny.same(torch.load(tmp_path / "killed.pt"), torch.load(tmp_path / "whole.pt"))


def test_the_blocks_of_a_model_that_are_not_selected_leave_no_checkpoint(tmp_path):
    run(tmp_path, modules="*.2.mlp.*")
    assert files(tmp_path) == ["block-0002.safetensors"]
    assert len(find_blocks(tiny.model(layers=LAYERS))) == LAYERS
