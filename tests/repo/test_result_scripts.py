"""What the scripts that train models and sweep over them ask for, with a stand-in for each long step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import exposure
import memory_load
from train_family import runs_of

from harness_ext.sweep.fields import read as read_fields

SCRIPTS = Path(__file__).parents[2] / "scripts"
# Trains nothing, writes no page, and has the lists of facts from this process.
PYTHON = """#!/bin/sh
case "$*" in
  *train_family.py*) for name in $RUNS; do mkdir -p "$3/$name/model"; done ;;
  *" page "* | *"/real_model.py"*) ;;
  *"/$SCRIPT.py facts "*) cp "$FACTS"/* "$3" ;;
  "- "*) exec "$REAL" "$@" ;;
  *) exit 1 ;;
esac
"""
HARNESS_EXT = """#!/bin/sh
"$REAL" -c 'import json, sys; sys.stdout.write(json.dumps(sys.argv[1:]) + "\\n")' "$@" >> "$ASKED"
"""


def asked_of(script: str, words: list[str], folder: Path, **more: str) -> list[list[str]]:
    """The words of each ``harness-ext`` command of a script, which is run with stand-ins."""
    asked, programs = folder / "asked", folder / "bin"
    programs.mkdir()
    for name, text in {"python": PYTHON, "harness-ext": HARNESS_EXT}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    own = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "REAL": sys.executable, "ASKED": str(asked), "SCRIPT": "none"}
    subprocess.run(["bash", str(SCRIPTS / script), *words], env=os.environ | own | more, check=True, capture_output=True)
    return [json.loads(line) for line in asked.read_text().splitlines()]


@pytest.mark.parametrize(("module", "kind", "files"), [(memory_load, "loads", "facts-*.json"), (exposure, "zipf", "*.json")])
def test_each_sweep_has_its_grid_all_its_models_and_the_facts_that_they_were_told(module, kind, files, tmp_path):
    script, runs, out = module.__name__, runs_of([kind], [], [0, 1, 2], 2000), tmp_path / "out"
    (tmp_path / "facts").mkdir()
    written = CliRunner().invoke(module.app, ["facts", str(tmp_path / "facts")])
    assert written.exit_code == 0, written.output
    own = {"RUNS": " ".join(runs), "SCRIPT": script, "FACTS": str(tmp_path / "facts")}
    sweeps = asked_of(f"{script}.sh", [str(out)], tmp_path, **own)
    told = {file.stem.removeprefix("facts-") for file in out.glob(files)}
    assert len(sweeps) == len(told) + 1
    seen = []
    for command, config, grid, to, folder, *more in sweeps:
        assert (command, config, to) == ("sweep", "--config", "--out")
        name, options = Path(folder).name, list(zip(more[::2], more[1::2], strict=True))
        assert Path(grid) == SCRIPTS / script / f"{name.partition('-')[0]}.yaml"
        models = [Path(value) for option, value in options if option == "--pretrained"]
        facts = [json.loads(value)["facts_known"] for option, value in options if option == "--metadata"]
        people = name.rpartition("-")[2]
        assert {model.parent.name for model in models} == {run for run in runs if not people.isdigit() or f"-{people}-people-" in run}
        assert all(model.parents[1] == out / "family" and model.is_dir() for model in models)
        assert [Path(file).stem.removeprefix("facts-") for file in facts] == ([] if name == "context" else [people])
        seen.append(name)
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(("given", "device"), [({}, "cpu"), ({"DEVICE": "cuda"}, "cuda")])
@pytest.mark.parametrize("grids", ["first", "quick", "full"])
def test_each_sweep_of_the_real_model_has_its_grid_the_relations_and_the_device(grids, given, device, tmp_path):
    words = [*([] if grids == "full" else [f"--{grids}"]), "relations", str(tmp_path / "out")]
    *sweeps, report = asked_of("real_model.sh", words, tmp_path, **({"DEVICE": ""} | given))
    assert report[0] == "report"
    expected = {}
    for grid in (SCRIPTS / "real_model" / grids).glob("*.yaml"):
        seeds = read_fields(grid).get("seeds")
        for seed in [None] if seeds is None else seeds if isinstance(seeds, list) else [seeds]:
            expected[grid.stem if seed is None else f"{grid.stem}-{seed}"] = grid, seed
    assert len(sweeps) == len(expected)
    for words in sweeps:
        given_of = dict(zip(words[1::2], words[2::2], strict=True))
        grid, seed = expected.pop(Path(given_of["--out"]).name)
        assert Path(given_of["--out"]).parent == tmp_path / "out"
        assert Path(given_of["--config"]) == grid
        assert given_of.get("--seeds") == (None if seed is None else str(seed))
        assert json.loads(given_of["--metadata"]) == {"relations": "relations"}
        assert given_of["--device"] == device
        assert ("--perplexity" in given_of) == (grids != "first")


@pytest.mark.parametrize(("given", "device"), [({}, "cpu"), ({"DEVICE": "cuda", "BATCH": "256"}, "cuda")])
def test_each_calibration_seed_of_the_fine_grid_has_both_sweeps(given, device, tmp_path):
    sweeps = asked_of("fine_grid.sh", [str(tmp_path / "out")], tmp_path, **({"DEVICE": "", "SCRIPT": "fine_grid"} | given))
    seen = []
    for words in sweeps:
        given_of = dict(zip(words[1::2], words[2::2], strict=True))
        part, _, seed = Path(given_of["--out"]).name.partition("-")
        assert Path(given_of["--config"]) == SCRIPTS / "fine_grid" / f"{part}.yaml"
        assert given_of["--seeds"] == seed
        assert given_of["--device"] == device
        assert given_of.get("--batch-size") == given.get("BATCH")
        seen.append((part, int(seed)))
    assert sorted(seen) == [(part, seed) for part in ("context", "facts") for seed in range(10)]
