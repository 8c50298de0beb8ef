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

SCRIPTS = Path(__file__).parents[2] / "scripts"
# Trains nothing, writes no page, and has the lists of facts from this process.
PYTHON = """#!/bin/sh
case "$*" in
  *train_family.py*) for name in $RUNS; do mkdir -p "$3/$name/model"; done ;;
  *" page "*) ;;
  *"/$SCRIPT.py facts "*) cp "$FACTS"/* "$3" ;;
  *) exit 1 ;;
esac
"""
HARNESS_EXT = """#!/bin/sh
"$REAL" -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@" >> "$ASKED"
"""


@pytest.mark.parametrize(("module", "kind", "files"), [(memory_load, "loads", "facts-*.json"), (exposure, "zipf", "*.json")])
def test_each_sweep_has_its_grid_all_its_models_and_the_facts_that_they_were_told(module, kind, files, tmp_path):
    script = module.__name__
    runs, out, asked = runs_of([kind], [], [0, 1, 2], 2000), tmp_path / "out", tmp_path / "asked"
    (tmp_path / "bin").mkdir()
    (tmp_path / "facts").mkdir()
    written = CliRunner().invoke(module.app, ["facts", str(tmp_path / "facts")])
    assert written.exit_code == 0, written.output
    for name, text in {"python": PYTHON, "harness-ext": HARNESS_EXT}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "RUNS": " ".join(runs), "REAL": sys.executable, "ASKED": str(asked)}
    own |= {"SCRIPT": script, "FACTS": str(tmp_path / "facts")}
    subprocess.run(["bash", str(SCRIPTS / f"{script}.sh"), str(out)], env=os.environ | own, check=True, capture_output=True)
    told = {file.stem.removeprefix("facts-") for file in out.glob(files)}
    sweeps = [json.loads(line) for line in asked.read_text().splitlines()]
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
