"""The training of a family of embedded models: every size, several seeds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import lab_runs
import train_family
import train_lab
from lab_settings import SIZES, SMOKE, Settings

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run(run, step, steps=4, text="a"):
    """A folder as a run of training leaves it."""
    run.mkdir(parents=True)
    (run / "settings.json").write_text(json.dumps({"steps": steps, "text": text}))
    (run / "log.jsonl").write_text("{}\n" * steps)  # a log may be ahead of the checkpoint
    if step:
        torch.save({"counters": {"step": step}}, run / "checkpoint.pt")


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["--sizes", "lab-m"], "lab-m"), (["--sizes", "lab-m,lab-m"], "lab-m"), (["--sizes", "lab-m,lab-l"], "lab-l"),
        (["--sets", "sizes,load"], "load"), (["--seeds", "0,x"], "0,x"), (["--seeds", "1,1"], "1,1"), (["--seeds", ""], "--seeds"),
    ],
)  # fmt: skip
def test_a_family_that_cannot_be_is_refused_before_anything_is_written(tmp_path, words, key):
    app = typer.Typer()
    app.command()(train_family.main)
    outcome = CliRunner().invoke(app, ["--out", str(tmp_path / "family"), *words])
    assert outcome.exit_code == 2
    assert key in outcome.stderr
    assert not (tmp_path / "family").exists()


def test_the_models_of_a_whole_family_are_listed_size_by_size(tmp_path):
    for name in ("lab-xs-0", "lab-xs-1", "lab-s-0", "lab-s-1"):
        run(tmp_path / name, 4)
    models = train_family.trained(tmp_path, ["lab-xs-0", "lab-xs-1", "lab-s-0", "lab-s-1"])
    assert [model.parent.name for model in models] == ["lab-xs-0", "lab-xs-1", "lab-s-0", "lab-s-1"]


@pytest.mark.parametrize(
    ("state", "key"), [({"step": 3}, "step 3 of 4"), ({"step": 0}, "step 0 of 4"), ({"step": 4, "text": "b"}, "texts"), (None, "no run")]
)
def test_a_family_with_a_seed_that_is_missing_or_another_is_refused(tmp_path, state, key):
    run(tmp_path / "lab-xs-0", 4)
    if state:
        run(tmp_path / "lab-s-0", **state)
    with pytest.raises(typer.BadParameter, match=key) as caught:
        train_family.trained(tmp_path, ["lab-xs-0", "lab-s-0"])
    assert "lab-s-0" in str(caught.value)


def test_the_runs_of_a_set_differ_in_what_the_set_is_about():
    ladder = train_family.runs_of(["sizes"], list(SIZES), [0, 1], 9)
    assert list(ladder)[:3] == ["lab-xs-0", "lab-xs-1", "lab-s-0"]
    assert all(settings == Settings(**SIZES[size], steps=9, seed=int(name[-1])) for name, (size, settings) in ladder.items())
    loads = train_family.runs_of(["loads"], list(SIZES), [0], 9)
    assert {size for size, _ in loads.values()} == {"lab-xs"}
    weights = 3 * (4 + 8) * 64**2
    assert [round(48 * settings.people / weights, 2) for _, settings in loads.values()] == [0.07, 0.2, 0.4, 0.6, 1.0]
    assert {settings.slots for _, settings in loads.values()} == {3072}  # the same number of questions about each person
    assert [settings.zipf for _, settings in train_family.runs_of(["zipf"], list(SIZES), [0], 9).values()] == [True]


def test_the_command_of_a_run_trains_its_settings(tmp_path):
    for name, (size, settings) in train_family.runs_of(["sizes", "loads", "zipf"], list(SIZES), [3], 7).items():
        words = train_family.command(tmp_path / name, size, settings, [])
        values = dict(zip(words[2:-1:2], words[3::2], strict=False))
        assert (values["--size"], values["--seed"], values["--steps"], values["--people"]) == (size, "3", "7", str(settings.people))
        assert ("--zipf" in words) == settings.zipf


def test_a_folder_with_a_run_of_other_settings_or_of_another_text_is_left_alone(tmp_path, monkeypatch):
    lab_runs.claim(tmp_path / "run", Settings(seed=1))
    before = (tmp_path / "run" / "settings.json").read_bytes()
    lab_runs.claim(tmp_path / "run", Settings(seed=1))
    with pytest.raises(typer.BadParameter, match="seed 1, not 2"):
        lab_runs.claim(tmp_path / "run", Settings(seed=2))
    monkeypatch.setattr(lab_runs, "text_digest", lambda: "another")
    with pytest.raises(typer.BadParameter, match="text"):
        lab_runs.claim(tmp_path / "run", Settings(seed=1))
    assert (tmp_path / "run" / "settings.json").read_bytes() == before


def test_a_checkpoint_without_settings_is_left_alone(tmp_path):
    (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(typer.BadParameter, match="settings"):
        lab_runs.claim(tmp_path, Settings())


@pytest.mark.slow
def test_a_small_family_is_trained_and_goes_on_where_it_was_cut_off(tmp_path):
    command = [
        sys.executable,
        str(SCRIPTS / "train_family.py"),
        "--out",
        str(tmp_path),
        "--smoke",
        "--sizes",
        "lab-xs,lab-s",
        "--seeds",
        "0",
    ]
    for _ in range(2):
        process = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        models = process.stdout.split()
        assert [Path(model).parent.name for model in models] == ["lab-xs-0", "lab-s-0"]
        (tmp_path / "lab-s-0" / "settings.json").unlink()  # as if the second run were yet to come
        (tmp_path / "lab-s-0" / "checkpoint.pt").unlink()
        (tmp_path / "lab-s-0" / "log.jsonl").unlink()


@pytest.mark.slow
def test_runs_of_one_size_that_stand_at_two_steps_go_on_as_two_stacks(tmp_path, caplog):
    runs = {f"lab-xs-{seed}": ("lab-xs", Settings(**SMOKE, seed=seed)) for seed in (0, 1)}
    outs, settings = [tmp_path / name for name in runs], [own for _, own in runs.values()]
    for out, own in zip(outs, settings, strict=True):
        lab_runs.claim(out, own)
    trainer = train_lab.Trainer(settings, outs)
    for step, dimensions in enumerate(trainer.planned):
        trainer.feeder.ask(step, dimensions)
    for _ in range(6):
        trainer.note(trainer.train_step())
    trainer.save()
    train_lab.train(settings[:1], outs[:1], "cpu", 0, 6)  # as if it had been killed before the second run was saved
    assert [lab_runs.saved(out) for out in outs] == [(12, 12), (6, 12)]
    with caplog.at_level("INFO"):
        train_family.train_on_gpu(tmp_path, runs, "cpu", 0, 6)
    assert [lab_runs.saved(out) for out in outs] == [(12, 12), (12, 12)]
    assert [lab_runs.logged(out) for out in outs] == [12, 12]
    started = [record.getMessage() for record in caplog.records if "started" in record.getMessage()]
    assert started == ["lab-xs from step 12: started", "lab-xs from step 6: started"]
