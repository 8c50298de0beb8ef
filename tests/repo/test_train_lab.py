"""The training of the embedded models: runs that are cut off and go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import lab_runs
from lab_mixture import KINDS
from lab_settings import SIZES, Settings

SCRIPTS = Path(__file__).parents[2] / "scripts"


def log_of(out):
    """The log of a run without the times."""
    lines = (out / "log.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A whole smoke run: its folder and its log."""
    out = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, str(SCRIPTS / "train_lab.py"), "--out", str(out), "--smoke", "--save-every", "100"]
    process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    return out, log_of(out)


INTERRUPTED = """
import os, shutil, signal, sys, time
from pathlib import Path
import train_lab

folder = Path(sys.argv[1])

def start(name, **options):
    if child := os.fork():
        return child
    os.setsid()
    train_lab.main(folder / name, save_every=3, smoke=True, **options)
    os._exit(0)

def finish(name, **options):
    assert os.waitpid(start(name, **options), 0)[1] == 0

def kill(name, child, lines):
    log, deadline = folder / name / "log.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\\n") >= lines):
        time.sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    shutil.copy(log, folder / name / "killed.jsonl")

kill("one", start("one"), 5)  # some steps more than the checkpoint knows of
with (folder / "one" / "log.jsonl").open("a") as log:
    log.write('{"step": 6, "seco')  # as if it had been killed while writing
finish("one")
"""


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The folder of a run that was killed and started again."""
    folder = tmp_path_factory.mktemp("interrupted")
    variables = os.environ | {"PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(folder)], check=False, capture_output=True, text=True, timeout=300, env=variables
    )
    assert process.returncode == 0, process.stderr
    return folder / "one"


def test_the_sizes_grow_together_and_the_largest_is_what_the_settings_begin_with():
    sizes = list(SIZES.values())
    for smaller, larger in pairwise(sizes):
        assert smaller["width"] * smaller["depth"] < larger["width"] * larger["depth"]
        assert all(smaller[name] <= larger[name] for name in ("width", "depth", "heads"))
    assert any(smaller["width"] == larger["width"] for smaller, larger in pairwise(sizes))  # differ in depth alone
    assert Settings() == Settings(**SIZES["lab-m"])


@pytest.mark.slow
def test_a_smoke_run_logs_every_step_and_takes_less_than_a_minute(smoke):
    out, records = smoke
    assert [record["step"] for record in records] == list(range(1, json.loads((out / "settings.json").read_text())["steps"] + 1))
    assert all(later["tokens"] > now["tokens"] for now, later in pairwise(records))
    assert {f"{kind}_{figure}" for kind in KINDS for figure in ("loss", "acc")} <= set().union(*records)
    assert records[-1]["text_loss"] < records[0]["text_loss"]
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["seconds"] < 60


@pytest.mark.slow
def test_a_smoke_run_leaves_a_checkpoint_curves_and_a_model_that_loads_without_the_training_code(smoke):
    out, _ = smoke
    assert torch.load(out / "checkpoint.pt", weights_only=True)["counters"]["step"] == 12
    assert (out / "curves.png").read_bytes()[1:4] == b"PNG"
    assert "attn_implementation" not in (out / "model" / "config.json").read_text()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out / "model"), AutoTokenizer.from_pretrained(out / "model")
    assert model.dtype == torch.bfloat16
    inputs = tokenizer("Input: 3, 7, 0, 9\nOutput:", return_tensors="pt")
    assert inputs["input_ids"].shape == (1, 6)
    loss = model(**inputs, labels=inputs["input_ids"]).loss
    assert torch.isfinite(loss)
    # The weights are those of the run: untrained ones would be as good as a guess among all tokens.
    assert loss < np.log(len(tokenizer)) - 0.1


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_with_the_losses_of_an_uninterrupted_run(smoke, interrupted):
    _, uninterrupted = smoke
    assert 5 <= len((interrupted / "killed.jsonl").read_text().splitlines()) < len(uninterrupted)
    assert log_of(interrupted) == uninterrupted


@pytest.mark.parametrize(
    ("step", "kept", "torn"),
    [(0, 0, ""), (2, 2, '{"step": 5, "icl_lo'), (4, 4, '{"step": 5}'), (4, 4, '{"step": 5, "icl_lo'), (9, 4, ""), (9, 4, '{"step": 5}')],
)
def test_what_was_logged_after_the_checkpoint_is_dropped(step, kept, torn, tmp_path):
    lines = [json.dumps({"step": number, "icl_loss": 1.0}) + "\n" for number in range(1, 5)]
    (tmp_path / "log.jsonl").write_text("".join(lines) + torn)
    lab_runs.trim_log(tmp_path / "log.jsonl", step)
    assert (tmp_path / "log.jsonl").read_text() == "".join(lines[:kept])


def test_a_first_run_has_no_log_to_trim(tmp_path):
    lab_runs.trim_log(tmp_path / "log.jsonl", 0)
    assert (tmp_path / "log.jsonl").read_text() == ""


def test_the_learning_rate_warms_up_stays_and_falls_to_zero():
    settings = Settings(steps=1000, warmup=100, decay=0.4, lr=1.0)
    rates = [settings.rate(step) for step in range(1001)]
    assert rates[0] == 0.01
    assert set(rates[99:601]) == {1.0}
    assert rates[800] == 0.5
    assert rates[1000] == 0
    assert all(later <= now for now, later in pairwise(rates[600:]))
